"""Recipes: what is shipped can be used, and a mistake is told with its place."""

import pytest

from monitor.errors import PipelineError
from pipelines.recipe import RECIPES, Recipe, read_recipe

SHIPPED = sorted(path.stem for path in RECIPES.glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_recipe_can_be_read_and_says_what_it_is_for(name):
    recipe = read_recipe(name)
    assert recipe == read_recipe(str(RECIPES / f"{name}.yaml"))
    assert (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_every_method_and_way_of_training_has_a_recipe():
    recipes = [read_recipe(name) for name in SHIPPED]
    assert {recipe.method for recipe in recipes} == {"full", "lora", "dora", "adalora", "ia3", "prefix"}
    assert {recipe.adversary for recipe in recipes} == {"none", "fgm", "pgd", "awp"}
    assert {recipe.optimiser for recipe in recipes} == {"adamw", "adafactor"}


def test_the_usual_recipe_is_the_defaults():
    assert read_recipe("usual") == Recipe()


def test_a_recipe_that_is_not_there_names_those_that_are():
    with pytest.raises(PipelineError, match=r"is no recipe: give a \.yaml file or one of adafactor, .*usual"):
        read_recipe("unusual")


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("rank: 0\nepoch: 3\n", "rank: .*\n.*epoch: unknown key"),
        ("{companions: 0.1, teachers: [runs/first]}\n", "companions and teachers do not go together"),
        ("{method: ia3, frozen_layers: 2}\n", "frozen_layers means something for full, lora and dora only"),
        ("layer_decay: 0.9\n", "layer_decay means something for method full only"),
        ("paraphrases: 0.5\n", "paraphrases needs a paraphraser"),
        ("paraphrases: 0.5\nparaphraser: my translator\n", "paraphraser: "),
        ("method: [", "cannot be read"),
        ("- lora\n", "cannot be used"),
    ],
)
def test_a_mistake_is_told_with_file_and_place(tmp_path, content, fault):
    path = tmp_path / "own.yaml"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(PipelineError, match=rf"own\.yaml (.|\n)*{fault}"):
        read_recipe(str(path))
