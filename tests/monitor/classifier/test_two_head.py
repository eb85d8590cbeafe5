"""The classifier: one answer for one text, whatever stands beside it and whatever the device does."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.checkpoint import Checkpoint, load_checkpoint
from monitor.classifier.load import load_classifier
from monitor.classifier.manifest import Head
from monitor.classifier.null import NullClassifier
from monitor.classifier.protocol import Classifier, Prepared
from monitor.classifier.two_head import TwoHeadClassifier, _passes, probabilities, resolve_device
from monitor.config import ModelSettings
from monitor.errors import DeviceLost, ModelError
from monitor.types import Prediction
from tests.monitor.classifier.tiny import TOPICS, WORDS, tiny_manifest

TOLERANCE = 1e-4


def same(one: Prediction, other: Prediction) -> bool:
    pairs = [
        *zip(one.topic_probabilities, other.topic_probabilities, strict=True),
        *zip(one.sentiment_probabilities, other.sentiment_probabilities, strict=True),
    ]
    return all(abs(a - b) <= TOLERANCE for a, b in pairs)


@pytest.fixture(scope="module")
def loaded(checkpoint, base):
    return load_checkpoint(checkpoint, base)


texts = st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join), max_size=12)


@settings(max_examples=60, deadline=None)
@given(texts, st.randoms(use_true_random=False), st.sampled_from([1, 24, 60, 4_096]))
def test_a_text_gets_one_answer_whatever_else_is_in_the_batch(loaded, batch, order, pass_tokens):
    classifier = TwoHeadClassifier(loaded, "cpu", pass_tokens)
    alone = {text: classifier.classify(classifier.prepare([text]))[0] for text in set(batch)}
    order.shuffle(batch)
    together = classifier.classify(classifier.prepare(batch))
    assert len(together) == len(batch)
    assert all(same(answer, alone[text]) for text, answer in zip(batch, together, strict=True))


def test_different_texts_get_different_answers(classifier):
    one, other = classifier.classify(classifier.prepare(["profit rises", "halden falls"]))
    assert not same(one, other)


def test_probabilities_sum_to_one_and_the_label_is_the_likeliest(classifier):
    for answer in classifier.classify(classifier.prepare(["bank", "profit rises", "", "loss of savings in halden"])):
        assert sum(answer.topic_probabilities) == pytest.approx(1, abs=1e-12)
        assert sum(answer.sentiment_probabilities) == pytest.approx(1, abs=1e-12)
        assert answer.topic == TOPICS[int(np.argmax(answer.topic_probabilities))]
        assert answer.sentiment == ("negative", "neutral", "positive")[int(np.argmax(answer.sentiment_probabilities))]


def test_nothing_in_nothing_out(classifier):
    assert classifier.classify([]) == []


def test_a_text_of_no_token_at_all_is_answered(classifier):
    (answer,) = classifier.classify([Prepared(())])
    assert sum(answer.sentiment_probabilities) == pytest.approx(1)


class Scripted:
    """A model that gives the logits written for a text's second token, and fails as scripted."""

    def __init__(self, logits=None, largest_batch=None, error=None):
        self.logits = logits or {}
        self.largest_batch = largest_batch
        self.error = error
        self.shapes = []

    def to(self, device):
        return self

    def __call__(self, token_ids, mask):
        self.shapes.append(tuple(token_ids.shape))
        if self.error is not None:
            raise self.error
        if self.largest_batch is not None and len(token_ids) > self.largest_batch:
            raise torch.OutOfMemoryError("CUDA out of memory")
        rows = [self.logits.get(int(row[1]), ((0.0,) * 3, (float(row[1]), 0.0, 0.0))) for row in token_ids]
        return torch.tensor([row[0] for row in rows]), torch.tensor([row[1] for row in rows])


@pytest.fixture
def scripted(base):
    def build(model, **changes):
        return TwoHeadClassifier(Checkpoint(tiny_manifest(base, **changes), model, None, 0, "scripted"), "cpu")

    return build


def text(token, length=3):
    return Prepared((2, token, *[9] * (length - 3), 3))


def test_the_temperature_divides_the_logits(scripted):
    logits = {5: ((3.0, 0.0, -3.0), (1.6, 0.0, -0.8))}
    (answer,) = scripted(Scripted(logits)).classify([text(5)])
    topic = [math.exp(value / 1.5) for value in logits[5][0]]
    sentiment = [math.exp(value / 0.8) for value in logits[5][1]]
    assert answer.topic_probabilities == pytest.approx([value / sum(topic) for value in topic])
    assert answer.sentiment_probabilities == pytest.approx([value / sum(sentiment) for value in sentiment])


@pytest.mark.parametrize(("limit", "uncertain"), [(0.5, False), (0.5 + 1e-9, True), (0.0, False), (1.0, True)])
def test_an_answer_is_uncertain_below_its_limit_and_not_at_it(scripted, limit, uncertain):
    logits = {5: ((0.0, 0.0, -1e9), (0.0, -1e9, 0.0))}
    model = Scripted(logits)
    heads = {"topic": Head(TOPICS, 1.0, limit), "sentiment": Head(("negative", "neutral", "positive"), 1.0, limit)}
    (answer,) = scripted(model, **heads).classify([text(5)])
    assert answer.topic_uncertain is uncertain
    assert answer.sentiment_uncertain is uncertain
    assert answer.tone == ("uncertain" if uncertain else "negative")


def test_each_head_has_its_own_limit(scripted):
    logits = {5: ((0.0, 0.0, -1e9), (0.0, -1e9, 0.0))}
    model = Scripted(logits)
    (answer,) = scripted(model, topic=Head(TOPICS, 1.0, 0.6)).classify([text(5)])
    assert answer.topic_uncertain
    assert not answer.sentiment_uncertain


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("head", [0, 1])
def test_a_text_without_numbers_is_uncertain_and_costs_only_itself(scripted, bad, head):
    logits = {5: [(1.0, 0.0, 0.0), (0.0, 0.0, 9.0)], 6: [(1.0, 0.0, 0.0), (0.0, 0.0, 9.0)]}
    logits[5][head] = (0.0, bad, 0.0)
    zero = {"topic": Head(TOPICS, 1.0, 0.0), "sentiment": Head(("negative", "neutral", "positive"), 1.0, 0.0)}
    classifier = scripted(Scripted(logits), **zero)
    lost, kept = classifier.classify([text(5), text(6)])
    assert lost.topic_probabilities == pytest.approx((1 / 3,) * 3)
    assert lost.sentiment_probabilities == pytest.approx((1 / 3,) * 3)
    assert (lost.topic_uncertain, lost.tone, lost.sentiment, lost.score) == (True, "uncertain", "neutral", 0)
    assert (kept.topic_uncertain, kept.tone) == (False, "positive")
    assert classifier.undefined == 1


def test_huge_logits_are_still_probabilities(scripted):
    (answer,) = scripted(Scripted({5: ((3e38, 0.0, 0.0), (-3e38, -3e38, -3e38))})).classify([text(5)])
    assert answer.topic_probabilities == (1.0, 0.0, 0.0)
    assert answer.sentiment_probabilities == pytest.approx((1 / 3,) * 3)


def test_a_pass_that_does_not_fit_is_made_in_halves_and_in_order(scripted):
    model = Scripted(largest_batch=2)
    answers = scripted(model).classify([text(token) for token in (5, 6, 7, 8, 9, 10, 11)])
    negatives = [answer.sentiment_probabilities[0] for answer in answers]
    assert negatives == sorted(negatives)
    assert len(set(negatives)) == 7
    assert [shape[0] for shape in model.shapes] == [7, 3, 1, 2, 4, 2, 2]


def test_one_text_that_does_not_fit_means_the_device_is_lost(scripted):
    with pytest.raises(DeviceLost, match="one text of 3 tokens does not fit"):
        scripted(Scripted(largest_batch=0)).classify([text(5), text(6)])


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered\nmore"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_any_other_failure_of_the_device_means_that_it_is_lost(scripted, error):
    with pytest.raises(DeviceLost, match=r"cpu: .*; restart the process$"):
        scripted(Scripted(error=error)).classify([text(5)])


def test_a_fault_of_ours_is_not_blamed_on_the_device(scripted):
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        scripted(Scripted(error=RuntimeError("mat1 and mat2 shapes cannot be multiplied"))).classify([text(5)])
    assert not isinstance(caught.value, DeviceLost)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=30), st.sampled_from([1, 29, 30, 31, 60, 100, 1_000]))
def test_passes_hold_every_text_once_within_the_limit(lengths, pass_tokens):
    passes = list(_passes(lengths, pass_tokens))
    assert sorted(place for group in passes for place in group) == list(range(len(lengths)))
    for group in passes:
        assert len(group) == 1 or len(group) * max(lengths[place] for place in group) <= pass_tokens
    for group, following in itertools.pairwise(passes):
        assert (len(group) + 1) * max(lengths[place] for place in group) > pass_tokens
        assert min(lengths[place] for place in group) >= max(lengths[place] for place in following)


def test_rows_that_are_not_defined_do_not_touch_the_others():
    rows = probabilities(np.array([[math.nan, 0.0], [math.log(3), 0.0]]), np.array([False, True]), 1.0)
    assert rows.tolist() == [[0.5, 0.5], pytest.approx([0.75, 0.25])]


def test_a_device_that_is_not_there_is_refused():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    with pytest.raises(
        ModelError, match=r'model\.device is cuda:99, but torch sees \d+ CUDA devices here: choose another, or "cpu"'
    ):
        resolve_device("cuda:99")


def test_a_checkpoint_is_loaded_from_the_configuration(checkpoint, base, classifier):
    threads = torch.get_num_threads()
    try:
        built = load_classifier(ModelSettings(checkpoint=checkpoint, base=base, device="cpu", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert isinstance(built, TwoHeadClassifier)
    assert (built.version, built.topics, built.device) == (classifier.version, TOPICS, "cpu")


def test_threads_are_left_alone_unless_they_are_set(checkpoint, base):
    threads = torch.get_num_threads()
    load_classifier(ModelSettings(checkpoint=checkpoint, base=base, device="cpu"))
    assert torch.get_num_threads() == threads


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(ModelError, match="is no checkpoint"):
        load_classifier(ModelSettings(checkpoint=tmp_path))


def test_null_answers_neutral_and_weighs_by_length(checkpoint):
    null: Classifier = load_classifier(ModelSettings(checkpoint=checkpoint, disabled=True))
    assert isinstance(null, NullClassifier)
    assert (null.version, null.topics, null.device) == ("null", TOPICS, "none")
    prepared = null.prepare(["", "four", "five.", "x" * 512, "x" * 513])
    assert [(one.tokens, one.truncated) for one in prepared] == [(1, False), (1, False), (2, False), (128, False), (128, True)]
    answers = null.classify(prepared)
    assert len(answers) == 5
    assert {(answer.tone, answer.topic, answer.topic_probabilities, answer.score) for answer in answers} == {
        ("neutral", "earnings", (1.0, 0.0, 0.0), 0.0)
    }
