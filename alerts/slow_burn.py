"""Daily counts of five weeks to slow burns: series whose bad news has grown over days, though no window of hours is a surge.

A cumulative sum (CUSUM) for a doubled rate, computed anew from the counts of each day, so that nothing has to be remembered.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alerts.baseline import DAY_HOURS, Baseline
from alerts.season import WEEK_HOURS
from alerts.tails import Floats
from monitor.types import HOUR_MS, Series

_REFERENCE_DAYS: Final = 20
_WATCHED_DAYS: Final = 14
_DAYS: Final = _REFERENCE_DAYS + _WATCHED_DAYS
_REFERENCE: Final = 1.0 / math.log(2.0)
"""Where a day speaks neither for the usual rate nor for a doubled one, in units of the usual."""
_LIMIT: Final = 20.0
"""Of the sum, in dispersions. Simulated series of 0.1 to 20 stories a day, of dispersion 1.05 and 2.2: at most one false alarm in
20,000 of them. Doubled for two weeks, 79 % are found at five stories a day, 32 % at two, none at less than half a story."""
_PRIOR_STORIES: Final = 0.5
_LEAST_BURNING_DAYS: Final = 3


@dataclass(frozen=True, slots=True)
class SlowBurn:
    """A series whose sum is over its limit after the last whole day: its negative stories by day, what was expected, and the
    sum. `decide_burn` says the same from these numbers alone.
    """

    series: Series
    until_ms: int
    counts: tuple[int, ...]
    expected: tuple[float, ...]
    dispersion: float
    sum: float
    limit: float


def first_burn_hour(until_ms: int) -> int:
    """The first hour, numbered from the epoch, that `slow_burns` wants at that moment."""
    return until_ms // HOUR_MS - _DAYS * DAY_HOURS


def slow_burns(baseline: Baseline, negative: NDArray[np.int32], until_ms: int) -> list[SlowBurn]:
    """The series that burn at `until_ms`, a whole hour, from (series, hours) negative stories of [`first_burn_hour`, until_ms).

    The usual rate is that of the first twenty days, and the sum is taken over the fourteen after. While the log is younger than
    four weeks nothing burns. Raises ValueError when the counts are not of the baseline's series in those hours.
    """
    size = len(baseline.roster.series)
    if negative.shape != (size, _DAYS * DAY_HOURS):
        raise ValueError(f"slow burns are found in {(size, _DAYS * DAY_HOURS)} series and hours, not in {negative.shape}")
    if baseline.exposure_hours < WEEK_HOURS * 4:
        return []
    hours = np.arange(first_burn_hour(until_ms), until_ms // HOUR_MS)
    seasons = baseline.profiles[:, hours % WEEK_HOURS].reshape(-1, _DAYS, DAY_HOURS).sum(axis=2)[baseline.roster.kinds]
    days = negative.reshape(size, _DAYS, DAY_HOURS).sum(axis=2, dtype=np.int64)
    dispersion = baseline.negative.dispersion[:, -1]
    reference = days[:, :_REFERENCE_DAYS].sum(axis=1) + _PRIOR_STORIES * dispersion
    expected = (reference / seasons[:, :_REFERENCE_DAYS].sum(axis=1))[:, None] * seasons[:, _REFERENCE_DAYS:]
    watched = days[:, _REFERENCE_DAYS:]
    sums, limits = _cusum(watched, expected, dispersion)
    return [
        SlowBurn(
            series=baseline.roster.series[row],
            until_ms=until_ms,
            counts=tuple(watched[row].tolist()),
            expected=tuple(expected[row].tolist()),
            dispersion=float(dispersion[row]),
            sum=float(sums[row]),
            limit=float(limits[row]),
        )
        for row in np.flatnonzero(sums > limits).tolist()
    ]


def decide_burn(counts: Sequence[int], expected: Sequence[float], dispersion: float) -> bool:
    """Whether these daily counts are a slow burn, from the numbers of a `SlowBurn` alone."""
    sums, limits = _cusum(np.array([counts]), np.array([expected]), np.array([dispersion]))
    return bool(sums[0] > limits[0])


def _cusum(counts: NDArray[np.int64], expected: Floats, dispersion: Floats) -> tuple[Floats, Floats]:
    """The sum after the last day, and its limit. No day adds more than a third of the limit: one bad day is a surge, not a burn."""
    limits = _LIMIT * dispersion
    sums = np.zeros(len(counts))
    for day in range(counts.shape[1]):
        risen = np.minimum(counts[:, day] - _REFERENCE * expected[:, day], limits / _LEAST_BURNING_DAYS)
        sums = np.maximum(sums + risen, 0.0)
    return sums, limits
