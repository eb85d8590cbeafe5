"""How unlike the texts of training a text is, against the definition, and in a classifier's answers."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.familiarity import learn_surprisals, unfamiliarity
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.types import Passage
from tests.monitor.classifier.tiny import tiny_surprisals

VOCABULARY = 12
CLS, SEP = 0, 1
rows = st.lists(st.lists(st.integers(2, VOCABULARY - 1), max_size=9).map(lambda text: (CLS, *text, SEP)), max_size=9)


def by_definition(text, surprisals):
    found = sorted((surprisals[token] for token in text[1:-1]), reverse=True)
    kept = found[: math.ceil(len(found) / 2)]
    return sum(kept) / len(kept) if kept else math.inf


@settings(max_examples=200, deadline=None)
@given(rows, rows)
def test_it_is_the_mean_surprisal_of_the_rarer_half(training, texts):
    surprisals = learn_surprisals(training, VOCABULARY)
    assert unfamiliarity(texts, surprisals).tolist() == pytest.approx([by_definition(text, surprisals) for text in texts])


@settings(max_examples=200, deadline=None)
@given(rows)
def test_surprisals_are_those_of_a_distribution_and_fall_with_what_was_seen(training):
    surprisals = learn_surprisals(training, VOCABULARY)
    assert np.exp(-surprisals).sum() == pytest.approx(1)
    counts = np.bincount([token for text in training for token in text], minlength=VOCABULARY)
    for one in range(VOCABULARY):
        assert all(surprisals[one] < surprisals[other] for other in range(VOCABULARY) if counts[one] > counts[other])


def test_a_text_of_words_that_training_did_not_have_is_out_of_domain(base, checkpoint):
    loaded = load_checkpoint(checkpoint, base)
    bank, weather = Passage("the bank profit falls"), Passage("rumour queue gain rises")
    seen = TwoHeadClassifier(loaded, "cpu").prepare([bank])[0].token_ids
    surprisals = learn_surprisals([seen] * 50, len(loaded.surprisals))
    manifest = replace(loaded.manifest, out_of_domain_above=4.0)
    classifier = TwoHeadClassifier(replace(loaded, surprisals=surprisals, manifest=manifest), "cpu")
    known, foreign, longer = classifier.classify(classifier.prepare([bank, weather, Passage("the bank the bank the bank falls")]))
    assert (known.out_of_domain, foreign.out_of_domain, longer.out_of_domain) == (False, True, False)
    assert known.unfamiliarity == pytest.approx(math.log(6), abs=0.05)
    assert foreign.unfamiliarity == pytest.approx(surprisals.max())


def test_a_checkpoint_keeps_them_to_the_third_digit(base, checkpoint):
    assert load_checkpoint(checkpoint, base).surprisals == pytest.approx(tiny_surprisals(base), rel=1e-3)
