"""The loop: batches, losses, rates; a resumed run, several processes, and every option of a recipe on a tiny base."""

import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.manifest import read_manifest
from monitor.classifier.packing import pack
from monitor.classifier.protocol import Prepared, Target
from monitor.classifier.tokens import load_tokenizer
from monitor.errors import PipelineError
from pipelines.corpus import Example, Toward
from pipelines.finetune import start
from pipelines.learner import build_model
from pipelines.recipe import Recipe
from pipelines.training import (
    UNLABELLED,
    Average,
    Below,
    Encoded,
    Epoch,
    Labels,
    Training,
    answers,
    averaged,
    batches,
    disagreement,
    encode,
    groups_of,
    labels_of,
    learned,
    load_epochs,
    macro_f1,
    masked_loss,
    rate_at,
    restore,
    train,
)
from tests.monitor.classifier.tiny import write_base
from tests.pipelines.invented import TOPIC_NAMES, examples

INPUTS = {"recipe": "this"}
TRAIN = examples(36, seed=1)
USUAL = {"epochs": 3, "rank": 2, "alpha": 4, "batch_tokens": 96, "learning_rate": 1e-2, "train_max_tokens": 24}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


def scores_of(model, tokenizer):
    encoded = encode(TRAIN, tokenizer, TOPIC_NAMES, 24)
    return {question: macro_f1(part) for question, part in answers(model, encoded).items()}


def trained(base, folder, inputs=INPUTS, validate=None, **changes):
    recipe = Recipe(**(USUAL | changes))
    tokenizer = load_tokenizer(base)
    torch.manual_seed(1)
    model = build_model(base, 3, recipe, steps=15)
    training = Training(recipe, 1, TOPIC_NAMES, tokenizer, start(recipe, folder, ()))
    finished = train(
        model,
        TRAIN,
        training=training,
        validate=validate or (lambda model: scores_of(model, tokenizer)),
        folder=folder,
        inputs=inputs,
    )
    return model, finished


# --- data ----------------------------------------------------------------------------------------

encoded_rows = st.lists(st.integers(1, 30).map(lambda length: Encoded(Prepared((1,) * length), UNLABELLED, 0, (), 0)), max_size=90)


@settings(max_examples=60, deadline=None)
@given(encoded_rows, st.integers(1, 64), st.none() | st.integers(0, 5))
def test_every_example_is_in_one_batch_within_its_budget(rows, tokens, seed):
    found = batches(rows, tokens, None if seed is None else random.Random(seed))
    assert sorted(row.prepared.tokens for cut in found for row in cut) == sorted(row.prepared.tokens for row in rows)
    for cut in found:
        assert len(cut) == 1 or sum(row.prepared.tokens for row in cut) <= tokens


def test_batches_hold_texts_of_about_one_length_and_are_drawn_anew():
    rows = [Encoded(Prepared((number,) * (number % 32 + 1)), 0, 0, (), number) for number in range(256)]
    found = batches(rows, 160, random.Random(1))
    padded = sum(max(row.prepared.tokens for row in cut) * len(cut) for cut in found)
    assert padded < 1.1 * sum(row.prepared.tokens for row in rows)
    assert found == batches(rows, 160, random.Random(1))
    assert found != batches(rows, 160, random.Random(2))
    lengths = [cut[0].prepared.tokens for cut in found]
    assert lengths != sorted(lengths, reverse=True)


def test_labels_follow_their_rows_and_targets_into_packed_order(base):
    given_examples = [
        Example("bank", "x", topic=TOPIC_NAMES[1]),
        Example("halden loss in the bank", "x", None, None, (Toward(0, 6, "negative"), Toward(19, 23, "positive"))),
        Example("profit rises", "x", sentiment="positive"),
    ]
    rows = encode(given_examples, load_tokenizer(base), TOPIC_NAMES, 24)
    assert [row.place for row in rows] == [0, 1, 2]
    packed = pack([row.prepared for row in rows])
    labels = labels_of(rows, packed)
    assert packed.order == (1, 2, 0)
    assert labels.topic.tolist() == [UNLABELLED, UNLABELLED, 1]
    assert labels.sentiment.tolist() == [UNLABELLED, 2, UNLABELLED]
    assert labels.toward.tolist() == [0, 2]


def test_an_entity_that_was_cut_off_teaches_nothing(base):
    far = Example("the bank " * 40 + "halden", "x", toward=(Toward(4, 8, "negative"), Toward(360, 366, "positive")))
    (row,) = encode([far], load_tokenizer(base), TOPIC_NAMES, 12)
    assert len(row.toward) == len(row.prepared.targets)
    assert {row.prepared.targets[place].entity: label for place, label in enumerate(row.toward)}.items() <= {"0": 0, "1": 2}.items()


# --- loss ----------------------------------------------------------------------------------------


def logits_of(topic, sentiment, toward):
    return SimpleNamespace(topic=topic, sentiment=sentiment, toward=toward)


def test_the_loss_is_the_mean_over_the_labels_given():
    torch.manual_seed(1)
    logits = logits_of(torch.randn(4, 3), torch.randn(4, 3), torch.randn(2, 3))
    labels = Labels(torch.tensor([0, -100, -100, 2]), torch.tensor([-100, 1, -100, -100]), torch.tensor([2, -100]))
    one = torch.nn.functional.cross_entropy
    wanted = [
        one(logits.topic[[0]], torch.tensor([0])),
        one(logits.topic[[3]], torch.tensor([2])),
        one(logits.sentiment[[1]], torch.tensor([1])),
        one(logits.toward[[0]], torch.tensor([2])),
    ]
    torch.testing.assert_close(masked_loss(logits, labels, Recipe(label_smoothing=0.0)), torch.stack(wanted).mean())
    weighed = Recipe(label_smoothing=0.0, question_weights={"topic": 3.0})
    weights = torch.tensor([3.0, 3.0, 1.0, 1.0])
    torch.testing.assert_close(masked_loss(logits, labels, weighed), (torch.stack(wanted) * weights).sum() / weights.sum())


def test_what_has_no_label_changes_nothing_and_every_head_is_in_the_graph():
    torch.manual_seed(1)
    logits = logits_of(*(torch.randn(3, 3, requires_grad=True) for _ in range(3)))
    none = torch.tensor([-100] * 3)
    loss = masked_loss(logits, Labels(torch.tensor([0, -100, -100]), none, none), Recipe())
    loss.backward()
    assert logits.topic.grad[0].any()
    assert not logits.topic.grad[1:].any()
    assert not logits.sentiment.grad.any()
    assert not logits.toward.grad.any()
    assert float(masked_loss(logits, Labels(none, none, none), Recipe()).detach()) == 0.0


def test_two_answers_disagree_as_far_as_they_differ():
    torch.manual_seed(1)
    one = logits_of(torch.randn(2, 3), torch.randn(2, 3), torch.zeros(0, 3))
    other = logits_of(one.topic + 1.0, one.sentiment.clone(), torch.zeros(0, 3))
    torch.testing.assert_close(disagreement(one, other), torch.tensor(0.0))
    far = logits_of(one.topic * 3, one.sentiment, torch.zeros(0, 3))
    assert float(disagreement(one, far)) == pytest.approx(float(disagreement(far, one)))
    assert float(disagreement(one, far)) > 0.01


# --- rates ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_rate_climbs_to_its_peak_and_falls_as_the_schedule_says(schedule):
    rates = [rate_at(step, 100, Recipe(schedule=schedule)) for step in range(100)]
    assert rates[:10] == pytest.approx([number / 10 for number in range(1, 11)])
    assert rates[10] == pytest.approx(1.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert (rates[-1] < 0.02) == (schedule != "constant")
    assert rate_at(0, 1, Recipe()) == 1.0


def test_lower_layers_learn_slower_and_what_is_no_matrix_is_not_decayed(base):
    recipe = Recipe(method="full", layer_decay=0.5, learning_rate=1e-3, head_learning_rate=7e-3)
    model = build_model(base, 3, recipe, steps=1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    for group in groups_of(model, recipe):
        for parameter in group["params"]:
            name = names[id(parameter)]
            peak = 7e-3 if "head" in name else 1e-3 if ".layer.1." in name else 5e-4
            assert group["peak"] == pytest.approx(peak), name
            assert (group["weight_decay"] > 0) == name.endswith("weight") * ("LayerNorm" not in name), name
    scales = build_model(base, 3, Recipe(method="ia3"), steps=1)
    decayed = [group for group in groups_of(scales, Recipe(method="ia3")) if group["weight_decay"]]
    assert sum(len(group["params"]) for group in decayed) == 2


# --- runs ----------------------------------------------------------------------------------------


def test_training_learns_and_every_epoch_is_kept(base, tmp_path):
    # Dropout is much for a base of random weights: without it everything can be learned by heart.
    model, finished = trained(base, tmp_path, epochs=14, dropout=0.0)
    assert [epoch.number for epoch, _ in finished] == list(range(1, 15))
    assert finished[-1][0].loss < 0.5 * finished[0][0].loss
    assert finished[-1][0].macro_f1["topic"] > 0.8
    # Two of the three sentiments are in the examples; the mean is over all three labels.
    assert finished[-1][0].macro_f1["toward"] > 0.6
    assert finished[-1][0].macro_f1["sentiment"] == pytest.approx(2 / 3)
    assert all(epoch.cpu_seconds > 0 for epoch, _ in finished)
    assert not list(tmp_path.glob("*.unfinished"))
    last = learned(model)
    restore(finished[0][1], model)
    assert any(not torch.equal(tensor, last[name]) for name, tensor in learned(model).items())
    restore(finished[-1][1], model)
    assert all(torch.equal(tensor, last[name]) for name, tensor in learned(model).items())


WAYS = {
    "usual": {"average_decay": 0.9},
    "full": {"method": "full", "learning_rate": 1e-3, "accumulation": 2},
    "adalora": {"method": "adalora"},
    "augmented": {"entity_swaps": 0.5, "number_changes": 0.5, "synonyms": 0.5, "optimiser": "adafactor"},
    "pushed": {"adversary": "fgm", "adversary_size": 0.2},
}


class Killed(Exception):
    """The end of a process, in the middle of a run."""


@pytest.mark.parametrize("way", WAYS)
def test_a_run_killed_after_an_epoch_ends_where_an_undisturbed_one_ends(base, tmp_path, way):
    whole, _ = trained(base, tmp_path / "whole", **WAYS[way])
    tokenizer = load_tokenizer(base)
    seen = []

    def killed(model):
        seen.append(model)
        if len(seen) == 2:
            raise Killed
        return scores_of(model, tokenizer)

    with pytest.raises(Killed):
        trained(base, tmp_path / "broken", validate=killed, **WAYS[way])
    resumed, finished = trained(base, tmp_path / "broken", **WAYS[way])
    assert [epoch.number for epoch, _ in finished] == [1, 2, 3]
    for name, tensor in learned(whole).items():
        assert torch.equal(learned(resumed)[name], tensor), name


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "dora"},
        {"method": "ia3"},
        {"method": "prefix"},
        {"precision": "bf16"},
        {"schedule": "cosine", "label_smoothing": 0.1, "question_weights": {"toward": 2.0}},
        {"consistency": 1.0},
        {"adversary": "pgd", "adversary_size": 0.2, "precision": "bf16"},
        {"adversary": "awp", "adversary_size": 0.02, "adversary_from_epoch": 2, "accumulation": 2},
    ],
    ids=str,
)
def test_every_option_trains(base, tmp_path, changes):
    model, finished = trained(base, tmp_path, epochs=2, **changes)
    assert finished[1][0].loss < finished[0][0].loss
    assert all(bool(torch.isfinite(tensor).all()) and tensor.dtype == torch.float32 for tensor in learned(model).values())


def test_mixed_precision_computes_in_bf16(base, tmp_path):
    model, _ = trained(base, tmp_path / "plain", epochs=1)
    mixed, _ = trained(base, tmp_path / "mixed", epochs=1, precision="bf16")
    gaps = [float((tensor - learned(mixed)[name]).abs().max()) for name, tensor in learned(model).items()]
    assert 0 < max(gaps) < 0.2


def test_a_run_without_progress_stops_early(base, tmp_path):
    _, finished = trained(base, tmp_path, epochs=6, patience=2, validate=lambda model: {"all": 0.5})
    assert [epoch.number for epoch, _ in finished] == [1, 2, 3]


def test_a_run_with_another_recipe_does_not_go_on_from_this_one(base, tmp_path):
    trained(base, tmp_path, epochs=1)
    with pytest.raises(PipelineError, match="another recipe, seed, base or data: choose another folder"):
        load_epochs(tmp_path, {"recipe": "another"})


def test_nothing_to_learn_from_is_an_error(base, tmp_path):
    training = Training(Recipe(), 1, TOPIC_NAMES, load_tokenizer(base), Accelerator(cpu=True))
    with pytest.raises(PipelineError, match="no example to learn from"):
        train(None, [], training=training, validate=dict, folder=tmp_path, inputs=INPUTS)


def test_epochs_are_read_in_the_order_of_their_numbers_up_to_the_last_that_is_whole(tmp_path):
    for number in (1, 2, 10):
        torch.save({"epoch": {"number": number, "loss": 1.0, "macro_f1": {}}, "inputs": INPUTS}, tmp_path / f"epoch-{number}.pt")
    torch.save({"number": 3}, tmp_path / "state.pt")
    assert [epoch.number for epoch, _ in load_epochs(tmp_path, INPUTS)] == [1, 2, 10]
    torch.save({"number": 2}, tmp_path / "state.pt")
    assert [epoch.number for epoch, _ in load_epochs(tmp_path, INPUTS)] == [1, 2]
    (tmp_path / "state.pt").unlink()
    assert load_epochs(tmp_path, INPUTS) == []


def test_an_average_is_taken_for_a_while_and_given_back(base):
    model = build_model(base, 3, Recipe(rank=2), steps=1)
    average = Average(model, 0.9)
    with torch.no_grad():
        model.topic_head.bias.fill_(4.0)
    average.update(model)
    own = learned(model)
    with averaged(model, average):
        inside = model.topic_head.bias.clone()
    assert bool(((inside > 0) & (inside < 4)).all())
    assert all(torch.equal(tensor, own[name]) for name, tensor in learned(model).items())


def test_an_epoch_is_worth_the_mean_of_its_parts():
    assert Epoch(1, 0.5, {"a": 0.25, "b": 0.75}).mean == 0.5


def test_a_part_is_answered_by_the_head_that_it_labels_in_the_order_of_the_examples(base):
    model = build_model(base, 3, Recipe(rank=2), steps=1).eval()
    tokenizer = load_tokenizer(base)
    rows = encode(TRAIN, tokenizer, TOPIC_NAMES, 24)
    whole = answers(model, rows, batch_tokens=64)
    assert {question: len(part.truth) for question, part in whole.items()} == {"topic": 12, "sentiment": 12, "toward": 24}
    single = [answers(model, [row]) for row in rows]
    for question, part in whole.items():
        alone = [one[question] for one in single if question in one]
        torch.testing.assert_close(
            torch.tensor(part.logits), torch.cat([torch.tensor(one.logits) for one in alone]), atol=1e-5, rtol=1e-4
        )
        assert part.truth.tolist() == [label for one in alone for label in one.truth.tolist()]


def test_a_target_that_two_tokens_name_keeps_its_label():
    rows = [Encoded(Prepared((1, 2, 3), (Target("1", (1,)), Target("0", (2,)))), UNLABELLED, UNLABELLED, (2, 0), 0)]
    packed = pack([row.prepared for row in rows])
    assert labels_of(rows, packed).toward.tolist() == [2, 0]


# --- several processes ---------------------------------------------------------------------------


def launch(script_arguments, processes=2):
    """Runs this module's program in several processes of one run, as `accelerate launch` does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    root = Path(__file__).parents[2]
    shared = os.environ | {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(processes),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(root),
    }
    started = [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("one_of_several.py")), *script_arguments],
            env=shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            cwd=root,
        )
        for rank in range(processes)
    ]
    assert [process.wait(timeout=580) for process in started] == [0] * processes


@pytest.mark.slow
def test_two_processes_learn_the_same_weights_and_go_on_after_a_stop(base, tmp_path):
    launch([str(base), str(tmp_path)])
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text(encoding="utf-8")) for rank in range(2))
    # A run as a whole: both processes come to the same figures, one of them writes.
    assert first.pop("finetune") == second.pop("finetune") == {"metrics": read_manifest(tmp_path / "run/checkpoint").metrics}
    for way, told in first.items():
        assert told["weights"] == second[way]["weights"], way
        assert told["resumed"] == told["weights"], way
    assert len({told["weights"] for told in first.values()}) == len(first)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_layers_that_do_not_learn_are_computed_once_and_change_nothing(base, tmp_path, monkeypatch, method):
    changes = {"method": method, "frozen_layers": 1, "dropout": 0.0, "rank": 8, "alpha": 8}
    once, _ = trained(base, tmp_path / "once", **changes)
    computed = []
    monkeypatch.setattr(Below, "learn", lambda _self, rows: computed.append(len(rows)))
    monkeypatch.setattr(Below, "entering", lambda _self, _rows, _packed: None)
    always, _ = trained(base, tmp_path / "always", **changes)
    assert computed == [len(TRAIN)] * 3
    for name, tensor in learned(once).items():
        torch.testing.assert_close(tensor, learned(always)[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("change", [{"layer_dropout": 0.1}, {"entity_swaps": 0.5}, {"adversary": "fgm"}])
def test_frozen_layers_are_computed_anew_where_something_changes_what_enters_them(base, tmp_path, change):
    recipe = Recipe(frozen_layers=1, **change)
    below = Below(build_model(base, 3, recipe, steps=1), recipe, "cpu")
    rows = encode(TRAIN[:4], load_tokenizer(base), TOPIC_NAMES, 24)
    below.learn(rows)
    assert below.entering(rows, pack([row.prepared for row in rows])) is None
