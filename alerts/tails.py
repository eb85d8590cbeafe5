"""Counts and what was expected to how unlikely they are: tails of the negative binomial and the beta-binomial."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


def negative_binomial(mean: Floats, variance: Floats) -> tuple[Floats, Floats]:
    """The size r and the probability q of the negative binomial with this mean and this variance; the variance is the greater."""
    return mean * mean / (variance - mean), mean / variance


def at_least(count: Integers, r: Floats, q: Floats) -> Floats:
    """The probability of `count` or more under the negative binomial (r, q): 1 for nothing or less.

    It is the regularised incomplete beta function, computed number by number, so that one number gives the bits that it gives
    among ten thousand.
    """
    from scipy.special import betainc

    counted = np.maximum(count, 1).astype(np.float64)
    return np.where(count <= 0, 1.0, betainc(counted, r, 1.0 - q))


def at_most(count: Integers, r: Floats, q: Floats) -> Floats:
    """The probability of `count` or fewer under the negative binomial (r, q)."""
    from scipy.special import betainc

    return np.asarray(betainc(r, count.astype(np.float64) + 1.0, q), dtype=np.float64)


def share_at_least(count: Integers, of: Integers, first: Floats, second: Floats) -> Floats:
    """The probability of `count` or more among `of`, when the share is itself beta-distributed with these two shapes."""
    cases = zip(count.tolist(), of.tolist(), first.tolist(), second.tolist(), strict=True)
    return np.array([_share_at_least(*case) for case in cases], dtype=np.float64)


def _share_at_least(count: int, of: int, first: float, second: float) -> float:
    from scipy.special import betaln, gammaln

    hits = np.arange(max(count, 0), of + 1)
    misses = of - hits
    ways = gammaln(of + 1.0) - gammaln(hits + 1.0) - gammaln(misses + 1.0)
    return min(float(np.exp(ways + betaln(hits + first, misses + second) - betaln(first, second)).sum()), 1.0)
