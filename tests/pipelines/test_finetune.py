"""From a corpus to a checkpoint that the daemon loads, on a tiny base, by the commands that people call."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.load import load_classifier
from monitor.classifier.manifest import read_manifest
from monitor.config import ModelSettings
from monitor.errors import PipelineError
from monitor.types import Mention, Passage
from pipelines.cli import app
from pipelines.finetune import (
    Figures,
    check_trackers,
    finetune,
    limited,
    load_answers,
    load_figures,
    measure,
    save_answers,
    save_figures,
)
from pipelines.recipe import Recipe
from pipelines.training import Answers
from tests.monitor.classifier.tiny import write_base
from tests.pipelines.invented import TOPIC_NAMES, invented_corpus, write_data

TINY = "rank: 2\nalpha: 4\nepochs: 2\nbatch_tokens: 96\nlearning_rate: 0.01\nmax_tokens: 32\n"
RECIPE = Recipe(rank=2, alpha=4, epochs=1, batch_tokens=96, learning_rate=0.01, max_tokens=32)


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


def call(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def run(base, output, recipe=RECIPE, seed=1, **options):
    return finetune(
        invented_corpus(), recipe, seed=seed, output=output, base=base, base_name="invented/tiny", trackers=(), **options
    )


def test_the_commands_make_a_checkpoint_that_the_daemon_loads(base, tmp_path):
    data = write_data(tmp_path / "data")
    (tmp_path / "tiny.yaml").write_text(TINY, encoding="utf-8")
    assert "written:" in call("data", "--data", data, "--output", tmp_path / "corpus")
    options = ["--corpus", tmp_path / "corpus", "--output", tmp_path / "run", "--recipe", tmp_path / "tiny.yaml"]
    options += ["--base", base, "--base-name", "invented/tiny"]
    call("finetune", *options)
    assert list((tmp_path / "run/curves").rglob("events.out.tfevents.*"))
    manifest = read_manifest(tmp_path / "run/checkpoint")
    assert manifest.topics == TOPIC_NAMES
    assert (manifest.base.name, manifest.max_tokens, manifest.seed) == ("invented/tiny", 32, 1)
    assert [epoch["epoch"] for epoch in manifest.epochs] == [1, 2]
    assert set(manifest.metrics) == {"sentfin/toward", "sentfin/sentiment", "tfns/sentiment", "topic/topic"}
    best = max(manifest.epochs, key=lambda epoch: sum(epoch[part] for part in manifest.metrics))
    assert {part: figures["macro_f1"] for part, figures in manifest.metrics.items()} == {
        part: best[part] for part in manifest.metrics
    }
    assert str(tmp_path) not in (tmp_path / "run/checkpoint/manifest.json").read_text(encoding="utf-8")
    classifier = load_classifier(ModelSettings(checkpoint=tmp_path / "run/checkpoint", base=base, device="cpu"))
    passage = Passage("halden gains as the bank falls", (Mention(0, 6, "HLD"), Mention(20, 24, "BNK")))
    (prediction,) = classifier.classify(classifier.prepare([passage]))
    assert prediction.topic in TOPIC_NAMES
    assert set(prediction.toward) == {"HLD", "BNK"}
    # Called again it goes on from the end: nothing is trained, and the same weights are written.
    before = load_checkpoint(tmp_path / "run/checkpoint", base).version
    call("finetune", *options)
    assert load_checkpoint(tmp_path / "run/checkpoint", base).version == before


@pytest.mark.parametrize("method", ["full", "adalora", "ia3"])
def test_the_figures_are_those_of_the_checkpoint_as_it_is_loaded(base, tmp_path, method):
    from monitor.classifier.tokens import load_tokenizer
    from pipelines.training import answers, encode

    recipe = RECIPE.model_copy(update={"method": method, "learning_rate": 1e-3})
    done = run(base, tmp_path, recipe)
    model = load_checkpoint(done.checkpoint, base).model
    saved = load_answers(tmp_path / "answers.npz")
    assert set(saved) == set(done.manifest.metrics) == {"names/toward", "tones/sentiment", "topics/topic"}
    for part, examples in invented_corpus().validation.items():
        for question, given in answers(model, encode(examples, load_tokenizer(base), TOPIC_NAMES, 32)).items():
            np.testing.assert_allclose(saved[f"{part}/{question}"].logits, given.logits, atol=1e-3)
            calibration = getattr(done.manifest.calibration, question)
            assert measure(given, calibration) == pytest.approx(done.manifest.metrics[f"{part}/{question}"], abs=2e-3)


def test_a_prefix_gives_figures_and_no_checkpoint(base, tmp_path):
    done = run(base, tmp_path, RECIPE.model_copy(update={"method": "prefix"}))
    assert done.checkpoint is None
    assert not (tmp_path / "checkpoint").exists()
    assert load_figures(tmp_path / "figures.json") == done.figures
    # Two layers of keys and values of 32 numbers for each of two tokens, and the heads.
    assert done.figures.learning_weights == 2 * 2 * 2 * 32 + 33 * 3 + 65 * 3


def test_a_model_is_distilled_from_checkpoints_of_other_runs(base, tmp_path):
    first, second = (run(base, tmp_path / f"teacher-{seed}", seed=seed) for seed in (1, 2))
    recipe = RECIPE.model_copy(
        update={"teachers": (str(first.checkpoint), str(second.checkpoint)), "entity_swaps": 0.5, "epochs": 2}
    )
    done = run(base, tmp_path / "student", recipe)
    teachers = read_manifest(done.checkpoint).recipe["teachers"]
    assert str(tmp_path) not in (tmp_path / "student/checkpoint/manifest.json").read_text(encoding="utf-8")
    assert {path.stem for path in (tmp_path / "student/judgements").glob("*.msgpack")} == set(teachers)
    assert len(set(teachers)) == 2
    assert done.epochs[1].loss < done.epochs[0].loss


def test_question_weights_are_told_in_the_manifest(base, tmp_path):
    done = run(base, tmp_path, RECIPE.model_copy(update={"question_weights": {"toward": 2.0}}))
    assert read_manifest(done.checkpoint).recipe["question_weights.toward"] == 2.0


def test_the_same_seed_gives_the_same_checkpoint_and_another_gives_another(base, tmp_path):
    one, same = (run(base, tmp_path / name) for name in ("one", "same"))
    assert one.manifest.files == same.manifest.files
    assert one.manifest.metrics == same.manifest.metrics
    other = run(base, tmp_path / "other", seed=2)
    assert other.manifest.files != one.manifest.files


def test_a_corpus_that_holds_nothing_out_is_refused(base, tmp_path):
    corpus = replace(invented_corpus(), validation={"names": ()})
    with pytest.raises(PipelineError, match="the corpus holds nothing out"):
        finetune(corpus, RECIPE, seed=1, output=tmp_path, base=base, trackers=())


def test_a_limit_draws_so_many_examples_by_the_seed():
    examples = invented_corpus().train
    assert limited(examples, 0, 1) == limited(examples, 999, 1) == examples
    assert len(limited(examples, 7, 1)) == 7
    assert limited(examples, 7, 1) == limited(examples, 7, 1) != limited(examples, 7, 2)


@pytest.mark.parametrize(("tracker", "fault"), [("slides", "draws no curves: choose from"), ("wandb", "pip install wandb")])
def test_curves_that_cannot_be_drawn_are_told_before_anything_is_done(tracker, fault, monkeypatch):
    monkeypatch.setattr("pipelines.finetune.find_spec", lambda name: None if name == "wandb" else object())
    with pytest.raises(PipelineError, match=fault):
        check_trackers([tracker])
    check_trackers(["tensorboard"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="half precision can be had here")
def test_a_precision_that_this_machine_lacks_is_told(base, tmp_path):
    with pytest.raises(PipelineError, match="precision fp16 cannot be had on this machine"):
        run(base, tmp_path, RECIPE.model_copy(update={"precision": "fp16"}))


def test_figures_and_answers_are_read_as_they_were_written(tmp_path):
    figures = Figures({"recipe": "{}", "seed": 1}, {"a/topic": {"macro_f1": 0.5}}, 10, 200, 3, 6.0)
    save_figures(tmp_path / "figures.json", figures)
    assert load_figures(tmp_path / "figures.json") == figures
    assert figures.cpu_seconds_per_1000 == pytest.approx(10.0)
    assert load_figures(tmp_path / "none.json") is None
    given = {
        "a/topic": Answers("topic", np.eye(3), np.array([0, 1, 2])),
        "b/toward": Answers("toward", np.ones((1, 3)), np.ones(1)),
    }
    save_answers(tmp_path / "answers.npz", given)
    found = load_answers(tmp_path / "answers.npz")
    assert {name: part.question for name, part in found.items()} == {"a/topic": "topic", "b/toward": "toward"}
    assert all(np.array_equal(found[name].logits, part.logits) for name, part in given.items())
    for name, load in (("figures.json", load_figures), ("answers.npz", load_answers)):
        (tmp_path / name).write_bytes(b"{")
        with pytest.raises(PipelineError, match=f"{name} cannot be read"):
            load(tmp_path / name)


def test_help_says_how_to_begin():
    for command, example in (
        ("data", "bellwether-train data --data labels --sets labels/sets.yaml --output corpus"),
        ("finetune", "bellwether-train finetune --corpus corpus --output runs/first"),
        ("ablate", "bellwether-train ablate --corpus corpus --output ablation --recipes usual,fgm,augmented"),
    ):
        assert example in " ".join(call(command, "--help").split())
