from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import betabinom, nbinom

from alerts.baseline import WINDOWS_MS, Roster, estimate, first_hour
from alerts.budget import significances
from alerts.slow_burn import decide_burn, first_burn_hour, slow_burns
from alerts.surge import Counted, Gate, SurgeKind, SurgeSettings, SurgeTest, decide, feed_factors, recompute
from monitor.types import ALL_SERIES, HOUR_MS, MINUTE_MS, Series, SeriesKind

UNTIL_MS = 20_000 * 24 * HOUR_MS
AT_MS = UNTIL_MS + 30 * MINUTE_MS
HALDEN = Series(SeriesKind.ENTITY, "halden")
NORVIK = Series(SeriesKind.ENTITY, "norvik")
FRAUD = Series(SeriesKind.TOPIC, "fraud")
CALM = np.ones(len(WINDOWS_MS))
A_FIFTH = SurgeSettings(alarms_a_day=0.2)
ROSTER = Roster([ALL_SERIES, FRAUD, HALDEN, NORVIK])


def baseline(hours=29 * 24, halden=0.1, norvik=0.0, everything=40):
    """Halden has `halden` stories an hour, half of them negative, for the last `hours`; everything has forty."""
    random = np.random.default_rng(7)
    size = UNTIL_MS // HOUR_MS - first_hour(UNTIL_MS)
    stories = np.zeros((len(ROSTER.series), size), dtype=np.int32)
    for series, rate in ((ALL_SERIES, everything), (HALDEN, halden), (NORVIK, norvik)):
        stories[ROSTER.rows[series], size - hours :] = random.poisson(rate, size=hours)
    return estimate(ROSTER, stories, random.binomial(stories, 0.5).astype(np.int32), UNTIL_MS, {})


def counted(negative, stories=None, series=HALDEN):
    """What one series counts in 15 minutes, one hour and six hours."""
    bad = np.array([negative], dtype=np.int64)
    return Counted(np.array([ROSTER.rows[series]]), bad if stories is None else np.array([stories], dtype=np.int64), bad)


class Asked:
    """So many sources in every window; remembers who was asked."""

    def __init__(self, number=2):
        self.number = number
        self.asked = []

    def __call__(self, series, window_ms):
        self.asked.append((series, window_ms // MINUTE_MS))
        return self.number if isinstance(self.number, int) else self.number[window_ms // MINUTE_MS]


def explained(test, found, sources=None, feed=CALM):
    return test.explain(AT_MS, found, feed, sources or Asked())[0]


def test_a_burst_of_negative_stories_about_a_quiet_name_is_an_alarm_that_says_why():
    [alarm] = SurgeTest(A_FIFTH, baseline()).alarms(AT_MS, counted((8, 8, 8)), CALM, Asked())
    evidence = alarm.evidence
    assert (alarm.series, alarm.at_ms, alarm.failed) == (HALDEN, AT_MS, None)
    assert (evidence.window_ms, evidence.count, evidence.sources) == (15 * MINUTE_MS, 8, 2)
    assert evidence.expected == pytest.approx(0.1 / 2 / 4, rel=0.4)
    assert evidence.p == pytest.approx(nbinom.sf(7, evidence.r, evidence.q), rel=1e-9)
    assert evidence.p < evidence.alpha < 1e-3


def test_the_mean_and_variance_of_the_negative_binomial_are_those_that_the_evidence_names():
    found = explained(SurgeTest(A_FIFTH, baseline()), counted((3, 3, 3))).evidence
    mean, variance = nbinom.stats(found.r, found.q)
    assert mean == pytest.approx(found.expected)
    assert variance == pytest.approx(found.dispersion * found.expected + found.expected**2 / found.certainty)


def test_the_window_that_speaks_loudest_decides():
    test = SurgeTest(A_FIFTH, baseline())
    assert explained(test, counted((6, 6, 6))).evidence.window_ms == WINDOWS_MS[0]
    assert explained(test, counted((0, 9, 9))).evidence.window_ms == WINDOWS_MS[1]
    assert explained(test, counted((0, 1, 14))).evidence.window_ms == WINDOWS_MS[2]


@pytest.mark.parametrize(
    ("change", "failed"),
    [
        (lambda: (SurgeTest(A_FIFTH, baseline(hours=3)), counted((9, 9, 9)), Asked()), Gate.HISTORY),
        (lambda: (SurgeTest(A_FIFTH, baseline()), counted((2, 2, 2)), Asked()), Gate.STORIES),
        (lambda: (SurgeTest(A_FIFTH, baseline(halden=8.0)), counted((1, 6, 30)), Asked()), Gate.EFFECT),
        (lambda: (SurgeTest(A_FIFTH, baseline(halden=1.0)), counted((1, 3, 3)), Asked()), Gate.PROBABILITY),
        (lambda: (SurgeTest(A_FIFTH, baseline()), counted((9, 9, 9)), Asked(1)), Gate.SOURCES),
    ],
)
def test_each_gate_holds_back_what_does_not_pass_it(change, failed):
    test, found, sources = change()
    assert explained(test, found, sources).failed is failed
    assert [alarm.failed for alarm in test.alarms(AT_MS, found, CALM, sources)] == ([failed] if failed is Gate.SOURCES else [])


def test_sources_are_asked_only_of_what_else_would_be_an_alarm():
    test, nobody = SurgeTest(A_FIFTH, baseline()), Asked()
    test.alarms(AT_MS, counted((2, 2, 2)), CALM, nobody)
    explained(test, counted((1, 1, 3)), nobody)
    assert nobody.asked == []
    loud = Asked()
    test.alarms(AT_MS, counted((8, 8, 8)), CALM, loud)
    assert loud.asked == [(HALDEN, 15)]


def test_a_window_with_one_source_yields_to_a_longer_one_with_two():
    test, sources = SurgeTest(A_FIFTH, baseline()), Asked({15: 1, 60: 2, 360: 3})
    [alarm] = test.alarms(AT_MS, counted((8, 8, 8)), CALM, sources)
    assert (alarm.failed, alarm.evidence.window_ms, alarm.evidence.sources) == (None, WINDOWS_MS[1], 2)


def test_nothing_is_computed_and_nobody_asked_while_no_series_has_three_negative_stories():
    assert SurgeTest(A_FIFTH, baseline()).alarms(AT_MS, counted((0, 1, 2)), CALM, Asked()) == []


def test_a_name_never_heard_of_alarms_on_the_first_day_and_three_stories_of_it_do_not():
    test = SurgeTest(SurgeSettings(alarms_a_day=0.006), baseline(hours=10))
    assert explained(test, counted((8, 30, 30), series=NORVIK)).failed is None
    assert explained(test, counted((1, 3, 3), series=NORVIK)).failed is Gate.PROBABILITY


def test_a_busy_name_on_a_first_day_is_not_a_surge():
    test = SurgeTest(A_FIFTH, baseline(hours=10, halden=20.0))
    assert explained(test, counted((4, 13, 65))).failed is not None


def test_the_decision_is_the_same_from_the_numbers_alone_bit_for_bit():
    for kind in (SurgeKind.NEGATIVE, SurgeKind.VOLUME, SurgeKind.SHARE):
        for negative in ((0, 2, 4), (3, 3, 3), (5, 7, 9), (9, 20, 40)):
            test = SurgeTest(replace(A_FIFTH, kind=kind), baseline(halden=0.7))
            found = explained(test, counted(negative, tuple(2 * number for number in negative)))
            assert recompute(found.evidence) == found.evidence
            assert decide(found.evidence) is found.failed


def test_a_changed_number_changes_the_decision():
    evidence = explained(SurgeTest(A_FIFTH, baseline()), counted((8, 8, 8))).evidence
    assert decide(evidence) is None
    assert decide(replace(evidence, expected=evidence.expected * 300)) is Gate.PROBABILITY
    assert decide(replace(evidence, alpha=evidence.p)) is Gate.PROBABILITY
    assert decide(replace(evidence, sources=None)) is Gate.SOURCES


def test_a_surge_is_over_when_its_window_and_the_shortest_are_likely_again():
    test = SurgeTest(A_FIFTH, baseline(halden=1.0))

    def over(negative):
        return bool(test.is_over(AT_MS, WINDOWS_MS[1], counted(negative), CALM)[0])

    assert over((0, 0, 30))
    assert over((0, 1, 30))
    assert not over((0, 9, 30))
    assert not over((6, 6, 30))
    assert not test.is_over(AT_MS, WINDOWS_MS[2], counted((0, 0, 30)), CALM)[0]


def test_many_stories_of_any_tone_are_a_volume_surge():
    test = SurgeTest(replace(A_FIFTH, kind=SurgeKind.VOLUME, minimum_stories=5), baseline())
    assert explained(test, counted((0, 0, 0), (12, 12, 12))).failed is None
    assert explained(test, counted((0, 0, 0), (4, 4, 4))).failed is Gate.STORIES


def test_a_share_shift_needs_no_more_stories_than_usual():
    settings = SurgeSettings(kind=SurgeKind.SHARE, minimum_stories=8, alarms_a_day=1.0)
    test = SurgeTest(settings, baseline(halden=10.0))
    shifted = explained(test, counted((2, 30, 30), (3, 30, 60)))
    assert shifted.failed is None
    evidence = shifted.evidence
    assert evidence.expected == pytest.approx(0.5, abs=0.03)
    assert evidence.p == pytest.approx(betabinom.sf(29, 30, evidence.r, evidence.q), rel=1e-6)
    assert explained(test, counted((2, 5, 30), (3, 7, 60))).failed is Gate.EFFECT
    assert explained(test, counted((1, 7, 7), (1, 7, 7))).failed is Gate.STORIES


def test_a_feed_that_falls_silent_is_found_and_a_quiet_name_is_not():
    test = SurgeTest(SurgeSettings(kind=SurgeKind.SILENCE, alarms_a_day=0.002, watched=frozenset({SeriesKind.ALL})), baseline())
    assert explained(test, counted((0, 0, 0), (0, 0, 60), ALL_SERIES)).failed is None
    assert explained(test, counted((0, 0, 0), (10, 38, 230), ALL_SERIES)).failed is not None
    assert test.alarms(AT_MS, counted((0, 0, 0), (0, 0, 0), HALDEN), CALM, Asked()) == []


def test_a_feed_of_twice_the_stories_is_expected_to_have_twice_of_each_part():
    normal = baseline(halden=2.0)
    twice = feed_factors(normal, AT_MS, np.array([20, 80, 480]))
    assert twice == pytest.approx([1.3, 1.7, 1.9], abs=0.15)
    assert feed_factors(normal, AT_MS, np.array([0, 0, 0])).tolist() == [1, 1, 1]
    assert feed_factors(normal, AT_MS, np.array([5_000, 9_000, 9_000])).max() == 3
    test = SurgeTest(A_FIFTH, normal)
    calm, busy = (explained(test, counted((3, 7, 9)), feed=feed).evidence for feed in (CALM, np.full(3, 2.0)))
    assert busy.expected == 2 * calm.expected
    assert busy.p > calm.p


def test_the_budget_is_the_sum_of_what_every_series_and_every_turn_of_a_window_may_cause():
    alphas = significances(np.array([50.0, 1.0, 1.0]), WINDOWS_MS, 2.0, 5.0)
    turns = np.array([96, 24, 4])
    assert (alphas * turns * 5).sum() == pytest.approx(2.0)
    assert alphas[0] == pytest.approx(50 * alphas[1])
    assert (alphas * turns).std(axis=1) == pytest.approx([0, 0, 0])


def test_a_rule_finds_nothing_in_kinds_that_it_does_not_watch_and_spends_nothing_on_them():
    def alpha(series, **changes):
        return explained(SurgeTest(replace(A_FIFTH, **changes), baseline()), counted((9, 9, 9), series=series)).evidence.alpha

    topics = frozenset({SeriesKind.TOPIC})
    assert alpha(HALDEN, watched=topics) == 0
    assert alpha(ALL_SERIES) == 0
    assert alpha(HALDEN) == pytest.approx(50 * alpha(FRAUD))
    assert alpha(FRAUD, watched=topics) == pytest.approx(2 * alpha(HALDEN, watched=frozenset({SeriesKind.ENTITY})))
    test = SurgeTest(replace(A_FIFTH, watched=topics), baseline())
    assert test.alarms(AT_MS, counted((9, 9, 9)), CALM, Asked()) == []


def burning(days):
    """What slow burns find when Halden has these negative stories on the last fourteen days, and one a day before."""
    hours = UNTIL_MS // HOUR_MS - first_burn_hour(UNTIL_MS)
    negative = np.zeros((len(ROSTER.series), hours), dtype=np.int32)
    negative[ROSTER.rows[HALDEN], : hours - 14 * 24 : 24] = 1
    for day, number in enumerate(days):
        negative[ROSTER.rows[HALDEN], hours - (14 - day) * 24 + 5] = number
    return slow_burns(baseline(halden=1 / 12), negative, UNTIL_MS)


def test_bad_news_that_grows_over_days_is_a_slow_burn_and_one_bad_day_is_not():
    [burn] = burning([1] * 7 + [9] * 7)
    assert burn.series == HALDEN
    assert burn.counts == (*[1] * 7, *[9] * 7)
    assert decide_burn(burn.counts, burn.expected, burn.dispersion)
    assert not decide_burn(burn.counts, tuple(6 * number for number in burn.expected), burn.dispersion)
    assert burning([1] * 13 + [60]) == []
    assert burning([1, 2, 0, 1, 3, 1, 0, 2, 1, 1, 0, 2, 1, 2]) == []


def test_a_log_younger_than_four_weeks_burns_nothing_and_other_hours_are_refused():
    hours = UNTIL_MS // HOUR_MS - first_burn_hour(UNTIL_MS)
    assert slow_burns(baseline(hours=100), np.full((len(ROSTER.series), hours), 9, dtype=np.int32), UNTIL_MS) == []
    with pytest.raises(ValueError, match="not in"):
        slow_burns(baseline(), np.zeros((1, hours), dtype=np.int32), UNTIL_MS)
