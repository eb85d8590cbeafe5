"""The training run on a tiny base: the schedule, the batches, a resumed run, and a checkpoint that loads."""

import random
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console
from typer import BadParameter
from typer.testing import CliRunner

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.load import load_classifier
from monitor.classifier.manifest import read_manifest
from monitor.classifier.model import UNLABELLED
from monitor.classifier.tokens import load_tokenizer
from monitor.config import ModelSettings
from pipelines.finetune import (
    Encoded,
    Epoch,
    Recipe,
    answers,
    app,
    batches,
    build_model,
    collate,
    encode,
    learned,
    load_epochs,
    macro_f1,
    rate_at,
    run_epochs,
)
from pipelines.prepare import Example
from tests.monitor.classifier.tiny import write_base
from tests.pipelines.invented import TOPIC_NAMES, write_data

RECIPE = Recipe(epochs=3, batch_size=4, learning_rate=1e-2, rank=2, alpha=4)
INPUTS = {"recipe": "this"}
TRAIN = [
    *(Example(f"profit rises {number}", sentiment=2) for number in range(8)),
    *(Example(f"loss falls {number}", sentiment=0) for number in range(8)),
    *(Example(f"queue savings {number}", topic=number % 3) for number in range(6)),
]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture
def run(base):
    tokenizer = load_tokenizer(base)

    def build(folder, recipe=RECIPE, inputs=INPUTS):
        folder.mkdir(exist_ok=True)
        torch.manual_seed(recipe.seed)
        model = build_model(base, 3, recipe)
        finished = run_epochs(
            model,
            train=encode(TRAIN, tokenizer, 16),
            validation={"all": encode(TRAIN[:16], tokenizer, 16)},
            weights=torch.ones(3),
            recipe=recipe,
            folder=folder,
            inputs=inputs,
            console=Console(quiet=True),
        )
        return model, finished

    return build


def test_the_rate_climbs_falls_and_ends_near_nothing():
    rates = [rate_at(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([number / 10 for number in range(1, 11)])
    assert rates[10] == 1.0
    assert rates == [*sorted(rates[:11]), *sorted(rates[11:], reverse=True)]
    assert rates[-1] == pytest.approx(1 / 90)
    assert rate_at(0, 1, 0.1) == 1.0


encoded = st.lists(st.integers(1, 30).map(lambda length: Encoded((1,) * length, UNLABELLED, 0)), max_size=90)


@settings(max_examples=60, deadline=None)
@given(encoded, st.integers(1, 8), st.one_of(st.none(), st.integers(0, 5)))
def test_every_example_is_in_one_batch(examples, size, seed):
    order = None if seed is None else random.Random(seed)
    found = list(batches(examples, size, order))
    assert sorted(len(row.token_ids) for rows in found for row in rows) == sorted(len(row.token_ids) for row in examples)
    assert all(len(rows) <= size for rows in found)
    assert len(found) == -(-len(examples) // size)


def test_batches_hold_texts_of_about_one_length_and_are_drawn_anew():
    examples = [Encoded((number,) * (number % 32 + 1), 0, 0) for number in range(256)]
    drawn = list(batches(examples, 8, random.Random(1)))
    padding = sum(max(len(row.token_ids) for row in rows) * len(rows) for rows in drawn) - sum(
        len(row.token_ids) for row in examples
    )
    assert padding < 0.05 * sum(len(row.token_ids) for row in examples)
    assert drawn == list(batches(examples, 8, random.Random(1)))
    assert drawn != list(batches(examples, 8, random.Random(2)))
    lengths = [len(rows[0].token_ids) for rows in drawn]
    assert lengths != sorted(lengths, reverse=True)


def test_a_batch_keeps_texts_and_labels_together():
    batch = collate([Encoded((2, 9, 3), 1, UNLABELLED), Encoded((2, 3), UNLABELLED, 2)])
    assert batch.token_ids.tolist() == [[2, 9, 3], [2, 3, 0]]
    assert batch.mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.topics.tolist() == [1, UNLABELLED]
    assert batch.sentiments.tolist() == [UNLABELLED, 2]


def test_training_learns_and_every_epoch_is_kept(run, tmp_path):
    model, finished = run(tmp_path, replace(RECIPE, epochs=8))
    assert [epoch.number for epoch, _ in finished] == list(range(1, 9))
    assert all(path.is_file() for _, path in finished)
    # The topics are drawn blindly, so a third of the loss cannot be learned away.
    assert finished[-1][0].loss < 0.8 * finished[0][0].loss
    # Two of the three sentiments are in the part; the mean is over all three labels.
    assert max(epoch.macro_f1["all"] for epoch, _ in finished) == pytest.approx(2 / 3)
    assert not (tmp_path / "unfinished.pt").exists()
    assert model.topic_head.weight.requires_grad


def test_a_resumed_run_ends_where_an_unbroken_one_ends(run, tmp_path):
    whole, _ = run(tmp_path / "whole")
    run(tmp_path / "broken")
    (tmp_path / "broken/epoch-2.pt").unlink()
    (tmp_path / "broken/epoch-3.pt").unlink()
    resumed, finished = run(tmp_path / "broken")
    assert len(finished) == 3
    for name, tensor in learned(whole).items():
        torch.testing.assert_close(learned(resumed)[name], tensor, msg=name)


def test_a_run_with_another_recipe_does_not_go_on_from_this_one(run, tmp_path):
    run(tmp_path, replace(RECIPE, epochs=1))
    with pytest.raises(BadParameter, match="another recipe, base or data: choose another --output"):
        load_epochs(tmp_path, {"recipe": "another"})


def test_epochs_are_read_in_the_order_of_their_numbers(tmp_path):
    for number in (1, 2, 10):
        torch.save({"epoch": {"number": number, "loss": 1.0, "macro_f1": {}}, "inputs": INPUTS}, tmp_path / f"epoch-{number}.pt")
    assert [epoch.number for epoch, _ in load_epochs(tmp_path, INPUTS)] == [1, 2, 10]


def test_an_epoch_is_worth_the_mean_of_its_parts():
    assert Epoch(1, 0.5, {"a": 0.25, "b": 0.75}).mean == 0.5


def test_a_part_is_answered_by_the_head_that_it_labels(base):
    model = build_model(base, 3, RECIPE)
    tokenizer = load_tokenizer(base)
    topic = answers(model, encode([Example("bank", topic=2), Example("the bank of halden", topic=1)], tokenizer, 16), 1)
    assert (topic.head, topic.logits.shape, topic.truth.tolist()) == ("topic", (2, 3), [1, 2])
    sentiment = answers(model, encode([Example("bank", sentiment=0)], tokenizer, 16))
    assert (sentiment.head, sentiment.truth.tolist()) == ("sentiment", [0])


def test_labels_that_never_come_count_as_nought_in_the_mean(base):
    model = build_model(base, 3, RECIPE)
    part = answers(model, encode([Example("bank", sentiment=1)], load_tokenizer(base), 16))
    right = replace(part, logits=part.logits * 0 + [[0, 1, 0]])
    assert macro_f1(right) == pytest.approx(1 / 3)


def test_the_command_writes_a_checkpoint_that_the_daemon_loads(base, tmp_path):
    data = write_data(tmp_path / "data")
    options = ["--data", data, "--output", tmp_path / "run", "--base", base, "--base-name", "invented/tiny"]
    options += ["--epochs", 2, "--batch-size", 16, "--learning-rate", 0.01, "--rank", 2, "--max-tokens", 32]
    result = CliRunner().invoke(app, [str(option) for option in options])
    assert result.exit_code == 0, result.output
    manifest = read_manifest(tmp_path / "run/checkpoint")
    assert manifest.topic.labels == TOPIC_NAMES
    assert manifest.sentiment.labels == ("negative", "neutral", "positive")
    assert (manifest.base.name, manifest.max_tokens, manifest.seed) == ("invented/tiny", 32, 1)
    assert [epoch["epoch"] for epoch in manifest.epochs] == [1, 2]
    best = max(manifest.epochs, key=lambda epoch: epoch["sentfin"] + epoch["tfns"] + epoch["topic"])
    assert {name: manifest.metrics[name]["macro_f1"] for name in ("sentfin", "tfns", "topic")} == {
        name: best[name] for name in ("sentfin", "tfns", "topic")
    }
    assert str(tmp_path) not in (tmp_path / "run/checkpoint/manifest.json").read_text(encoding="utf-8")
    classifier = load_classifier(ModelSettings(checkpoint=tmp_path / "run/checkpoint", base=base, device="cpu"))
    assert len(classifier.classify(classifier.prepare(["the bank falls"]))) == 1
    # Called again it goes on from the end: nothing is trained and the same weights are written.
    before = load_checkpoint(tmp_path / "run/checkpoint", base).version
    again = CliRunner().invoke(app, [str(option) for option in options])
    assert "going on after epoch 2" in again.output
    assert load_checkpoint(tmp_path / "run/checkpoint", base).version == before


def test_help_says_how_to_begin():
    result = CliRunner().invoke(app, ["--help"])
    assert "python -m pipelines.finetune --data data --output runs/first" in result.output
