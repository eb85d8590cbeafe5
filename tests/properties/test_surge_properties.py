from __future__ import annotations

import math
from functools import cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom, nbinom

from alerts.baseline import WINDOWS_MS, Baseline, Roster, estimate, first_hour
from alerts.surge import Counted, SurgeKind, SurgeSettings, SurgeTest, decide, recompute
from alerts.tails import at_least, at_most, negative_binomial, share_at_least
from monitor.history import History
from monitor.types import ALL_SERIES, HOUR_MS, Bucket, Count, Partition, Series, SeriesKind

UNTIL_MS = 20_000 * 24 * HOUR_MS
FIRST, LAST = first_hour(UNTIL_MS), UNTIL_MS // HOUR_MS
NAMES = [ALL_SERIES, Series(SeriesKind.ENTITY, "halden"), Series(SeriesKind.ENTITY, "norvik"), Series(SeriesKind.TOPIC, "fraud")]
ROSTER = Roster(NAMES)
CALM = np.ones(len(WINDOWS_MS))
HOURS = st.one_of(st.integers(FIRST - 3, LAST + 1), st.sampled_from([FIRST, FIRST + 24, LAST - 25, LAST - 24, LAST - 1]))
means = st.floats(1e-6, 1e4)
excesses = st.floats(1e-3, 1e3)
windows = st.tuples(*[st.integers(0, 40)] * len(WINDOWS_MS)).map(lambda counts: tuple(sorted(counts)))


@st.composite
def buckets(draw):
    stories = draw(st.tuples(*[st.integers(0, 4)] * 4).filter(any))
    minute_ms = draw(HOURS) * HOUR_MS + draw(st.integers(0, 59)) * 60_000
    partition = Partition("news", draw(st.integers(0, 1)))
    return Bucket(partition, minute_ms, draw(st.sampled_from(NAMES)), Count(stories, draw(st.tuples(*[st.integers(0, 2)] * 4))))


def history_of(found, capacity_hours=35 * 24):
    history = History(capacity_hours)
    history.add(found)
    return history


@cache
def normal(rate: float = 1.0) -> Baseline:
    random = np.random.default_rng(3)
    stories = random.poisson(np.array([[40.0], [rate], [0.05], [5.0]]), size=(len(NAMES), LAST - FIRST)).astype(np.int32)
    return estimate(ROSTER, stories, random.binomial(stories, 0.4).astype(np.int32), UNTIL_MS, {})


def counted(negative, stories=None):
    bad = np.array([negative], dtype=np.int64)
    return Counted(np.array([1]), bad + 5 if stories is None else np.array([stories], dtype=np.int64), bad)


@settings(max_examples=60, deadline=None)
@given(st.lists(buckets(), max_size=25), st.randoms(use_true_random=False), st.integers(30, 60))
def test_the_order_of_buckets_changes_no_hour_and_the_hours_are_the_sum_of_the_buckets(found, random, capacity):
    shuffled = list(found)
    random.shuffle(shuffled)
    first, again = history_of(found, capacity), history_of(shuffled, capacity)
    for ours, theirs in zip(first.hours(NAMES, FIRST - 5, LAST + 5), again.hours(NAMES, FIRST - 5, LAST + 5), strict=True):
        assert ours.tobytes() == theirs.tobytes()
    oldest = max((bucket.minute_ms // HOUR_MS for bucket in found), default=0) - capacity + 1
    for row, series in enumerate(NAMES):
        kept = [one for one in found if one.series == series and one.minute_ms // HOUR_MS >= oldest]
        stories, negative = first.hours(NAMES, FIRST - 5, LAST + 5)
        assert stories[row].sum() == sum(sum(one.count.stories) for one in kept)
        assert negative[row].sum() == sum(one.count.stories[0] for one in kept)
        for one in kept:
            assert stories[row, one.minute_ms // HOUR_MS - FIRST + 5] > 0


@settings(max_examples=30, deadline=None)
@given(st.lists(buckets(), max_size=25), st.randoms(use_true_random=False))
def test_the_order_of_buckets_changes_no_bit_of_a_baseline(found, random):
    shuffled = list(found)
    random.shuffle(shuffled)
    first, again = (
        estimate(ROSTER, *history_of(these).hours(ROSTER.series, FIRST, LAST), UNTIL_MS, {}) for these in (found, shuffled)
    )
    for ours, theirs in ((first.stories, again.stories), (first.negative, again.negative)):
        for name in ("rate", "certainty", "dispersion"):
            assert getattr(ours, name).tobytes() == getattr(theirs, name).tobytes()
            assert np.isfinite(getattr(ours, name)).all()
            assert (getattr(ours, name) > 0).all()
    assert (first.profiles.tobytes(), first.share.tobytes()) == (again.profiles.tobytes(), again.share.tobytes())
    assert (first.profiles > 0).all()
    assert (first.negative.dispersion >= 1.05).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 27), st.integers(1, 60), st.integers(1, 30))
def test_a_span_in_which_a_series_fired_says_nothing_of_what_is_normal(day, hours, burst):
    """Whatever was counted in the span, the baseline that leaves it out is the same."""
    stories = np.ones((len(NAMES), LAST - FIRST), dtype=np.int32)
    begin = day * 24
    loud = stories.copy()
    loud[1, begin : begin + hours] += burst
    span = {NAMES[1]: [((FIRST + begin) * HOUR_MS, (FIRST + begin + hours) * HOUR_MS - 1)]}
    quiet_baseline, loud_baseline = (estimate(ROSTER, counts, counts, UNTIL_MS, span) for counts in (stories, loud))
    assert loud_baseline.negative.rate[1] == quiet_baseline.negative.rate[1]
    assert loud_baseline.negative.dispersion[1].tobytes() == quiet_baseline.negative.dispersion[1].tobytes()


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 500), means, excesses)
def test_the_tails_are_those_of_the_negative_binomial(count, mean, excess):
    r, q = negative_binomial(np.array([mean]), np.array([mean * (1 + excess)]))
    upper, lower = at_least(np.array([count]), r, q)[0], at_most(np.array([count]), r, q)[0]
    assert math.isclose(upper, nbinom.sf(count - 1, r, q)[0], rel_tol=1e-6, abs_tol=1e-290)
    assert math.isclose(lower, nbinom.cdf(count, r, q)[0], rel_tol=1e-6, abs_tol=1e-290)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 60), st.integers(0, 60), st.floats(0.01, 0.99), st.floats(2.0, 500.0))
def test_the_tail_of_a_share_is_that_of_the_beta_binomial(count, more, share, certainty):
    shapes = np.array([share * certainty]), np.array([(1 - share) * certainty])
    of = count + more
    ours = share_at_least(np.array([count]), np.array([of]), *shapes)[0]
    assert math.isclose(ours, betabinom.sf(count - 1, of, *shapes)[0], rel_tol=1e-6, abs_tol=1e-12)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), means, excesses), min_size=1, max_size=9))
def test_a_number_among_many_has_the_bits_that_it_has_alone(cases):
    counts, mean, excess = (np.array(column) for column in zip(*cases, strict=True))
    r, q = negative_binomial(mean, mean * (1 + excess))
    together = at_least(counts, r, q)
    alone = np.concatenate([at_least(counts[[place]], r[[place]], q[[place]]) for place in range(len(cases))])
    assert together.tobytes() == alone.tobytes()


@settings(max_examples=100, deadline=None)
@given(windows, st.integers(0, 20), st.sampled_from([0.02, 1.0, 20.0]), st.sampled_from(list(SurgeKind)[:3]))
def test_more_negative_stories_never_make_a_window_more_likely(negative, more, rate, kind):
    test = SurgeTest(SurgeSettings(kind=kind), normal(rate))
    stories = tuple(number + 25 for number in negative)
    rows = [tuple(number + extra for number in negative) for extra in (0, more)]
    totals = [stories, tuple(number + more for number in stories)]
    p = [test._weigh(UNTIL_MS, counted(*pair), CALM).p[0] for pair in zip(rows, totals, strict=True)]
    assert (p[1] <= p[0] * (1 + 1e-9)).all()


@settings(max_examples=100, deadline=None)
@given(windows, st.floats(0.01, 10.0), st.floats(1.0, 100.0), st.sampled_from([0.02, 1.0, 20.0]))
def test_a_larger_budget_silences_no_alarm(negative, budget, times, rate):
    def alarms(a_day):
        found = SurgeTest(SurgeSettings(alarms_a_day=a_day), normal(rate)).alarms(UNTIL_MS, counted(negative), CALM, lambda *_: 2)
        return {finding.series for finding in found if finding.failed is None}

    assert alarms(budget) <= alarms(budget * times)


@settings(max_examples=100, deadline=None)
@given(windows, st.sampled_from([0.02, 1.0, 20.0]), st.sampled_from(list(SurgeKind)[:3]), st.integers(0, 3), st.floats(1.0, 3.0))
def test_old_evidence_gives_the_old_decision(negative, rate, kind, sources, feed):
    test = SurgeTest(SurgeSettings(kind=kind), normal(rate))
    factors = np.full(len(WINDOWS_MS), feed)
    [explained] = test.explain(UNTIL_MS, counted(negative), factors, lambda *_: sources)
    assert decide(explained.evidence) is explained.failed
    assert recompute(explained.evidence) == explained.evidence
    alarms = test.alarms(UNTIL_MS, counted(negative), factors, lambda *_: sources)
    assert [alarm.failed for alarm in alarms if alarm.failed is None] == ([None] if explained.failed is None else [])
    assert all(alarm == explained for alarm in alarms)
