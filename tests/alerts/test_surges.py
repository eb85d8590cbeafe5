"""Surges in the judge: what opens, escalates and ends, with which evidence, and the same decision made again from it."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from alerts.baseline import Roster, estimate, first_hour
from alerts.evidence import odds, recompute_incident
from alerts.judge import Judge
from alerts.surge import SurgeKind, SurgeSettings
from alerts.types import AlertState, ChangeKind, Phase, ResolveReason, RuleKind, SeriesSelector, Severity, SurgeRule
from monitor.errors import EvidenceMissing
from monitor.types import ALL_SERIES, HOUR_MS, MINUTE_MS, Series, SeriesKind, StoryView
from tests.alerts.building import HALDEN, NAMES, NORDIA, FakeReadings, a_count, a_rule, minutes

ROSTER = Roster([ALL_SERIES, HALDEN, NORDIA])
NOW_MS = 1_772_431_200_000 // HOUR_MS * HOUR_MS + 10 * MINUTE_MS
SETTINGS = SurgeSettings(watched=frozenset({SeriesKind.ENTITY}), alarms_a_day=1.0)


def normal():
    """What four weeks say in which 20 stories an hour were told, one of four hours names each bank, and a third is bad."""
    until_ms = NOW_MS // HOUR_MS * HOUR_MS
    hours = np.arange(until_ms // HOUR_MS - first_hour(until_ms))
    named = (hours % 4 == 0).astype(np.int32)
    stories = np.stack([np.full_like(named, 20), named, named])
    negative = np.stack([np.full_like(named, 7), named * (hours % 3 == 0), named * (hours % 3 == 0)]).astype(np.int32)
    return estimate(ROSTER, stories, negative, until_ms, {})


BASELINE = normal()


@dataclass
class Told(FakeReadings):
    """What windows say, and the stories behind them."""

    views: list[StoryView] = field(default_factory=list)

    def stories(self, series, window_ms, until_ms):
        return self.views


def told(negative, *, sources=("wire", "paper"), source_number=None):
    """So many bad stories about Halden Bank in every window, told by these sources in turn."""
    views = [
        StoryView(number, f"story {number}", "negative", NOW_MS - 1, (sources[number % len(sources)],), 2, number, "model-1")
        for number in range(negative)
    ]
    numbers = {HALDEN: len(sources) if source_number is None else source_number}
    return Told({HALDEN: a_count(negative=negative), ALL_SERIES: a_count(negative=negative, neutral=8)}, numbers, views=views)


def a_judge(**changes) -> Judge:
    return Judge([replace(SurgeRule("surge", settings=SETTINGS, for_ms=0), **changes)], NAMES)


def judged(judge, readings, states=None, at_ms=NOW_MS, *, blind=False):
    """The changes of one minute, and the states after it."""
    evaluation = judge.evaluate(at_ms, readings, states or {}, blind=blind, baseline=lambda: BASELINE)
    after = dict(states or {})
    for key, state in evaluation.states.items():
        if state is None:
            after.pop(key)
        else:
            after[key] = state
    return evaluation.changes, after


def test_far_more_bad_stories_than_usual_open_an_incident_that_says_against_what_and_how_unlikely():
    (change,), _ = judged(a_judge(), told(9))
    incident = change.incident
    assert (change.kind, incident.kind, incident.series, incident.severity) == (
        ChangeKind.OPENED, RuleKind.SURGE, HALDEN, Severity.CRITICAL,
    )  # fmt: skip
    assert incident.summary.startswith("Halden Bank: 9 negative stories in 15 min where 0.0")
    assert "are usual (" in incident.summary
    assert incident.summary.endswith("2 sources); story 0")
    assert incident.reading.until_ms - incident.reading.from_ms == minutes(15)


def test_what_is_usual_opens_nothing():
    assert judged(a_judge(), told(1)) == ((), {})
    assert judged(a_judge(), told(2)) == ((), {})


def test_a_surge_begins_in_a_minute_that_tells_something_of_it():
    class Quiet(Told):
        def counted(self, kind, window_ms, until_ms):
            return [] if window_ms == MINUTE_MS else super().counted(kind, window_ms, until_ms)

    readings = told(9)
    assert judged(a_judge(), Quiet(readings.counts, readings.source_numbers, views=readings.views)) == ((), {})


def test_it_must_hold_for_as_long_as_the_rule_says():
    judge = a_judge(for_ms=minutes(2))
    changes, states = judged(judge, told(9))
    assert not changes
    assert states["surge", HALDEN].phase is Phase.PENDING
    changes, states = judged(judge, told(9), states, NOW_MS + minutes(1))
    assert not changes
    changes, states = judged(judge, told(9), states, NOW_MS + minutes(2))
    assert [change.kind for change in changes] == [ChangeKind.OPENED]


def test_one_source_is_not_enough_unless_the_whole_feed_has_no_more():
    alone = told(9, sources=("wire",))
    assert judged(a_judge(), alone) == ((), {})
    alone.source_numbers[ALL_SERIES] = 1
    changes, _ = judged(a_judge(), alone)
    assert changes[0].incident.evidence["found"]["minimum_sources"] == 1


def test_a_warning_becomes_critical_in_place_when_it_grows_and_is_told_once():
    judge = a_judge(critical_alarms_a_day=1e-9)
    changes, states = judged(judge, told(4))
    assert [(change.kind, change.incident.severity) for change in changes] == [(ChangeKind.OPENED, Severity.WARNING)]
    changes, states = judged(judge, told(5), states, NOW_MS + minutes(1))
    assert not changes
    changes, states = judged(judge, told(40), states, NOW_MS + minutes(2))
    assert [(change.kind, change.sequence, change.incident.severity) for change in changes] == [
        (ChangeKind.ESCALATED, 2, Severity.CRITICAL)
    ]
    assert changes[0].incident.opened_at_ms == NOW_MS
    changes, _ = judged(judge, told(45), states, NOW_MS + minutes(3))
    assert not changes


def test_it_is_over_once_window_and_shortest_window_have_been_usual_for_long_enough():
    judge = a_judge(keep_firing_ms=minutes(30))
    _, states = judged(judge, told(9))
    for later in range(1, 31):
        changes, states = judged(judge, told(0), states, NOW_MS + minutes(later))
        assert not changes
    (change,), states = judged(judge, told(0), states, NOW_MS + minutes(31))
    assert (change.kind, change.incident.resolve_reason) == (ChangeKind.RESOLVED, ResolveReason.CLEARED)
    assert states == {}


def test_a_few_bad_stories_that_are_still_unusual_neither_end_nor_repeat_it():
    judge = a_judge(keep_firing_ms=0)
    _, states = judged(judge, told(9))
    changes, states = judged(judge, told(2), states, NOW_MS + minutes(1))
    assert not changes
    assert states["surge", HALDEN].clear_since_ms is None


def test_while_the_feed_is_blind_nothing_opens_and_nothing_ends():
    judge = a_judge(keep_firing_ms=0)
    assert judged(judge, told(9), blind=True) == ((), {})
    _, states = judged(judge, told(9))
    changes, states = judged(judge, told(0), states, NOW_MS + minutes(1), blind=True)
    assert not changes
    assert states["surge", HALDEN].unknown_since_ms == NOW_MS + minutes(1)


def test_it_says_whether_it_would_stand_without_the_largest_story_and_the_largest_source():
    (change,), _ = judged(a_judge(), told(9, sources=("wire", "wire", "paper")))
    evidence = change.incident.evidence
    assert (evidence["without_largest_story"], evidence["without_largest_source"]) == (True, False)
    (change,), _ = judged(a_judge(), told(30, sources=("wire", "paper", "agency")))
    assert change.incident.evidence["without_largest_source"] is True


def test_it_keeps_the_five_leading_stories_with_their_sources_copies_and_models():
    (change,), _ = judged(a_judge(), told(9))
    evidence = change.incident.evidence
    assert evidence["story_count"] == 9
    assert [story["headline"] for story in evidence["stories"]] == [f"story {number}" for number in range(5)]
    assert evidence["stories"][1] == {
        "story_id": 1, "headline": "story 1", "tone": "negative", "at_ms": NOW_MS - 1, "sources": ["paper"], "copies": 2,
        "document_key": 1, "model": "model-1",
    }  # fmt: skip


@pytest.mark.parametrize("measure", [SurgeKind.NEGATIVE, SurgeKind.VOLUME])
def test_the_evidence_alone_makes_the_same_decision_again_to_the_last_bit(measure):
    judge = a_judge(settings=replace(SETTINGS, kind=measure))
    (change,), _ = judged(judge, told(12))
    again = recompute_incident(change.incident)
    assert again.same
    assert again.numbers["fires"] == (True, True)
    assert again.numbers["p"][0] == change.incident.evidence["found"]["p"] > 0


def test_evidence_that_was_touched_is_another_decision():
    (change,), _ = judged(a_judge(), told(9))
    for name, value in (("count", 8), ("expected", 5.0), ("alpha", 0.0)):
        found = {**change.incident.evidence["found"], name: value}
        assert not recompute_incident(replace(change.incident, evidence={**change.incident.evidence, "found": found})).same


def test_the_decision_of_a_threshold_rule_is_made_again_too():
    rule = a_rule()
    readings = FakeReadings({HALDEN: a_count(negative=3, neutral=2)})
    (change,) = Judge([rule], NAMES).evaluate(minutes(100), readings, {}, blind=False).changes
    assert recompute_incident(change.incident).same
    other = {**change.incident.evidence, "level": 0.9}
    assert not recompute_incident(replace(change.incident, evidence=other)).same


def test_an_incident_without_evidence_says_so():
    (change,), _ = judged(a_judge(), told(9))
    with pytest.raises(EvidenceMissing, match="keeps no evidence"):
        recompute_incident(replace(change.incident, evidence={}))


@pytest.mark.parametrize(
    ("p", "said"),
    [(0.5, "1 in 2"), (0.03, "1 in 30"), (2.6e-5, "1 in 40,000"), (1e-12, "less than 1 in a billion"), (0.0, "all but impossible")],
)
def test_odds_are_said_as_people_say_them(p, said):
    assert odds(p) == said


def test_a_rule_that_is_gone_ends_its_surge():
    _, states = judged(a_judge(), told(9))
    changes, _ = judged(Judge([], NAMES), told(9), states, NOW_MS + minutes(1))
    assert [change.incident.resolve_reason for change in changes] == [ResolveReason.RULE_REMOVED]


def test_a_topic_of_a_model_that_is_gone_opens_nothing_and_ends_what_fires():
    gone = Series(SeriesKind.TOPIC, "Gone")
    judge = a_judge(series=SeriesSelector(SeriesKind.TOPIC), settings=replace(SETTINGS, watched=frozenset({SeriesKind.TOPIC})))
    readings = Told({gone: a_count(negative=9), ALL_SERIES: a_count(negative=9, neutral=8)})
    assert judged(judge, readings) == ((), {})
    firing = AlertState("surge", gone, Phase.FIRING, since_ms=NOW_MS, clear_since_ms=NOW_MS - minutes(60), incident_id="x")
    changes, states = judged(judge, readings, {("surge", gone): firing})
    assert ([change.kind for change in changes], states) == ([ChangeKind.RESOLVED], {})


def test_a_state_is_read_back_and_goes_on():
    judge = a_judge(keep_firing_ms=0)
    _, states = judged(judge, told(9))
    kept = states["surge", HALDEN]
    assert isinstance(kept, AlertState)
    changes, _ = judged(a_judge(keep_firing_ms=0), told(0), {("surge", HALDEN): replace(kept)}, NOW_MS + minutes(1))
    assert [change.kind for change in changes] == [ChangeKind.RESOLVED]
