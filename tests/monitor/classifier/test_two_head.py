"""The classifier: one answer for one text, whatever stands beside it, calibrated, and sure only of what it is sure of."""

import math
from dataclasses import replace

import numpy as np
import pytest
import structlog
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DistilBertConfig, DistilBertModel

from monitor.classifier.checkpoint import Checkpoint, load_checkpoint
from monitor.classifier.load import load_classifier
from monitor.classifier.manifest import Calibration, Questions
from monitor.classifier.model import Logits, TwoHeadModel, load_encoder
from monitor.classifier.null import NullClassifier
from monitor.classifier.protocol import Accountable, Classifier, Effort, Engine, Prepared, Target
from monitor.classifier.two_head import TwoHeadClassifier, energy, opinions_of, probabilities
from monitor.config import ModelSettings
from monitor.errors import ModelError
from monitor.types import Mention, Passage
from tests.monitor.classifier.tiny import TOPICS, WORDS, tiny_manifest

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
        return TwoHeadClassifier(Checkpoint(tiny_manifest(base, **changes), model, None, "scripted"), "cpu")

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
        assert lost.out_of_domain
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


@pytest.mark.parametrize(("above", "foreign"), [(-0.1, True), (0.1, False)])
def test_a_text_is_out_of_domain_where_its_energy_is_above_the_limit(scripted, above, foreign):
    logits = {5: ((math.log(0.5), math.log(0.25), math.log(0.25)), (0.0, 0.0, 0.0))}  # energy -log(1)
    (answer,) = scripted(logits, out_of_domain_above=above).classify([text(5)])
    assert answer.out_of_domain is foreign


def test_energy_is_high_where_all_logits_are_low():
    low, high, none = energy(np.array([[9.0, 0.0], [-9.0, -9.0], [math.inf, 0.0]]))
    assert low == pytest.approx(-math.log(math.exp(9) + 1))
    assert high == pytest.approx(9 - math.log(2))
    assert none == math.inf


def test_rows_that_are_not_defined_do_not_touch_the_others():
    rows = probabilities(np.array([[math.nan, 0.0], [math.log(3), 0.0]]), 1.0)
    assert rows.tolist() == [[0.5, 0.5], pytest.approx([0.75, 0.25])]


def test_no_rows_no_opinions():
    assert opinions_of(np.zeros((0, 3)), Calibration(1.0, 0.5)) == []


# --- how it computes ----------------------------------------------------------------------------


def test_it_tells_what_its_passes_came_to_once(loaded):
    classifier = TwoHeadClassifier(loaded, "cpu", pass_tokens=10)
    assert isinstance(classifier, Accountable)
    classifier.classify([text(5), text(6), text(7)])
    classifier.classify([text(8)])
    assert classifier.effort() == Effort(pass_tokens=(8, 4, 4))
    assert classifier.effort() == Effort()
    assert classifier.engine == Engine("cpu", "fp32", "packed")


def test_another_architecture_is_padded_and_says_so(loaded):
    torch.manual_seed(2)
    shape = {"vocab_size": 60, "dim": 32, "n_layers": 1, "n_heads": 2, "hidden_dim": 48, "max_position_embeddings": 40}
    model = TwoHeadModel(DistilBertModel(DistilBertConfig(**shape)), len(TOPICS)).eval().requires_grad_(False)
    with structlog.testing.capture_logs() as logs:
        classifier = TwoHeadClassifier(replace(loaded, model=model), "cpu")
    assert logs == [{"event": "encoder.padded", "architecture": "DistilBertModel", "log_level": "warning"}]
    assert classifier.engine.encoder == "padded"
    rows = [Prepared((2, 30, 31, 3), (Target("halden", (1,)),)), Prepared((2, 28, 3)), Prepared((2, 25, 26, 27, 28, 29, 3))]
    together = classifier.classify(rows)
    assert classifier.effort() == Effort(pass_tokens=(14,), padding_tokens=7)
    assert all(same(answer, classifier.classify([row])[0]) for answer, row in zip(together, rows, strict=True))


def test_precision_is_chosen_named_in_the_version_and_leaves_the_checkpoint_as_it_is(loaded, classifier):
    half = TwoHeadClassifier(loaded, "cpu", precision="bf16")
    assert half.engine.precision == "bf16"
    assert half.version == f"{classifier.version}-bf16"
    rows = half.prepare([passage(["bank", "profit", "rises"]), passage(["halden", "falls"])])
    for near, exact in zip(half.classify(rows), classifier.classify(rows), strict=True):
        assert near.topic_probabilities == pytest.approx(exact.topic_probabilities, abs=0.05)
        assert near.topic_probabilities != exact.topic_probabilities
    assert {parameter.dtype for parameter in loaded.model.parameters()} == {torch.float32}


def test_a_checkpoint_is_loaded_from_the_configuration(checkpoint, base, classifier):
    threads = torch.get_num_threads()
    try:
        built = load_classifier(ModelSettings(checkpoint=checkpoint, base=base, device="cpu", threads=1))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
    assert isinstance(built, TwoHeadClassifier)
    assert (built.version, built.topics, built.device) == (classifier.version, TOPICS, "cpu")


def test_the_precision_of_the_configuration_is_used(checkpoint, base):
    built = load_classifier(ModelSettings(checkpoint=checkpoint, base=base, device="cpu", precision="bf16"))
    assert isinstance(built, TwoHeadClassifier)
    assert built.engine.precision == "bf16"


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
    assert not isinstance(null, Accountable)
    assert (null.version, null.topics, null.device) == ("null", TOPICS, "none")
    prepared = null.prepare([Passage(words) for words in ("", "four", "five.", "x" * 512, "x" * 513)])
    assert [(one.tokens, one.truncated) for one in prepared] == [(1, False), (1, False), (2, False), (128, False), (128, True)]
    answers = null.classify(prepared)
    assert len(answers) == 5
    assert {(answer.document.tone, answer.topic, answer.topic_probabilities, answer.document.score) for answer in answers} == {
        ("neutral", "earnings", (1.0, 0.0, 0.0), 0.0)
    }
