"""The table of recipes: each run is done once, figures are those of the runs, seeds together are an ensemble."""

import json
import statistics

import numpy as np
import pytest
from typer.testing import CliRunner

from monitor.errors import PipelineError
from pipelines.ablation import Spread, ablate, markdown, spread, tabulate
from pipelines.cli import app
from pipelines.corpus import save_corpus
from pipelines.finetune import Figures, load_figures, save_answers
from pipelines.recipe import Recipe
from pipelines.training import Answers
from tests.monitor.classifier.tiny import write_base
from tests.pipelines.invented import invented_corpus

TINY = "rank: 2\nalpha: 4\nepochs: 3\nbatch_tokens: 96\nlearning_rate: 0.01\nmax_tokens: 32\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


def test_the_command_fills_a_table_and_goes_on_with_it(base, tmp_path):
    save_corpus(invented_corpus(), tmp_path / "corpus")
    (tmp_path / "plain.yaml").write_text(TINY, encoding="utf-8")
    (tmp_path / "prefix.yaml").write_text(TINY + "method: prefix\n", encoding="utf-8")

    def call(recipes):
        options = ["--corpus", tmp_path / "corpus", "--output", tmp_path / "out", "--base", base, "--base-name", "invented/tiny"]
        options += ["--recipes", ",".join(str(tmp_path / f"{name}.yaml") for name in recipes), "--seeds", "1,2", "--epochs", "1"]
        result = CliRunner().invoke(app, ["ablate", *map(str, options)], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads((tmp_path / "out/table.json").read_text(encoding="utf-8"))

    (first,) = call(["plain"])
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/runs").rglob("figures.json")}
    assert len(written) == 2
    again, prefix = call(["plain", "prefix"])
    assert again == first
    assert all(path.stat().st_mtime_ns == before for path, before in written.items())
    figures = [load_figures(tmp_path / f"out/runs/plain-{seed}/figures.json") for seed in (1, 2)]
    assert all(json.loads(one.inputs["recipe"])["epochs"] == 1 for one in figures)
    for part, found in first["macro_f1"].items():
        values = [one.metrics[part]["macro_f1"] for one in figures]
        assert found == {"mean": round(statistics.mean(values), 4), "deviation": round(statistics.stdev(values), 4)}
    assert first["difference"] == {"mean": 0.0, "deviation": 0.0}
    assert set(first["ensemble"]) == set(first["macro_f1"]) == {"names/toward", "tones/sentiment", "topics/topic"}
    assert prefix["learning_weights"] < first["learning_weights"]
    table = (tmp_path / "out/table.md").read_text(encoding="utf-8")
    assert [line.split("|")[1].strip() for line in table.splitlines() if line.startswith("| ")] == ["recipe", "plain", "prefix"]
    # A run of the same name from something else is not taken for this one.
    (tmp_path / "plain.yaml").write_text(TINY + "dropout: 0.3\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="plain-1 is a run with another recipe, base or corpus"):
        call(["plain"])


def test_differences_are_taken_seed_by_seed_and_seeds_together_are_an_ensemble(tmp_path):
    truth = np.array([0, 1, 2, 0])
    right = np.eye(3)[truth] * 4
    wrong = np.roll(right, 1, axis=1) * 0.5
    values = {"plain": (0.5, 0.7), "better": (0.6, 0.8)}
    for name in values:
        for seed, logits in ((1, right), (2, wrong)):
            (tmp_path / f"runs/{name}-{seed}").mkdir(parents=True)
            save_answers(tmp_path / f"runs/{name}-{seed}/answers.npz", {"a/topic": Answers("topic", logits, truth)})
    figures = {
        name: [Figures({}, {"a/topic": {"macro_f1": value}}, 10, 100, 2, 1.0) for value in given] for name, given in values.items()
    }
    plain, better = tabulate(figures, (1, 2), tmp_path)
    assert better.difference == Spread(0.1, 0.0)
    assert plain.mean == Spread(0.6, 0.1414)
    assert better.ensemble == {"a/topic": 1.0}
    assert better.cpu_seconds_per_1000 == 5.0
    assert "| better | 70.0 ± 14.1 | 70.0 ± 14.1 | +10.0 ± 0.0 | 100.0 | 10 | 5.0 |" in markdown([plain, better])


def test_a_single_seed_has_no_deviation():
    assert spread([0.25]) == Spread(0.25, 0.0)


def test_nothing_to_compare_is_an_error(tmp_path):
    with pytest.raises(PipelineError, match="needs a recipe and a seed"):
        ablate(invented_corpus(), {"plain": Recipe()}, [], output=tmp_path)


def test_options_that_make_no_sense_are_told(tmp_path):
    for options, fault in (
        (["--recipes", "usual", "--seeds", "1,x"], "--seeds must be numbers"),
        (["--recipes", "usual,usual"], "have one name"),
    ):
        with pytest.raises(PipelineError, match=fault):
            CliRunner().invoke(
                app, ["ablate", "--corpus", str(tmp_path), "--output", str(tmp_path), *options], catch_exceptions=False
            )
