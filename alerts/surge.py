"""Counts of one minute's windows and what is normal to findings: which series has more bad news than chance explains.

Every finding carries the numbers that decided it, so that `decide` says the same of them years later, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from alerts.baseline import KINDS, WINDOWS_MS, Baseline, Roster
from alerts.budget import significances
from alerts.tails import Floats, Integers, at_least, at_most, negative_binomial, share_at_least
from monitor.types import ALL_SERIES, Series, SeriesKind

CLEAR_PROBABILITY: Final = 0.05
"""A surge is over once its window, and the shortest, are as likely as this."""

_NEEDED_HOURS: Final = {SeriesKind.ALL: 168, SeriesKind.TOPIC: 24, SeriesKind.ENTITY: 3}
"""Fewer hours heard are no baseline: nothing is normal yet."""
_MOST_SHARE_CERTAINTY: Final = 1.0 / 0.03 - 1.0
"""Labels of one hour err and swing together: a correlation of 0.03 is assumed within a window."""
_FEED_STORIES: Final = 20.0
_KNOWN_WEEK_HOURS: Final = 168
_MOST_FEED: Final = 3.0


class SurgeKind(StrEnum):
    """What is unusual: too many negative stories, too many stories, too large a share of them negative, too few of anything."""

    NEGATIVE = "negative"
    VOLUME = "volume"
    SHARE = "share"
    SILENCE = "silence"


class Gate(StrEnum):
    """What a finding did not pass, the first of them in this order."""

    HISTORY = "history"
    STORIES = "stories"
    EFFECT = "effect"
    PROBABILITY = "probability"
    SOURCES = "sources"


@dataclass(frozen=True, slots=True)
class SurgeSettings:
    """One surge rule.

    It looks at the series of `watched` kinds. `alarms_a_day` false alarms are expected a day over all of them, and an entity, which
    somebody chose to watch, may cause `entity_weight` times as many as a topic. A surge has at least `minimum_stories` (negative
    ones; for a volume and for a share, of any tone) and `minimum_sources`, and is at least `effect` times what is expected; a share
    is at least `share_effect` above it.

    `inflation` is what the budget is divided by, so that it holds although every minute is looked at. Sliding windows alone would
    ask for four to six. But a count is a whole number, so that the probability that it reaches the level is smaller than the level;
    names that are too quiet for `minimum_stories` use little of their share; and dispersion has a floor. On 10,000 simulated names
    over four weeks the two cancel: with 1 the alarms are 1.1 to 1.4 of the budget at 240 stories a day of each name, 0.7 to 0.9 at
    40, 0.2 at 8 and less below (`tests/benchmarks/surge_noise.py`).
    """

    kind: SurgeKind = SurgeKind.NEGATIVE
    alarms_a_day: float = 1.0
    watched: frozenset[SeriesKind] = frozenset({SeriesKind.ENTITY, SeriesKind.TOPIC})
    entity_weight: float = 50.0
    minimum_stories: int = 3
    minimum_sources: int = 2
    effect: float = 2.0
    share_effect: float = 0.15
    inflation: float = 1.0


@dataclass(frozen=True, slots=True)
class Evidence:
    """The numbers behind one decision about one window.

    `count` is what was counted of `of` stories (negative ones; for a volume surge and a silence `count` is `of`). `expected` is the
    mean of `count`, `dispersion` its variance over mean if the rate were certain, and `certainty` how certain it is. `feed` is by
    how much the whole feed was busier, already in `expected`. `r` and `q` are the negative binomial's; for a share they are the
    beta-binomial's two shapes, and `expected` is the share. `p` is the probability, `alpha` what it must stay below.
    `sources` is None where it was not asked. `exposure_hours` is how many hours the baseline heard, of `needed_hours`.
    """

    kind: SurgeKind
    window_ms: int
    count: int
    of: int
    expected: float
    dispersion: float
    certainty: float
    feed: float
    r: float
    q: float
    p: float
    alpha: float
    minimum_stories: int
    minimum_sources: int
    effect: float
    sources: int | None
    exposure_hours: int
    needed_hours: int


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one series: the window that speaks loudest, and the gate that it failed; None: it is an alarm."""

    series: Series
    at_ms: int
    evidence: Evidence
    failed: Gate | None


@dataclass(frozen=True, slots=True)
class Counted:
    """What the windows of some series hold at one minute: `rows` are the series' in the roster, `stories` and `negative` are
    (rows, windows), the windows those of `WINDOWS_MS`.
    """

    rows: NDArray[np.intp]
    stories: Integers
    negative: Integers


Sources = Callable[[Series, int], int]
"""How many distinct sources a window (its length in ms) of a series has; asked last, and only of what else would be an alarm."""


class SurgeTest:
    """One surge rule against one baseline: made once an hour, asked every minute."""

    def __init__(self, settings: SurgeSettings, baseline: Baseline) -> None:
        self.settings = settings
        self.baseline = baseline
        self._rates = baseline.negative if settings.kind is SurgeKind.NEGATIVE else baseline.stories
        weights = weights_of(baseline.roster, settings)
        self._alphas = significances(weights, WINDOWS_MS, settings.alarms_a_day, settings.inflation)
        self._needed_hours = np.array([_NEEDED_HOURS[kind] for kind in KINDS])[baseline.roster.kinds]

    def alarms(self, at_ms: int, counted: Counted, feed: Floats, sources: Sources) -> list[Finding]:
        """The findings that are alarms, or lack nothing but sources, in the order of `counted`.

        `feed` is what `feed_factors` says of this minute.
        """
        places = np.flatnonzero(self._gated(counted)[:, -1] >= self._least)
        if not places.size:
            return []
        promising = _at(counted, places)
        weighed = self._weigh(at_ms, promising, feed, effective_only=True)
        alarming = np.flatnonzero(weighed.passes.any(axis=1)).tolist()
        return [self._find(at_ms, promising, weighed, place, sources) for place in alarming]

    def explain(self, at_ms: int, counted: Counted, feed: Floats, sources: Sources) -> list[Finding]:
        """A finding for each of `counted`: what its loudest window says, and what it lacks."""
        weighed = self._weigh(at_ms, counted, feed)
        return [self._find(at_ms, counted, weighed, place, sources) for place in range(counted.rows.size)]

    def is_over(self, at_ms: int, window_ms: int, counted: Counted, feed: Floats) -> NDArray[np.bool_]:
        """For each of `counted`, whether a surge that `window_ms` found is over: it and the shortest window are likely again."""
        likely = self._weigh(at_ms, counted, feed).p > CLEAR_PROBABILITY
        return np.asarray(likely[:, 0] & likely[:, WINDOWS_MS.index(window_ms)])

    @property
    def _least(self) -> int:
        return 0 if self.settings.kind is SurgeKind.SILENCE else self.settings.minimum_stories

    def _counts(self, counted: Counted) -> Integers:
        return counted.stories if self.settings.kind in (SurgeKind.VOLUME, SurgeKind.SILENCE) else counted.negative

    def _gated(self, counted: Counted) -> Integers:
        """What must reach the minimum: what is counted, and for a share the stories that it is a share of."""
        return counted.stories if self.settings.kind is SurgeKind.SHARE else self._counts(counted)

    def _weigh(self, at_ms: int, counted: Counted, feed: Floats, *, effective_only: bool = False) -> _Weighed:
        """The probability of every window, or only of those that pass the gates before it; the others have p = 1."""
        kind, rows, counts = self.settings.kind, counted.rows, self._counts(counted)
        expected, dispersion, certainty, factors = self._normal(at_ms, rows, feed)
        worth = (self._gated(counted) >= self._least) & _is_effective(kind, counts, counted.stories, expected, self._effect)
        asked = worth if effective_only else np.ones_like(worth)
        first, second, p = np.zeros_like(expected), np.zeros_like(expected), np.ones_like(expected)
        first[asked], second[asked] = _distribution(kind, expected[asked], dispersion[asked], certainty[asked])
        p[asked] = _probability(kind, counts[asked], counted.stories[asked], first[asked], second[asked])
        alphas = self._alphas[rows]
        heard = self.baseline.exposure_hours >= self._needed_hours[rows]
        return _Weighed(expected, dispersion, certainty, factors, first, second, p, alphas, heard[:, None] & worth & (p < alphas))

    def _normal(self, at_ms: int, rows: NDArray[np.intp], feed: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """What is expected, its dispersion, its certainty and the factor of the feed, all (rows, windows)."""
        shape = len(rows), len(WINDOWS_MS)
        if self.settings.kind is SurgeKind.SHARE:
            certainty = np.minimum(self.baseline.share_certainty[rows], _MOST_SHARE_CERTAINTY)
            share = np.broadcast_to(self.baseline.share[rows][:, None], shape)
            return share, np.zeros(shape), np.broadcast_to(certainty[:, None], shape), np.ones(shape)
        factors = self._factors(rows, feed)
        hours = np.stack([self.baseline.seasonal_hours(at_ms - window_ms, at_ms) for window_ms in WINDOWS_MS], axis=1)
        expected = self._rates.rate[rows][:, None] * hours[self.baseline.roster.kinds[rows]] * factors
        certainty = np.broadcast_to(self._rates.certainty[rows][:, None], shape)
        return expected, self._rates.dispersion[rows, : len(WINDOWS_MS)], certainty, factors

    @property
    def _effect(self) -> float:
        return self.settings.share_effect if self.settings.kind is SurgeKind.SHARE else self.settings.effect

    def _factors(self, rows: NDArray[np.intp], feed: Floats) -> Floats:
        """How busy the feed is, for what is only a part of it."""
        part = (self.baseline.roster.kinds[rows] != KINDS.index(SeriesKind.ALL))[:, None]
        return np.where(part & (self.settings.kind is not SurgeKind.SILENCE), feed[None, :], 1.0)

    def _find(self, at_ms: int, counted: Counted, weighed: _Weighed, place: int, sources: Sources) -> Finding:
        """What the loudest window says; of those that would be alarms the loudest with enough sources, if there is one."""
        one = self.baseline.roster.series[counted.rows[place]]
        odds = zip(weighed.p[place].tolist(), weighed.alphas[place].tolist(), strict=True)
        loud = [p / alpha if alpha else math.inf for p, alpha in odds]
        passing: list[int] = sorted(np.flatnonzero(weighed.passes[place]).tolist(), key=lambda window: loud[window])
        for window in passing:
            evidence = self._evidence(counted, weighed, place, window, sources(one, WINDOWS_MS[window]))
            if decide(evidence) is None:
                return Finding(one, at_ms, evidence, None)
        loudest = passing[0] if passing else loud.index(min(loud))
        evidence = self._evidence(counted, weighed, place, loudest, sources(one, WINDOWS_MS[loudest]) if passing else None)
        return Finding(one, at_ms, evidence, decide(evidence))

    def _evidence(self, counted: Counted, weighed: _Weighed, place: int, window: int, sources: int | None) -> Evidence:
        at = place, window
        return Evidence(
            kind=self.settings.kind,
            window_ms=WINDOWS_MS[window],
            count=int(self._counts(counted)[at]),
            of=int(counted.stories[at]),
            expected=float(weighed.expected[at]),
            dispersion=float(weighed.dispersion[at]),
            certainty=float(weighed.certainty[at]),
            feed=float(weighed.factors[at]),
            r=float(weighed.r[at]),
            q=float(weighed.q[at]),
            p=float(weighed.p[at]),
            alpha=float(weighed.alphas[at]),
            minimum_stories=self._least,
            minimum_sources=self.settings.minimum_sources,
            effect=self._effect,
            sources=sources,
            exposure_hours=self.baseline.exposure_hours,
            needed_hours=int(self._needed_hours[counted.rows[place]]),
        )


def weights_of(roster: Roster, settings: SurgeSettings) -> Floats:
    """The weight of each series in the budget: `entity_weight` for an entity, 1 for another, 0 for what is not watched."""
    by_kind = {SeriesKind.ENTITY: settings.entity_weight}
    weights = [by_kind.get(kind, 1.0) if kind in settings.watched else 0.0 for kind in KINDS]
    return np.array(weights)[roster.kinds]


def feed_factors(baseline: Baseline, at_ms: int, stories: Integers) -> Floats:
    """How many times as busy as normal the whole feed is in each of `WINDOWS_MS`; never below 1.

    `stories` are those of `ALL_SERIES`. Where the feed grows, by a new source, by a burst of tables, or in a log's first days by
    the morning, its parts are expected to grow with it. Once a week is known the factor is at most `_MOST_FEED`, so that a flood
    blinds nobody.
    """
    row = baseline.roster.rows[ALL_SERIES]
    hours = np.array([baseline.seasonal_hours(at_ms - window_ms, at_ms)[0] for window_ms in WINDOWS_MS])
    expected = baseline.stories.rate[row] * hours
    most = _MOST_FEED if baseline.exposure_hours >= _KNOWN_WEEK_HOURS else np.inf
    return np.asarray(np.clip((stories + _FEED_STORIES) / (expected + _FEED_STORIES), 1.0, most))


def decide(evidence: Evidence) -> Gate | None:
    """The gate that these numbers fail, None if they make an alarm; from the numbers alone, however old they are."""
    again = recompute(evidence)
    count, of, expected = (np.array([value]) for value in (again.count, again.of, again.expected))
    if again.exposure_hours < again.needed_hours:
        return Gate.HISTORY
    if (again.of if again.kind is SurgeKind.SHARE else again.count) < again.minimum_stories:
        return Gate.STORIES
    if not _is_effective(again.kind, count, of, expected, again.effect)[0]:
        return Gate.EFFECT
    if not again.p < again.alpha:
        return Gate.PROBABILITY
    return None if again.kind is SurgeKind.SILENCE or (again.sources or 0) >= again.minimum_sources else Gate.SOURCES


def recompute(evidence: Evidence) -> Evidence:
    """The same evidence with distribution and probability computed anew from counts and expectation."""
    count, of, expected, dispersion, certainty = (
        np.array([value]) for value in (evidence.count, evidence.of, evidence.expected, evidence.dispersion, evidence.certainty)
    )
    r, q = _distribution(evidence.kind, expected, dispersion, certainty)
    p = _probability(evidence.kind, count, of, r, q)
    return replace(evidence, r=float(r[0]), q=float(q[0]), p=float(p[0]))


@dataclass(frozen=True, slots=True)
class _Weighed:
    """The numbers of `Evidence` as (series, windows), and whether everything but the sources is passed."""

    expected: Floats
    dispersion: Floats
    certainty: Floats
    factors: Floats
    r: Floats
    q: Floats
    p: Floats
    alphas: Floats
    passes: NDArray[np.bool_]


def _at(counted: Counted, places: NDArray[np.intp]) -> Counted:
    return Counted(counted.rows[places], counted.stories[places], counted.negative[places])


def _distribution(kind: SurgeKind, expected: Floats, dispersion: Floats, certainty: Floats) -> tuple[Floats, Floats]:
    if kind is SurgeKind.SHARE:
        return expected * certainty, (1.0 - expected) * certainty
    return negative_binomial(expected, dispersion * expected + expected * expected / certainty)


def _probability(kind: SurgeKind, counts: Integers, stories: Integers, r: Floats, q: Floats) -> Floats:
    match kind:
        case SurgeKind.SHARE:
            return share_at_least(counts, stories, r, q)
        case SurgeKind.SILENCE:
            return at_most(counts, r, q)
        case _:
            return at_least(counts, r, q)


def _is_effective(kind: SurgeKind, counts: Integers, stories: Integers, expected: Floats, effect: float) -> NDArray[np.bool_]:
    match kind:
        case SurgeKind.SHARE:
            return np.asarray(counts >= (expected + effect) * stories)
        case SurgeKind.SILENCE:
            return np.asarray(counts * effect <= expected)
        case _:
            return np.asarray(counts >= effect * expected)
