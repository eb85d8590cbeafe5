from __future__ import annotations

import numpy as np
import pytest

from alerts.baseline import KINDS, Roster, estimate, first_hour
from alerts.season import WEEK_HOURS, profile
from monitor.types import ALL_SERIES, HOUR_MS, Series, SeriesKind

UNTIL_MS = 20_000 * 24 * HOUR_MS
HOURS = UNTIL_MS // HOUR_MS - first_hour(UNTIL_MS)
HALDEN = Series(SeriesKind.ENTITY, "halden")
NORVIK = Series(SeriesKind.ENTITY, "norvik")
FRAUD = Series(SeriesKind.TOPIC, "fraud")


def hours_of_week():
    return np.arange(first_hour(UNTIL_MS), UNTIL_MS // HOUR_MS) % WEEK_HOURS


class World:
    """Counts by series and hour; everything counts everything, and a steady murmur of others."""

    def __init__(self, *series, murmur=2):
        self.roster = Roster([ALL_SERIES, *series])
        self.stories = np.zeros((len(self.roster.series), HOURS), dtype=np.int32)
        self.negative = self.stories.copy()
        self.stories[self.roster.rows[ALL_SERIES]] = murmur

    def count(self, series, hours, stories, negative=0):
        for one in (series, ALL_SERIES):
            self.stories[self.roster.rows[one], hours] += stories
            self.negative[self.roster.rows[one], hours] += negative
        return self

    def baseline(self, incidents=None):
        return estimate(self.roster, self.stories, self.negative, UNTIL_MS, incidents or {})

    def rate(self, series, incidents=None):
        return self.baseline(incidents).negative.rate[self.roster.rows[series]]


def noise(rates, seed=1, share=0.3, day=0.0):
    """Independent news of many names, busier by day as far as `day` says."""
    random = np.random.default_rng(seed)
    names = [Series(SeriesKind.ENTITY, f"name-{number:04d}") for number in range(len(rates))]
    world = World(*names, murmur=0)
    wave = 1 + day * np.sin(hours_of_week() / 24 * 2 * np.pi)
    stories = random.poisson(np.asarray(rates)[:, None] * wave).astype(np.int32)
    negative = random.binomial(stories, share).astype(np.int32)
    rows = [world.roster.rows[name] for name in names]
    world.stories[rows], world.negative[rows] = stories, negative
    world.stories[0], world.negative[0] = stories.sum(axis=0), negative.sum(axis=0)
    return world


def test_the_rate_is_what_is_counted_in_an_hour():
    world = World(HALDEN).count(HALDEN, slice(None), 4, 2)
    baseline, row = world.baseline(), world.roster.rows[HALDEN]
    assert baseline.stories.rate[row] == pytest.approx(4, rel=0.01)
    assert baseline.negative.rate[row] == pytest.approx(2, rel=0.01)
    assert baseline.share[row] == pytest.approx(0.5, rel=0.02)
    assert baseline.exposure_hours == 28 * 24


def test_a_series_that_never_counted_has_the_rate_that_its_kind_teaches_it_and_is_sure_of_nothing():
    world = noise([0.5] * 50 + [0.0])
    silent = world.roster.rows[Series(SeriesKind.ENTITY, "name-0050")]
    baseline = world.baseline()
    assert 0 < baseline.negative.rate[silent] < 0.02
    assert baseline.negative.certainty[silent] < 11
    assert baseline.negative.certainty[silent - 1] > 50


def test_the_last_day_is_left_out():
    quiet = World(HALDEN).count(HALDEN, slice(0, HOURS - 24), 1, 1)
    burst = World(HALDEN).count(HALDEN, slice(0, HOURS - 24), 1, 1).count(HALDEN, slice(HOURS - 24, HOURS), 50, 50)
    assert burst.rate(HALDEN) == quiet.rate(HALDEN)
    earlier = World(HALDEN).count(HALDEN, slice(0, HOURS - 24), 1, 1).count(HALDEN, HOURS - 25, 50, 50)
    assert earlier.rate(HALDEN) > quiet.rate(HALDEN)


def test_the_day_of_an_incident_is_left_out_of_its_own_series_only():
    world = World(HALDEN, NORVIK)
    for series in (HALDEN, NORVIK):
        world.count(series, slice(0, HOURS), 1, 1).count(series, slice(200, 230), 3, 3)
    begin_ms = first_hour(UNTIL_MS) * HOUR_MS
    span = {HALDEN: [(begin_ms + 200 * HOUR_MS, begin_ms + 230 * HOUR_MS)]}
    assert world.rate(HALDEN, span) == pytest.approx(1.0, rel=0.01)
    assert world.rate(NORVIK, span) == pytest.approx(world.rate(NORVIK), rel=0.01)
    assert world.rate(NORVIK, span) > 1.05


def test_a_wild_day_counts_for_no_more_than_the_ninety_fifth_percentile_of_the_days():
    steady = World(HALDEN).count(HALDEN, slice(None), 1, 1)
    wild = World(HALDEN).count(HALDEN, slice(None), 1, 1).count(HALDEN, slice(96, 120), 1_000, 1_000)
    assert wild.rate(HALDEN) == pytest.approx(steady.rate(HALDEN), rel=0.02)


def test_a_quiet_series_keeps_its_few_stories():
    world = World(HALDEN).count(HALDEN, [50, 300, 301], 1, 1)
    empty = World(HALDEN)
    row = world.roster.rows[HALDEN]
    rose = world.baseline().negative.certainty[row] - empty.baseline().negative.certainty[row]
    assert rose > 1.2


def test_hours_before_the_first_story_of_the_log_are_no_exposure():
    world = World(HALDEN, murmur=0).count(HALDEN, slice(HOURS - 240, HOURS), 4, 4)
    assert world.baseline().exposure_hours == 216
    assert world.rate(HALDEN) == pytest.approx(4, rel=0.05)


def test_a_young_log_leaves_out_a_quarter_of_its_age():
    assert World(HALDEN, murmur=0).count(HALDEN, slice(HOURS - 8, HOURS), 4).baseline().exposure_hours == 6
    assert World(HALDEN, murmur=0).count(HALDEN, HOURS - 1, 4).baseline().exposure_hours == 0
    assert World(HALDEN, murmur=0).baseline().exposure_hours == 0


def test_a_feed_that_was_silent_for_days_has_no_exposure_there():
    world = World(HALDEN, murmur=0)
    world.count(HALDEN, slice(0, 300), 2, 2).count(HALDEN, slice(400, HOURS), 2, 2)
    assert world.baseline().exposure_hours == 28 * 24 - 100
    assert world.rate(HALDEN) == pytest.approx(2, rel=0.03)


def test_an_hour_of_the_week_that_is_always_busy_is_expected_to_be():
    world = noise([2.0] * 100, day=0.8)
    baseline = world.baseline()
    entity = KINDS.index(SeriesKind.ENTITY)
    wave = 1 + 0.8 * np.sin(np.arange(WEEK_HOURS) / 24 * 2 * np.pi)
    assert np.abs(baseline.profiles[entity] - wave).max() < 0.12
    whole_week = baseline.seasonal_hours(UNTIL_MS, UNTIL_MS + WEEK_HOURS * HOUR_MS)
    assert whole_week == pytest.approx([WEEK_HOURS] * len(KINDS))


def test_a_quarter_of_an_hour_is_a_quarter_of_its_hour():
    baseline = noise([2.0] * 10, day=0.8).baseline()
    parts = sum(baseline.seasonal_hours(UNTIL_MS + part * HOUR_MS // 4, UNTIL_MS + (part + 1) * HOUR_MS // 4) for part in range(4))
    assert parts == pytest.approx(baseline.seasonal_hours(UNTIL_MS, UNTIL_MS + HOUR_MS))
    across = baseline.seasonal_hours(UNTIL_MS + HOUR_MS // 2, UNTIL_MS + 3 * HOUR_MS // 2)
    both = [baseline.seasonal_hours(UNTIL_MS + hour * HOUR_MS, UNTIL_MS + (hour + 1) * HOUR_MS) for hour in (0, 1)]
    assert across == pytest.approx((both[0] + both[1]) / 2)


def test_little_news_makes_a_flat_week():
    counted = np.zeros(WEEK_HOURS)
    counted[5] = 3
    week = profile(counted, np.full(WEEK_HOURS, 3 / WEEK_HOURS))
    assert np.abs(week - 1).max() < 0.06
    assert week.mean() == pytest.approx(1)


def test_independent_stories_have_the_least_dispersion_and_clusters_a_larger_one():
    independent = noise([0.5] * 200).baseline().negative.dispersion[1:]
    assert independent.max() < 1.25
    assert np.median(independent, axis=0) == pytest.approx([1.05] * 4, abs=0.03)
    clustered = noise([0.5] * 200)
    clustered.stories[1:] *= 3
    clustered.negative[1:] *= 3
    found = np.median(clustered.baseline().negative.dispersion[1:], axis=0)
    assert found[1:] == pytest.approx([3, 3, 3], rel=0.15)
    assert found[0] == pytest.approx(1 + (found[1] - 1) / 2)


def test_one_loud_series_does_not_make_its_whole_kind_seem_clustered():
    world = noise([0.2] * 100 + [0.0])
    loud = world.roster.rows[Series(SeriesKind.ENTITY, "name-0100")]
    world.stories[loud, ::12] = world.negative[loud, ::12] = 30
    dispersion = world.baseline().negative.dispersion
    assert dispersion[loud, 1] > 10
    assert np.median(dispersion[1:loud, 1]) < 2.5


def test_the_same_counts_give_the_same_bits_whatever_else_was_estimated_before():
    first, again = noise([0.3, 2.0, 0.0] * 20, day=0.5).baseline(), noise([0.3, 2.0, 0.0] * 20, day=0.5).baseline()
    for name in ("rate", "certainty", "dispersion"):
        assert getattr(first.negative, name).tobytes() == getattr(again.negative, name).tobytes()
    assert first.profiles.tobytes() == again.profiles.tobytes()


def test_counts_of_other_hours_or_series_are_refused():
    world = World(HALDEN)
    with pytest.raises(ValueError, match="not from"):
        estimate(world.roster, world.stories[:, 1:], world.negative[:, 1:], UNTIL_MS, {})
    with pytest.raises(ValueError, match="series of everything"):
        Roster([HALDEN])
    assert Roster([NORVIK, FRAUD, HALDEN, ALL_SERIES, HALDEN]).series == (ALL_SERIES, HALDEN, NORVIK, FRAUD)
