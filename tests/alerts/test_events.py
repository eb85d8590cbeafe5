"""Reports of severe events: what opens, what is told again, what only prolongs, and when it is over."""

from dataclasses import replace

import pytest

from alerts.events import MOST_STORIES, known_from
from alerts.judge import Judge
from alerts.types import ChangeKind, EventRule, Phase, ResolveReason, RuleKind, SeriesSelector, Severity
from monitor.types import Report, SeriesKind
from tests.alerts.building import HALDEN, NAMES, FakeReadings, minutes

TITLES = {"insolvency": "Insolvency", "fraud": "Fraud", "fine": "Large fine"}


def a_report(at_minute=0, category="insolvency", *, source="wire", story_id=1, severity="critical") -> Report:
    headline = f"Halden Bank: {category}"
    return Report(minutes(at_minute), "halden-bank", category, severity, story_id, at_minute * 100 + story_id, source, headline)


def told(judge, reports, states=None):
    """The changes that the reports bring, one after the other, and the states after them."""
    states, changes = dict(states or {}), []
    for report in reports:
        evaluation = judge.hear(report, states)
        changes += evaluation.changes
        states.update(evaluation.states)
    return changes, states


def a_judge(**changes) -> Judge:
    return Judge([EventRule("severe", **changes)], NAMES, (), TITLES)


def test_the_first_report_opens_at_once_with_what_it_says():
    (change,), states = told(a_judge(), [a_report(7)])
    incident = change.incident
    assert (change.kind, change.sequence, change.at_ms) == (ChangeKind.OPENED, 1, minutes(7))
    assert (incident.kind, incident.severity, incident.opened_at_ms) == (RuleKind.EVENT, Severity.CRITICAL, minutes(7))
    assert incident.summary == "Halden Bank: Insolvency; 1 story, 1 source, first by wire: Halden Bank: insolvency"
    assert states["severe", HALDEN].phase is Phase.FIRING
    assert states["severe", HALDEN].incident == incident


def test_copies_and_further_stories_of_the_same_event_are_remembered_and_not_told():
    changes, states = told(a_judge(), [a_report(0), a_report(1), a_report(2, story_id=2), a_report(3, story_id=2)])
    assert [change.kind for change in changes] == [ChangeKind.OPENED]
    known = known_from(states["severe", HALDEN].incident.evidence)
    assert (known.documents, known.story_count) == (4, 2)
    assert [story["copies"] for story in known.stories.values()] == [1, 1]


def test_another_kind_of_event_is_told():
    changes, _ = told(a_judge(), [a_report(0), a_report(5, category="fraud", story_id=2), a_report(6, category="fraud")])
    assert [(change.kind, change.sequence) for change in changes] == [(ChangeKind.OPENED, 1), (ChangeKind.UPDATED, 2)]
    assert changes[1].incident.summary.startswith("Halden Bank: Insolvency, Fraud; 2 stories")


def test_a_louder_event_escalates_in_place_and_a_quieter_one_does_not_calm():
    reports = [
        a_report(0, category="fine", severity="warning"),
        a_report(1, category="fraud", severity="critical"),
        a_report(2, category="fine", severity="warning"),
    ]
    changes, states = told(a_judge(), reports)
    assert [change.kind for change in changes] == [ChangeKind.OPENED, ChangeKind.ESCALATED]
    assert [change.incident.severity for change in changes] == [Severity.WARNING, Severity.CRITICAL]
    assert {change.incident.incident_id for change in changes} == {states["severe", HALDEN].incident_id}
    assert states["severe", HALDEN].incident.severity is Severity.CRITICAL


def test_the_rules_own_summary_stays_while_nothing_new_is_told():
    judge = a_judge(annotations={"summary": "{{ display }}: {{ events }}, {{ documents }} reports"})
    _, states = told(judge, [a_report(0), a_report(1)])
    assert states["severe", HALDEN].incident.summary == "Halden Bank: Insolvency, 1 reports"


def test_only_some_numbers_of_sources_are_worth_telling():
    changes, _ = told(a_judge(), [a_report(number, source=f"source-{number}") for number in range(25)])
    assert [len(change.incident.evidence["sources"]) for change in changes] == [1, 2, 5, 10, 20]


def test_a_source_that_nobody_credits_opens_nothing_and_adds_to_what_is_open():
    judge = a_judge(credible_sources=frozenset({"wire"}))
    changes, states = told(judge, [a_report(0, source="blog"), a_report(1, source="wire"), a_report(2, source="blog")])
    assert [(change.kind, change.at_ms) for change in changes] == [
        (ChangeKind.OPENED, minutes(1)),
        (ChangeKind.UPDATED, minutes(2)),
    ]
    assert states["severe", HALDEN].incident.evidence["sources"] == ["blog", "wire"]


@pytest.mark.parametrize(
    ("changes", "hears"),
    [
        ({}, True),
        ({"categories": frozenset({"fraud"})}, False),
        ({"categories": frozenset({"insolvency"})}, True),
        ({"series": SeriesSelector(SeriesKind.ENTITY, "nordia")}, False),
        ({"series": SeriesSelector(SeriesKind.ENTITY, "halden-bank")}, True),
    ],
)
def test_a_rule_hears_of_its_categories_and_entities_only(changes, hears):
    assert bool(told(a_judge(**changes), [a_report()])[0]) is hears


def test_a_name_that_is_no_longer_watched_is_not_heard_of():
    judge = Judge([EventRule("severe")], {"nordia": "Nordia"}, (), TITLES)
    assert told(judge, [a_report()]) == ([], {})


def test_it_is_over_when_nobody_has_told_of_it_for_long_enough():
    judge = a_judge(keep_firing_ms=minutes(60))
    _, states = told(judge, [a_report(0), a_report(30)])
    assert not judge.evaluate(minutes(89), FakeReadings(), states, blind=False).changes
    (change,) = judge.evaluate(minutes(90), FakeReadings(), states, blind=False).changes
    assert (change.kind, change.sequence, change.incident.resolve_reason) == (ChangeKind.RESOLVED, 2, ResolveReason.CLEARED)
    assert change.incident.evidence["documents"] == 2


def test_while_the_feed_is_blind_it_is_never_over_and_the_blind_time_does_not_count():
    judge = a_judge(keep_firing_ms=minutes(60))
    _, states = told(judge, [a_report(0)])
    for at_minute in (20, 200):
        evaluation = judge.evaluate(minutes(at_minute), FakeReadings(), states, blind=True)
        assert not evaluation.changes
        states.update(evaluation.states)
    evaluation = judge.evaluate(minutes(210), FakeReadings(), states, blind=False)
    assert not evaluation.changes
    states.update(evaluation.states)
    assert not judge.evaluate(minutes(249), FakeReadings(), states, blind=False).changes
    assert judge.evaluate(minutes(250), FakeReadings(), states, blind=False).changes


def test_a_late_report_does_not_bring_the_end_nearer():
    judge = a_judge(keep_firing_ms=minutes(60))
    _, states = told(judge, [a_report(30), a_report(10, story_id=2)])
    assert states["severe", HALDEN].clear_since_ms == minutes(30)


def test_what_is_remembered_of_a_flood_is_bounded_and_what_is_counted_is_not():
    _, states = told(a_judge(), [a_report(number, story_id=number + 1) for number in range(3 * MOST_STORIES)])
    known = known_from(states["severe", HALDEN].incident.evidence)
    assert (len(known.stories), known.story_count, known.documents) == (MOST_STORIES, 3 * MOST_STORIES, 3 * MOST_STORIES)


def test_an_incident_that_was_saved_and_read_back_goes_on_as_if_it_never_was():
    reports = [a_report(number, source=f"s{number % 7}", story_id=number % 5) for number in range(20)]
    through, _ = told(a_judge(), reports)
    first, states = told(a_judge(), reports[:9])
    rest, _ = told(a_judge(), reports[9:], {key: replace(state) for key, state in states.items()})
    assert first + rest == through
