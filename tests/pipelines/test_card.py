"""The model card: made of the manifest and the evaluation alone, and the shipped one is what the command makes."""

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from typer.testing import CliRunner

from monitor.classifier.manifest import TrainingFile, read_manifest
from pipelines.card import escaped, render
from pipelines.cli import app
from pipelines.corpus import Corpus, Example, Toward
from pipelines.evaluate import evaluate, load_evaluation, save_evaluation
from tests.fakes import FakeClassifier
from tests.monitor.classifier.tiny import TOPICS, tiny_manifest, write_base, write_tiny_checkpoint

SHIPPED = Path(str(files("monitor"))) / "checkpoint"
HELD = (
    Example("halden gains on earnings", "news", "earnings", "positive", (Toward(0, 6, "positive"),)),
    Example("halden loses, brandt gains", "news", "weather", "negative", (Toward(0, 6, "negative"), Toward(14, 20, "positive"))),
)


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(FakeClassifier(topics=TOPICS), Corpus((), {"news": HELD}, TOPICS, (), 1))


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def manifest(base):
    data = (TrainingFile("Invented | news", "MIT", "news.csv", "ab" * 32, 1234),)
    return tiny_manifest(base, data=data, counts={"news": {"train": 1200}}, recipe={"rank": 8}, seed=7)


def test_the_card_holds_what_the_manifest_and_the_evaluation_say(manifest, evaluation):
    card = render(manifest, evaluation)
    part = evaluation.parts["news/toward"]

    assert "| Invented \\| news | MIT | `news.csv` | 1,234 | `abababababababab` |" in card
    assert (
        f"| news/toward | {part.macro_f1:.3f} | {part.macro_f1_low:.3f} – {part.macro_f1_high:.3f} | {part.accuracy:.3f} |" in card
    )
    assert "| sentiment | 0.8 | 0.5 |" in card
    assert "--seed 7" in card
    assert "#   rank: 8" in card
    assert "does not read Chinese: of plain sentences it understands 0.0 %" in card


def test_the_same_manifest_and_evaluation_give_the_same_card(manifest, evaluation):
    assert render(manifest, evaluation) == render(manifest, evaluation)
    assert render(replace(manifest, seed=8), evaluation) != render(manifest, evaluation)


def test_every_table_of_the_card_has_one_width(manifest, evaluation):
    hostile = replace(manifest, topics=("a | b", "c\nd", "e"))
    tables = [block for block in render(hostile, evaluation).split("\n\n") if block.startswith("|")]

    assert len(tables) >= 6
    for block in tables:
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_what_would_be_markup_is_escaped():
    assert escaped("a|b\n<i>*c*</i>") == "a\\|b \\<i\\>\\*c\\*\\</i\\>"


def test_the_command_writes_the_card(base, evaluation, tmp_path):
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", base)
    save_evaluation(evaluation, tmp_path / "evaluation.json")
    options = {"--checkpoint": checkpoint, "--evaluation": tmp_path / "evaluation.json", "--output": tmp_path / "CARD.md"}
    done = CliRunner().invoke(app, ["card", *(str(part) for option in options.items() for part in option)], catch_exceptions=False)

    assert done.exit_code == 0
    assert (tmp_path / "CARD.md").read_text(encoding="utf-8") == render(read_manifest(checkpoint), evaluation)


@pytest.mark.skipif(
    not (SHIPPED / "evaluation.json").is_file() or not (SHIPPED / "CARD.md").is_file(), reason="the shipped card is not made yet"
)
def test_the_shipped_card_is_what_the_command_makes():
    made = render(read_manifest(SHIPPED), load_evaluation(SHIPPED / "evaluation.json"))

    assert (SHIPPED / "CARD.md").read_text(encoding="utf-8") == made
