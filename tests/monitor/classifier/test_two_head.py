"""The classifier: one answer for one text, whatever stands beside it, calibrated, and sure only of what it is sure of."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.checkpoint import Checkpoint, load_checkpoint
from monitor.classifier.manifest import Calibration, Questions
from monitor.classifier.model import Logits, TwoHeadModel, load_encoder
from monitor.classifier.protocol import Prepared, Target
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.types import Mention, Passage
from tests.monitor.classifier.tiny import TOPICS, WORDS, tiny_manifest, tiny_surprisals

TOLERANCE = 1e-4


def same(one, other):
    pairs = [
        *zip(one.topic_probabilities, other.topic_probabilities, strict=True),
        *zip(one.document.probabilities, other.document.probabilities, strict=True),
    ]
    for entity in one.toward.keys() | other.toward.keys():
        pairs += zip(one.toward[entity].probabilities, other.toward[entity].probabilities, strict=True)
    return all(abs(a - b) <= TOLERANCE for a, b in pairs)


@pytest.fixture(scope="module")
def loaded(checkpoint, base):
    return load_checkpoint(checkpoint, base)


def passage(words):
    """The words as a text; each "halden" and each "bank" in it is the mention of an entity."""
    mentions, start = [], 0
    for word in words:
        if word in {"halden", "bank"}:
            mentions.append(Mention(start, start + len(word), word))
        start += len(word) + 1
    return Passage(" ".join(words), tuple(mentions))


passages = st.lists(st.lists(st.sampled_from(WORDS), max_size=40).map(passage), max_size=12)


@settings(max_examples=40, deadline=None)
@given(passages, st.randoms(use_true_random=False), st.sampled_from([1, 24, 60, 4_096]))
def test_a_text_gets_one_answer_whatever_else_is_in_the_batch(loaded, batch, order, pass_tokens):
    classifier = TwoHeadClassifier(loaded, "cpu", pass_tokens)
    alone = {one: classifier.classify(classifier.prepare([one]))[0] for one in set(batch)}
    order.shuffle(batch)
    together = classifier.classify(classifier.prepare(batch))
    assert len(together) == len(batch)
    assert all(same(answer, alone[one]) for one, answer in zip(batch, together, strict=True))


def test_different_texts_get_different_answers(classifier):
    one, other = classifier.classify(classifier.prepare([Passage("profit rises"), Passage("halden falls")]))
    assert not same(one, other)


def test_each_entity_gets_its_own_opinion_and_no_other_does(classifier):
    (answer,) = classifier.classify(classifier.prepare([passage(["halden", "falls", "bank", "rises"])]))
    assert set(answer.toward) == {"halden", "bank"}
    assert answer.toward["halden"].probabilities != answer.toward["bank"].probabilities
    assert answer.opinion("elsewhere") == answer.document


def test_probabilities_sum_to_one_and_the_label_is_the_likeliest(classifier):
    texts = [["bank"], ["profit", "rises"], [], ["loss", "of", "savings", "in", "halden"]]
    for answer in classifier.classify(classifier.prepare([passage(words) for words in texts])):
        assert sum(answer.topic_probabilities) == pytest.approx(1, abs=1e-12)
        assert answer.topic == TOPICS[int(np.argmax(answer.topic_probabilities))]
        for opinion in (answer.document, *answer.toward.values()):
            assert sum(opinion.probabilities) == pytest.approx(1, abs=1e-12)
            assert opinion.sentiment == ("negative", "neutral", "positive")[int(np.argmax(opinion.probabilities))]


def test_nothing_in_nothing_out(classifier):
    assert classifier.classify([]) == []


class Scripted(TwoHeadModel):
    """Gives the logits (topic, sentiment) that are written for a row's second token; those of a target are the row's sentiment."""

    logits: dict

    def answer(self, states, packed):
        del states
        second = packed.token_ids[packed.starts[:-1].long() + 1].tolist()
        rows = [self.logits.get(token, ((0.0,) * 3, (float(token), 0.0, 0.0))) for token in second]
        sentiment = torch.tensor([row[1] for row in rows])
        return Logits(torch.tensor([row[0] for row in rows]), sentiment, sentiment[packed.target_rows])


@pytest.fixture
def scripted(base):
    def build(logits, **changes):
        model = Scripted(load_encoder(base), len(TOPICS))
        model.logits = logits
        return TwoHeadClassifier(Checkpoint(tiny_manifest(base, **changes), model, None, tiny_surprisals(base), "scripted"), "cpu")

    return build


def text(token, *targets):
    return Prepared((2, token, 9, 3), tuple(Target(name, (1,)) for name in targets))


def limits(topic, sentiment, toward):
    return Questions(*(Calibration(1.0, limit) for limit in (topic, sentiment, toward)))


def test_the_temperature_of_each_question_divides_its_logits(scripted):
    logits = {5: ((3.0, 0.0, -3.0), (1.6, 0.0, -0.8))}
    questions = Questions(Calibration(1.5, 0.4), Calibration(0.8, 0.5), Calibration(3.2, 0.5))
    (answer,) = scripted(logits, calibration=questions).classify([text(5, "halden")])
    for values, temperature, found in (
        (logits[5][0], 1.5, answer.topic_probabilities),
        (logits[5][1], 0.8, answer.document.probabilities),
        (logits[5][1], 3.2, answer.toward["halden"].probabilities),
    ):
        powers = [math.exp(value / temperature) for value in values]
        assert found == pytest.approx([power / sum(powers) for power in powers])


@pytest.mark.parametrize(("limit", "uncertain"), [(0.5, False), (0.5 + 1e-9, True), (0.0, False), (1.0, True)])
def test_an_answer_is_uncertain_below_its_limit_and_not_at_it(scripted, limit, uncertain):
    logits = {5: ((0.0, 0.0, -1e9), (0.0, -1e9, 0.0))}
    (answer,) = scripted(logits, calibration=limits(limit, limit, limit)).classify([text(5, "halden")])
    assert answer.topic_uncertain is uncertain
    assert answer.document.uncertain is uncertain
    assert answer.toward["halden"].tone == ("uncertain" if uncertain else "negative")


@pytest.mark.parametrize("strict", [0, 1, 2])
def test_each_question_has_its_own_limit(scripted, strict):
    logits = {5: ((0.0, 0.0, -1e9), (0.0, -1e9, 0.0))}
    asked = [0.6 if place == strict else 0.4 for place in range(3)]
    (answer,) = scripted(logits, calibration=limits(*asked)).classify([text(5, "halden")])
    found = [answer.topic_uncertain, answer.document.uncertain, answer.toward["halden"].uncertain]
    assert found == [place == strict for place in range(3)]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("head", [0, 1])
def test_a_text_without_numbers_is_uncertain_counted_and_costs_only_itself(scripted, bad, head):
    logits = {5: [(1.0, 0.0, 0.0), (0.0, 0.0, 9.0)], 6: [(1.0, 0.0, 0.0), (0.0, 0.0, 9.0)]}
    logits[5][head] = (0.0, bad, 0.0)
    classifier = scripted(logits, calibration=limits(0.0, 0.0, 0.0))
    lost, kept = classifier.classify([text(5, "halden"), text(6, "halden")])
    equal = pytest.approx((1 / 3,) * 3)
    if head == 0:
        assert lost.topic_probabilities == equal
        assert lost.topic_uncertain
    else:
        for opinion in (lost.document, lost.toward["halden"]):
            assert (opinion.probabilities, opinion.tone, opinion.sentiment, opinion.score) == (equal, "uncertain", "neutral", 0)
    assert (kept.topic_uncertain, kept.document.tone, kept.toward["halden"].tone) == (False, "positive", "positive")
    assert classifier.undefined == classifier.effort().undefined == 1


def test_a_weight_that_is_not_a_number_is_caught_and_counted(loaded):
    classifier = TwoHeadClassifier(replace(loaded, model=load_scrambled(loaded)), "cpu")
    (answer,) = classifier.classify(classifier.prepare([passage(["bank", "falls"])]))
    assert answer.topic_uncertain
    assert {answer.document.tone, answer.toward["bank"].tone} == {"uncertain"}
    assert classifier.undefined == 1


def load_scrambled(loaded):
    model = TwoHeadModel(load_scrambled_encoder(loaded.model.encoder), len(TOPICS)).eval().requires_grad_(False)
    model.load_state_dict({name: tensor for name, tensor in loaded.model.state_dict().items() if "head" in name}, strict=False)
    return model


def load_scrambled_encoder(encoder):
    other = type(encoder)(encoder.config, add_pooling_layer=False).eval()
    other.load_state_dict(encoder.state_dict())
    with torch.no_grad():
        other.encoder.layer[0].output.dense.bias[0] = math.nan
    return other


def test_huge_logits_are_still_probabilities(scripted):
    (answer,) = scripted({5: ((3e38, 0.0, 0.0), (-3e38, -3e38, -3e38))}).classify([text(5)])
    assert answer.topic_probabilities == (1.0, 0.0, 0.0)
    assert answer.document.probabilities == pytest.approx((1 / 3,) * 3)
