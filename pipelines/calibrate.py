"""A head's logits on validation texts in, the temperature and the limit of certainty that its answers are served with out."""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np

LEAST_ACCURACY: Final = {"topic": 0.5, "sentiment": 0.6, "toward": 0.6}
"""An answer counts as uncertain when answers of its confidence are right less often than this on validation."""


def negative_log_likelihood(logits: Any, truth: Any, temperature: float) -> float:
    """The mean of -log P(truth) at a temperature."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    largest = scaled.max(axis=1)
    log_sum = largest + np.log(np.exp(scaled - largest[:, None]).sum(axis=1))
    return float((log_sum - scaled[np.arange(len(truth)), truth]).mean())


def fit_temperature(logits: Any, truth: Any) -> float:
    """The temperature between 0.05 and 20 under which the truth is most likely (Guo et al. 2017, arXiv:1706.04599)."""
    low, high = math.log(0.05), math.log(20.0)
    # The likelihood is concave in 1/temperature, so it has one peak and thirds can be thrown away until it is found.
    while high - low > 1e-4:
        first, second = low + (high - low) / 3, high - (high - low) / 3
        if negative_log_likelihood(logits, truth, math.exp(first)) < negative_log_likelihood(logits, truth, math.exp(second)):
            high = second
        else:
            low = first
    return math.exp((low + high) / 2)


def fit_uncertain_below(confidence: Any, correct: Any, least_accuracy: float) -> float:
    """The lowest confidence from which on answers are right at least `least_accuracy` of the time; 1 when there is none.

    How often an answer of a given confidence is right is read off the isotonic regression of `correct` on `confidence`: it falls
    nowhere, so there is one limit and no bin width to choose.
    """
    from sklearn.isotonic import IsotonicRegression

    fitted = IsotonicRegression(y_min=0.0, y_max=1.0).fit_transform(confidence, np.asarray(correct, dtype=np.float64))
    enough = np.asarray(confidence)[fitted >= least_accuracy]
    return float(enough.min()) if len(enough) else 1.0


def calibration_error(confidence: Any, correct: Any, bins: int = 15) -> float:
    """The expected calibration error: the mean distance of accuracy from confidence over equal bins, weighted by their texts."""
    confidence, correct = np.asarray(confidence), np.asarray(correct, dtype=np.float64)
    number = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = (abs((correct - confidence)[number == which].sum()) for which in range(bins))
    return float(sum(gaps) / len(confidence))
