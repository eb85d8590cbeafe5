"""Hourly counts of the last weeks to what is normal: per series a rate and its certainty, a weekly profile, a dispersion, a share.

After Farrington et al. (1996) and Noufaily et al. (2013), who watch infections as we watch news: counts against the same season of
earlier weeks, overdispersed, with past outbreaks left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from alerts.season import WEEK_HOURS, profile
from alerts.tails import Floats
from monitor.types import ALL_SERIES, HOUR_MS, MINUTE_MS, Series, SeriesKind

DAY_HOURS: Final = 24

WINDOWS_MS: Final = (15 * MINUTE_MS, HOUR_MS, 6 * HOUR_MS)
"""The windows that surges are looked for in."""

KINDS: Final = (SeriesKind.ALL, SeriesKind.ENTITY, SeriesKind.TOPIC)
"""In the order in which series are sorted."""
_START_DISPERSION: Final = (1.05, 1.1, 1.65, 2.2)
"""Variance over mean, of the three windows and of a day: 883,182 headlines of 2014, copies left out."""
_LEAST_DISPERSION: Final = 1.05
_START_STORIES: Final = 200.0
"""So many expected stories of its own are as good a witness of a dispersion as those of the whole group, or as the start."""
_START_SHAPE: Final = 0.5
_SHAPES: Final = tuple(float(shape) for shape in np.geomspace(0.1, 10.0, 25))
_START_RATES: Final = {SeriesKind.ALL: (10.0, 3.0), SeriesKind.TOPIC: (1.0, 0.3), SeriesKind.ENTITY: (0.1, 0.03)}
"""Stories and negative stories an hour, before anything was counted ..."""
_START_HOURS: Final = {SeriesKind.ALL: 1.0, SeriesKind.TOPIC: 4.0, SeriesKind.ENTITY: 24.0}
"""... and how many hours of counting that is worth."""
_START_SHARE: Final = 0.3
_SHARE_STORIES: Final = 20.0
_LEAST_CAP: Final = 3
_CAP_QUANTILE: Final = 0.95
_SILENT_HOURS: Final = 12
_REACH_DAYS: Final = 28
_LEAVE_OUT_HOURS: Final = 24


_Number = TypeVar("_Number", np.int32, np.float64)


class Roster:
    """Who is watched: series in their order, those that never count too, with `ALL_SERIES` among them.

    `rows` says which row of an array is a series', `kinds` the kind of each row as a place in `KINDS`. Raises ValueError without
    `ALL_SERIES`.
    """

    def __init__(self, series: Iterable[Series]) -> None:
        self.series = tuple(sorted({*series}))
        self.rows: Mapping[Series, int] = {one: row for row, one in enumerate(self.series)}
        self.kinds: NDArray[np.intp] = np.array([KINDS.index(one.kind) for one in self.series], dtype=np.intp)
        if ALL_SERIES not in self.rows:
            raise ValueError("a roster holds the series of everything: its hours say when the log was heard")


@dataclass(frozen=True, slots=True)
class Rates:
    """What is normal of one count (stories, or negative stories). Rows are those of the baseline's series.

    `rate` is per hour of an average week. `certainty` is the shape of its gamma posterior: after a year of news large, 1/certainty
    is the variance relative to the square of the rate. `dispersion` is variance over mean in the windows of `WINDOWS_MS` and, last,
    in a day.
    """

    rate: Floats
    certainty: Floats
    dispersion: Floats


@dataclass(frozen=True, slots=True)
class Baseline:
    """What is normal of each series, from the hours before `until_ms`.

    `share` is the expected share of negative stories and `share_certainty` on how many stories it rests. `exposure_hours` is how
    many hours were heard. `profiles` has a row per kind of series, in the order of `KINDS`: the 168 hours of a week.
    """

    until_ms: int
    roster: Roster
    exposure_hours: int
    stories: Rates
    negative: Rates
    share: Floats
    share_certainty: Floats
    profiles: Floats

    def seasonal_hours(self, from_ms: int, until_ms: int) -> Floats:
        """How many hours of an average week [from_ms, until_ms) is worth, for each kind of series in the order of `KINDS`."""
        hours = np.arange(from_ms // HOUR_MS, -(-until_ms // HOUR_MS))
        begins = hours * HOUR_MS
        inside = np.minimum(begins + HOUR_MS, until_ms) - np.maximum(begins, from_ms)
        return np.asarray((self.profiles[:, hours % WEEK_HOURS] * (inside / HOUR_MS)).sum(axis=1))


def first_hour(until_ms: int) -> int:
    """The first hour, numbered from the epoch, that `estimate` wants for a baseline at that moment."""
    return until_ms // HOUR_MS - _REACH_DAYS * DAY_HOURS - _LEAVE_OUT_HOURS


def estimate(
    roster: Roster,
    stories: NDArray[np.int32],
    negative: NDArray[np.int32],
    until_ms: int,
    incidents: Mapping[Series, Sequence[tuple[int, int]]],
) -> Baseline:
    """The baseline at `until_ms`, a whole hour, from (series, hours) counts of the hours [`first_hour`, until_ms).

    `incidents` are the spans (from, until in ms) in which a series fired: their days are left out of its own
    baseline. So are the last 24 hours (of a log younger than four days: a quarter of its age); hours before the first story of the
    log, and silences of `_SILENT_HOURS` or more, are no exposure; and a day counts for no more than the 95th percentile of its
    series' days. The same counts give the same bits.

    Raises ValueError when the counts are not of the roster in those hours.
    """
    wanted = (len(roster.series), _REACH_DAYS * DAY_HOURS + _LEAVE_OUT_HOURS)
    if stories.shape != wanted or negative.shape != wanted:
        raise ValueError(f"a baseline is estimated from {wanted} series and hours, not from {stories.shape} and {negative.shape}")
    feed = stories[roster.rows[ALL_SERIES]] > 0
    left_out_hours = _left_out_hours(feed)
    span = slice(_LEAVE_OUT_HOURS - left_out_hours, wanted[1] - left_out_hours)
    heard = _heard(feed)[span]
    until_hour = until_ms // HOUR_MS - left_out_hours
    weeks = _Weeks(np.arange(until_hour - len(heard), until_hour) % WEEK_HOURS, heard.reshape(_REACH_DAYS, DAY_HOURS))
    open_days = _open_days(roster, incidents, until_hour)
    groups = []
    for number, kind in enumerate(KINDS):
        first, last = np.searchsorted(roster.kinds, [number, number + 1])
        of_kind = slice(int(first), int(last))
        groups.append(_group(kind, weeks, open_days[of_kind], stories[of_kind, span], negative[of_kind, span]))
    return Baseline(
        until_ms=until_ms,
        roster=roster,
        exposure_hours=int(heard.sum()),
        stories=_joined([group.stories for group in groups]),
        negative=_joined([group.negative for group in groups]),
        share=np.concatenate([group.share for group in groups]),
        share_certainty=np.concatenate([group.share_certainty for group in groups]),
        profiles=np.stack([group.profile for group in groups]),
    )


# --- which hours count -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Weeks:
    """The hours that a baseline looks at: their place in the week, and (days, 24) whether the log was heard."""

    slots: NDArray[np.int64]
    heard: NDArray[np.bool_]


def _left_out_hours(feed: NDArray[np.bool_]) -> int:
    age_hours = len(feed) - int(np.argmax(feed)) if feed.any() else 0
    return min(max(age_hours // 4, 1), _LEAVE_OUT_HOURS)


def _heard(feed: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Every hour from the first with a story on, but for long silences."""
    told = np.flatnonzero(feed)
    heard = np.zeros(len(feed), dtype=np.bool_)
    for hour, following in zip(told.tolist(), [*told.tolist(), len(feed)][1:], strict=True):
        heard[hour : following if following - hour <= _SILENT_HOURS else hour + 1] = True
    return heard


def _open_days(roster: Roster, incidents: Mapping[Series, Sequence[tuple[int, int]]], until_hour: int) -> NDArray[np.bool_]:
    """(series, days): whether no incident of the series touches the day; days end at `until_hour` and multiples of 24 before."""
    days = np.ones((len(roster.series), _REACH_DAYS), dtype=np.bool_)
    begin_ms = (until_hour - _REACH_DAYS * DAY_HOURS) * HOUR_MS
    for one in incidents.keys() & roster.rows.keys():
        for from_ms, until_ms in incidents[one]:
            first, last = ((moment - begin_ms) // (DAY_HOURS * HOUR_MS) for moment in (from_ms, until_ms))
            days[roster.rows[one], max(first, 0) : max(last + 1, 0)] = False
    return days


# --- what is normal of one kind of series --------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Group:
    profile: Floats
    stories: Rates
    negative: Rates
    share: Floats
    share_certainty: Floats


@dataclass(frozen=True, slots=True)
class _Capped:
    """Counts of (series, days, 24) hours, of (series, days, 4) quarters of a day and of (series, days) whole days.

    `weights` (series, days) open and cap days, and `total` is the capped sum of each series.
    """

    hours: Floats
    quarters: Floats
    days: Floats
    weights: Floats
    total: Floats


def _group(
    kind: SeriesKind, weeks: _Weeks, open_days: NDArray[np.bool_], stories: NDArray[np.int32], negative: NDArray[np.int32]
) -> _Group:
    counted = open_days & weeks.heard.any(axis=1)
    capped, capped_negative = _cap(stories, counted), _cap(negative, counted)
    week = _profile(weeks, counted, capped)
    season = (week[weeks.slots].reshape(weeks.heard.shape)) * weeks.heard
    start_rate, start_negative_rate = _START_RATES[kind]
    total, total_negative = capped.total.sum(), capped_negative.total.sum()
    group_share = (_START_SHARE * _START_STORIES + total_negative) / (_START_STORIES + total)
    share_certainty = _SHARE_STORIES + capped.total
    return _Group(
        profile=week,
        stories=_rates(capped, counted, season, start_rate, _START_HOURS[kind]),
        negative=_rates(capped_negative, counted, season, start_negative_rate, _START_HOURS[kind]),
        share=(_SHARE_STORIES * group_share + capped_negative.total) / share_certainty,
        share_certainty=share_certainty,
    )


def _cap(counts: NDArray[np.int32], counted: NDArray[np.bool_]) -> _Capped:
    """Lets no day count for more than the 95th percentile of its series' days.

    A quiet series has days of nothing and a few of something: there `_LEAST_CAP` keeps its ordinary days whole.
    """
    hours = counts.reshape(len(counts), _REACH_DAYS, DAY_HOURS)
    quarters = _blocks(hours, 6).astype(np.float64)
    days = _blocks(quarters, 4)[:, :, 0]
    ranked = np.sort(np.where(counted, days, -1.0), axis=1)
    number = counted.sum(axis=1)
    place = _REACH_DAYS - number + np.ceil(_CAP_QUANTILE * (number - 1)).astype(np.intp)
    most = np.take_along_axis(ranked, np.clip(place, 0, _REACH_DAYS - 1)[:, None], axis=1)
    cap = np.maximum(most, _LEAST_CAP)
    weights = counted * np.minimum(1.0, cap / np.maximum(days, 1.0))
    return _Capped(hours.astype(np.float64), quarters, days, weights, np.asarray((weights * days).sum(axis=1)))


def _blocks(counts: NDArray[_Number], length: int) -> NDArray[_Number]:
    """Sums of `length` neighbours along the last axis; added slice by slice, which is many times as fast as a sum of short rows."""
    total = counts[:, :, ::length].copy()
    for place in range(1, length):
        total += counts[:, :, place::length]
    return total


def _profile(weeks: _Weeks, counted: NDArray[np.bool_], capped: _Capped) -> Floats:
    heard_hours = (counted * weeks.heard.sum(axis=1)).sum(axis=1)
    flat_rates = capped.total / np.maximum(heard_hours, 1)
    told = np.einsum("sd,sdh->dh", capped.weights, capped.hours)
    expected = weeks.heard * (counted * flat_rates[:, None]).sum(axis=0)[:, None]
    return profile(_by_slot(weeks, told), _by_slot(weeks, expected))


def _by_slot(weeks: _Weeks, hours: Floats) -> Floats:
    return np.asarray(np.bincount(weeks.slots, weights=hours.ravel(), minlength=WEEK_HOURS), dtype=np.float64)


def _rates(capped: _Capped, counted: NDArray[np.bool_], season: Floats, start_rate: float, start_hours: float) -> Rates:
    exposure = (counted * season.sum(axis=1)).sum(axis=1)
    group_dispersion, dispersion = _dispersions(capped, counted, season, exposure)
    mean = (start_rate * start_hours + capped.total.sum()) / (start_hours + exposure.sum())
    # A clustered count knows less of its rate than its size says: as much as one that is smaller by its dispersion over a day.
    shape = _likeliest_shape(capped.total / group_dispersion, exposure / group_dispersion, mean)
    certainty = shape + capped.total / dispersion[:, -1]
    return Rates(rate=certainty / (shape / mean + exposure / dispersion[:, -1]), certainty=certainty, dispersion=dispersion)


def _dispersions(capped: _Capped, counted: NDArray[np.bool_], season: Floats, exposure: Floats) -> tuple[float, Floats]:
    """The dispersion of a day over the whole group, and for each series that of the three windows and of a day.

    Squared departures of hours, quarters of a day and days from what the rate and the season expect. Each series' own departures
    stand against those of its group, and the group's against the start; no series weighs more in its group than the start does.
    A quarter of an hour has half the excess of an hour, as at the start: hourly counts cannot tell.
    """
    rate = capped.total / np.maximum(exposure, 1e-9)
    weight = np.minimum(1.0, _START_STORIES / np.maximum(capped.total, _START_STORIES))
    group, own = [], []
    for blocks, start in zip((capped.hours, capped.quarters, capped.days[:, :, None]), _START_DISPERSION[1:], strict=True):
        seasons = season.reshape(len(season), blocks.shape[2], -1).sum(axis=2)
        squares = (capped.weights**2 * np.einsum("sdb,sdb->sd", blocks, blocks)).sum(axis=1)
        products = (capped.weights * np.einsum("sdb,db->sd", blocks, seasons)).sum(axis=1)
        departures = squares - 2.0 * rate * products + rate**2 * (counted * (seasons**2).sum(axis=1)).sum(axis=1)
        all_departures, all_stories = (weight * departures).sum(), (weight * capped.total).sum()
        group.append(float((_START_STORIES * start + all_departures) / (_START_STORIES + all_stories)))
        own.append((_START_STORIES * group[-1] + departures) / (_START_STORIES + capped.total))
    quarter = 1.0 + (own[0] - 1.0) * (_START_DISPERSION[0] - 1.0) / (_START_DISPERSION[1] - 1.0)
    return max(group[-1], _LEAST_DISPERSION), np.maximum(np.stack([quarter, *own], axis=1), _LEAST_DISPERSION)


def _likeliest_shape(total: Floats, exposure: Floats, mean: float) -> float:
    """The shape of the gamma distribution of the group's rates, whose mean is known, under which its counts are likeliest.

    `_START_SHAPE` is believed as if with a standard deviation of a factor e.
    """
    from scipy.special import gammaln, xlogy

    # Quiet series are many and alike: each pair of numbers is looked at once.
    pairs, times = np.unique(total + 1j * exposure, return_counts=True)
    total, exposure = pairs.real, pairs.imag
    likeliest, best = _START_SHAPE, -np.inf
    for shape in _SHAPES:
        heard = exposure / (shape / mean + exposure)
        each = gammaln(shape + total) - gammaln(shape) + shape * np.log1p(-heard) + xlogy(total, heard)
        likelihood = (times * each).sum()
        belief = -0.5 * np.log(shape / _START_SHAPE) ** 2
        if likelihood + belief > best:
            likeliest, best = shape, likelihood + belief
    return likeliest


def _joined(groups: Sequence[Rates]) -> Rates:
    return Rates(
        rate=np.concatenate([rates.rate for rates in groups]),
        certainty=np.concatenate([rates.certainty for rates in groups]),
        dispersion=np.concatenate([rates.dispersion for rates in groups]),
    )
