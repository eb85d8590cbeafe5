"""A passage's answer is its own: the same alone, in any batch, in any order, in passes of any size."""

from itertools import islice
from random import Random

import pytest

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.load import checkpoint_folder
from monitor.classifier.protocol import Prepared, Target
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.config import ModelSettings
from tests.monitor.classifier.tiny import write_base, write_tiny_checkpoint

ROWS = 5_000
FP32, BF16 = 1e-4, 2e-2
BETWEEN_PRECISIONS = 5e-2
"""Of a number bf16 keeps eight bits: on words in no order, twelve layers of that show in the second digit of a probability."""


def random_rows(number, first_id, last_id, longest, seed):
    """Any tokens in any order, most rows short, a third with targets."""
    chance = Random(seed)
    rows = []
    for _ in range(number):
        length = chance.randint(1, longest if chance.random() < 0.2 else longest // 3)
        targets = [
            Target(f"entity-{which}", tuple(sorted(chance.sample(range(length), chance.randint(1, min(3, length))))))
            for which in range(chance.choice([0, 0, 0, 0, 1, 2]))
        ]
        rows.append(Prepared(tuple(chance.randint(first_id, last_id) for _ in range(length)), tuple(targets)))
    return rows


def farthest(one, other):
    """The largest difference between two predictions in any probability."""
    assert one.toward.keys() == other.toward.keys()
    pairs = [(one.topic_probabilities, other.topic_probabilities), (one.document.probabilities, other.document.probabilities)]
    pairs += [(opinion.probabilities, other.toward[entity].probabilities) for entity, opinion in one.toward.items()]
    return max(abs(a - b) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


def in_batches(classifier, rows, chance):
    """The answers by place, asked for in a random order in batches of random sizes."""
    places = list(range(len(rows)))
    chance.shuffle(places)
    answers, left = {}, iter(places)
    while batch := list(islice(left, chance.choice([1, 2, 7, 64, 500]))):
        answers.update(zip(batch, classifier.classify([rows[place] for place in batch]), strict=True))
    return [answers[place] for place in range(len(rows))]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    base = write_base(tmp_path_factory.mktemp("tiny") / "base")
    return load_checkpoint(write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", base), base)


@pytest.fixture(scope="module")
def shipped():
    return load_checkpoint(checkpoint_folder(ModelSettings()))


def test_five_thousand_rows_are_answered_in_batches_as_they_are_alone(tiny):
    rows = random_rows(ROWS, 0, 36, 60, seed=1)
    alone = TwoHeadClassifier(tiny, "cpu", pass_tokens=1).classify(rows)
    assert len({answer.topic_probabilities for answer in alone}) > ROWS / 2
    for seed, pass_tokens in enumerate((50, 1_536, 100_000)):
        together = in_batches(TwoHeadClassifier(tiny, "cpu", pass_tokens), rows, Random(seed))
        assert max(map(farthest, alone, together)) <= FP32


def test_half_precision_changes_an_answer_with_its_batch_by_little(tiny):
    rows = random_rows(500, 0, 36, 60, seed=2)
    alone = TwoHeadClassifier(tiny, "cpu", pass_tokens=1, precision="bf16").classify(rows)
    together = in_batches(TwoHeadClassifier(tiny, "cpu", precision="bf16"), rows, Random(3))
    assert max(map(farthest, alone, together)) <= BF16


@pytest.mark.parametrize(("precision", "number", "tolerance"), [("fp32", 60, FP32), ("bf16", 20, BF16)])
def test_the_shipped_model_answers_word_soup_in_batches_as_alone(shipped, precision, number, tolerance):
    rows = random_rows(number, 1_000, 30_000, 60, seed=4)
    alone = TwoHeadClassifier(shipped, "cpu", pass_tokens=1, precision=precision).classify(rows)
    together = TwoHeadClassifier(shipped, "cpu", precision=precision).classify(rows)
    assert max(map(farthest, alone, together)) <= tolerance


def test_the_shipped_model_says_in_half_precision_what_it_says_in_full(shipped):
    rows = random_rows(30, 1_000, 30_000, 60, seed=5)
    full = TwoHeadClassifier(shipped, "cpu").classify(rows)
    half = TwoHeadClassifier(shipped, "cpu", precision="bf16").classify(rows)
    assert 0 < max(map(farthest, full, half)) <= BETWEEN_PRECISIONS
