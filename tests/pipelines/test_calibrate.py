"""Temperature, limit of certainty and calibration error on cases whose answer is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.answers import probabilities
from pipelines.calibrate import (
    calibration_error,
    fit_temperature,
    fit_uncertain_below,
    negative_log_likelihood,
)


def drawn(temperature, rows=4_000):
    """Logits and truths such that the truth has the probabilities of the logits at `temperature`."""
    source = np.random.default_rng(1)
    logits = source.normal(size=(rows, 3)) * 2
    truth = (probabilities(logits, temperature).cumsum(axis=1) < source.random((rows, 1))).sum(axis=1)
    return logits, truth


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_temperature_that_the_truth_was_drawn_at_is_found(temperature):
    assert fit_temperature(*drawn(temperature)) == pytest.approx(temperature, rel=0.1)


def test_no_other_temperature_makes_the_truth_likelier():
    logits, truth = drawn(1.7)
    best = negative_log_likelihood(logits, truth, fit_temperature(logits, truth))
    for other in np.geomspace(0.05, 20, 200):
        assert best <= negative_log_likelihood(logits, truth, float(other)) + 1e-7


def test_the_likelihood_is_that_of_the_probabilities():
    logits, truth = drawn(1.0, rows=20)
    chosen = probabilities(logits, 1.3)[np.arange(20), truth]
    assert negative_log_likelihood(logits, truth, 1.3) == pytest.approx(-np.log(chosen).mean())
    assert math.isfinite(negative_log_likelihood(np.array([[1e4, 0.0]]), np.array([1]), 0.05))


def test_the_limit_is_where_answers_become_right_often_enough():
    confidence = np.repeat([0.4, 0.5, 0.7, 0.9], 100)
    correct = np.concatenate([np.arange(100) < right for right in (30, 55, 60, 95)])
    assert fit_uncertain_below(confidence, correct, 0.6) == 0.7
    assert fit_uncertain_below(confidence, correct, 0.5) == 0.5
    assert fit_uncertain_below(confidence, correct, 0.99) == 1.0
    assert fit_uncertain_below(confidence, correct, 0.1) == 0.4


def test_one_lucky_answer_does_not_lower_the_limit():
    confidence = np.array([0.35, *[0.4] * 50, *[0.8] * 50])
    correct = np.array([True, *[False] * 50, *[True] * 50])
    assert fit_uncertain_below(confidence, correct, 0.5) == 0.8


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.floats(0.34, 1), st.booleans()), min_size=1, max_size=40), st.sampled_from([0.5, 0.6]))
def test_at_and_above_the_limit_answers_are_right_often_enough(rows, least):
    confidence, correct = np.array([row[0] for row in rows]), np.array([row[1] for row in rows])
    limit = fit_uncertain_below(confidence, correct, least)
    at_least, below = correct[confidence >= limit], correct[confidence < limit]
    if limit == 1 and (not at_least.size or at_least.mean() < least):
        # No limit was found: then all answers together, the surest included, are not right often enough.
        assert correct.mean() < least
        return
    assert at_least.mean() >= least - 1e-9
    assert not below.size or below.mean() < least


def test_the_calibration_error_is_the_weighted_distance_per_bin():
    confidence = np.array([0.95, 0.95, 0.55, 0.55])
    assert calibration_error(confidence, np.array([1, 1, 1, 0]), bins=10) == pytest.approx((2 * 0.05 + 2 * 0.05) / 4)
    assert calibration_error(np.array([1.0]), np.array([True])) == 0
    assert calibration_error(np.array([1.0, 0.99]), np.array([False, False]), bins=10) == pytest.approx(0.995)
