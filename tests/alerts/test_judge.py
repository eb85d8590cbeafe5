"""Many rules, many series: who is visited, in which order, and what an incident says."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.judge import Judge
from alerts.types import AlertState, ChangeKind, Comparison, Phase, ResolveReason, SeriesSelector, Severity
from monitor.errors import ConfigurationError
from monitor.types import ALL_SERIES, Count, Metric, Series, SeriesKind
from tests.alerts.building import HALDEN, NAMES, NORDIA, FakeReadings, a_count, a_rule, minutes

BAD = a_count(negative=6, positive=4)
GOOD = a_count(negative=1, positive=9)
NEWS = Series(SeriesKind.TOPIC, "Financials")


def run(judge, states, evaluation):
    """The states after an evaluation."""
    after = dict(states)
    for key, state in evaluation.states.items():
        if state is None:
            del after[key]
        else:
            after[key] = state
    return after


def fire(rule, names=NAMES):
    """A judge and its states with one incident open."""
    judge = Judge([rule], names)
    evaluation = judge.evaluate(minutes(100), FakeReadings({HALDEN: BAD}), {}, blind=False)
    assert [change.kind for change in evaluation.changes] == [ChangeKind.OPENED]
    return judge, run(judge, {}, evaluation)


def test_an_incident_says_what_opened_it():
    evaluation = Judge([a_rule(severity=Severity.CRITICAL)], NAMES).evaluate(
        minutes(100), FakeReadings({HALDEN: BAD}), {}, blind=False
    )
    change = evaluation.changes[0]
    assert (change.kind, change.sequence, change.at_ms, change.reading) == (
        ChangeKind.OPENED,
        1,
        minutes(100),
        change.incident.reading,
    )
    assert change.incident.opened_at_ms == minutes(100)
    assert change.incident.severity is Severity.CRITICAL
    assert change.incident.summary == "Halden Bank: 60 % of 10 stories negative over 1 h (limit 50 %)"
    assert (change.reading.from_ms, change.reading.until_ms) == (minutes(40), minutes(100))
    state = evaluation.states["tone", HALDEN]
    assert (state.phase, state.incident_id, state.incident) == (Phase.FIRING, change.incident.incident_id, change.incident)


def test_an_incident_resolves_with_what_it_said_at_its_opening():
    judge, states = fire(a_rule(annotations={"why": "{{ negative }} negative"}))
    evaluation = judge.evaluate(minutes(101), FakeReadings({HALDEN: GOOD}), states, blind=False)
    change, opened = evaluation.changes[0], states["tone", HALDEN].incident
    assert (change.kind, change.sequence) == (ChangeKind.RESOLVED, 2)
    assert change.incident == replace(opened, resolved_at_ms=minutes(101), resolve_reason=ResolveReason.CLEARED, sequence=2)
    assert change.reading.count == GOOD
    assert evaluation.states == {("tone", HALDEN): None}


def test_silence_about_a_name_ends_its_incident():
    judge, states = fire(a_rule())
    evaluation = judge.evaluate(minutes(160), FakeReadings({NORDIA: GOOD}), states, blind=False)
    assert [change.kind for change in evaluation.changes] == [ChangeKind.RESOLVED]


def test_a_state_read_back_without_its_incident_still_resolves_under_its_id():
    rule = a_rule(severity=Severity.CRITICAL, labels={"desk": "{{ entity.id }}"})
    judge, states = fire(rule)
    bare = {key: replace(state, incident=None) for key, state in states.items()}
    change = judge.evaluate(minutes(101), FakeReadings(), bare, blind=False).changes[0]
    opened = states["tone", HALDEN].incident
    assert change.incident.incident_id == opened.incident_id
    assert change.incident.opened_at_ms == minutes(100)
    assert change.incident.severity is Severity.CRITICAL
    assert change.incident.labels == opened.labels == {"desk": "halden-bank"}
    assert change.incident.display == "Halden Bank"


@pytest.mark.parametrize("blind", [False, True])
def test_an_incident_whose_rule_is_removed_is_resolved_once_and_said_so(blind):
    _, states = fire(a_rule())
    judge = Judge([a_rule(name="other")], NAMES)
    readings = FakeReadings()
    evaluation = judge.evaluate(minutes(101), readings, states, blind=blind)
    change = evaluation.changes[0]
    assert (change.kind, change.incident.resolve_reason, change.reading) == (ChangeKind.RESOLVED, ResolveReason.RULE_REMOVED, None)
    assert change.incident.summary.startswith("Halden Bank: 60 %")
    assert not judge.evaluate(minutes(102), readings, run(judge, states, evaluation), blind=blind).changes


@pytest.mark.parametrize(
    ("rule", "names"),
    [
        (a_rule(series=SeriesSelector(SeriesKind.ENTITY, "nordia")), NAMES),
        (a_rule(series=SeriesSelector(SeriesKind.TOPIC)), NAMES),
        (a_rule(), {"nordia": "Nordia"}),
    ],
    ids=["another name", "another kind", "no longer on the watch list"],
)
def test_an_incident_whose_series_is_no_longer_watched_is_resolved(rule, names):
    _, states = fire(a_rule())
    evaluation = Judge([rule], names).evaluate(minutes(101), FakeReadings({HALDEN: BAD}), states, blind=False)
    assert [change.incident.resolve_reason for change in evaluation.changes] == [ResolveReason.RULE_REMOVED]
    assert evaluation.states["tone", HALDEN] is None


def test_a_pending_state_whose_rule_is_removed_is_forgotten_without_a_word():
    states = {("gone", HALDEN): AlertState("gone", HALDEN, Phase.PENDING, 0)}
    evaluation = Judge([a_rule()], NAMES).evaluate(minutes(1), FakeReadings(), states, blind=False)
    assert (evaluation.states, evaluation.changes) == ({("gone", HALDEN): None}, ())


def test_while_blind_nothing_is_read_and_live_states_are_marked_unknown():
    judge, states = fire(a_rule())
    readings = FakeReadings({HALDEN: GOOD, NORDIA: BAD})
    evaluation = judge.evaluate(minutes(101), readings, states, blind=True)
    assert not readings.asked
    assert not evaluation.changes
    assert {key: state.unknown_since_ms for key, state in evaluation.states.items()} == {("tone", HALDEN): minutes(101)}
    assert not judge.evaluate(minutes(102), readings, run(judge, states, evaluation), blind=True).states


def test_only_states_that_changed_are_given_back():
    judge, states = fire(a_rule())
    assert not judge.evaluate(minutes(101), FakeReadings({HALDEN: BAD}), states, blind=False).states


def test_of_a_thousand_names_only_those_in_the_news_and_those_with_a_state_are_visited():
    names = NAMES | {f"bank-{number}": f"Bank {number}" for number in range(1_000)}
    judge, states = fire(a_rule(), names=names)
    readings = FakeReadings({NORDIA: BAD})
    judge.evaluate(minutes(101), readings, states, blind=False)
    assert [series for question, series in readings.asked if question == "reading"] == [HALDEN, NORDIA]


def test_sources_are_asked_for_only_where_everything_else_holds():
    readings = FakeReadings({HALDEN: BAD, NORDIA: GOOD})
    judge = Judge([a_rule()], NAMES)
    states = run(judge, {}, judge.evaluate(minutes(1), readings, {}, blind=False))
    assert {series for question, series in readings.asked if question == "sources"} == {HALDEN}
    readings.asked.clear()
    judge.evaluate(minutes(2), readings, states, blind=False)
    assert not [series for question, series in readings.asked if question == "sources"]


def test_too_few_sources_open_nothing():
    readings = FakeReadings({HALDEN: BAD}, {HALDEN: 1})
    assert not Judge([a_rule()], NAMES).evaluate(minutes(1), readings, {}, blind=False).changes


def test_a_name_that_is_not_watched_is_not_judged():
    stranger = Series(SeriesKind.ENTITY, "stranger")
    readings = FakeReadings({stranger: BAD})
    assert not Judge([a_rule()], NAMES).evaluate(minutes(1), readings, {}, blind=False).changes
    named = a_rule(series=SeriesSelector(SeriesKind.ENTITY, "stranger"))
    assert not Judge([named], NAMES).evaluate(minutes(1), readings, {}, blind=False).changes


@pytest.mark.parametrize(
    ("selector", "series", "display"),
    [
        (SeriesSelector(SeriesKind.ALL), ALL_SERIES, "All news"),
        (SeriesSelector(SeriesKind.TOPIC), NEWS, "Financials"),
        (SeriesSelector(SeriesKind.TOPIC, "Financials"), NEWS, "Financials"),
        (SeriesSelector(SeriesKind.ENTITY, "nordia"), NORDIA, "Nordia"),
    ],
)
def test_a_selector_picks_its_series(selector, series, display):
    readings = FakeReadings({ALL_SERIES: BAD, NEWS: BAD, HALDEN: GOOD, NORDIA: BAD, Series(SeriesKind.TOPIC, "Other"): GOOD})
    changes = Judge([a_rule(series=selector)], NAMES).evaluate(minutes(1), readings, {}, blind=False).changes
    assert [(change.incident.series, change.incident.display) for change in changes] == [(series, display)]


def a_silence_rule(**changes):
    return a_rule(
        metric=Metric.STORIES,
        comparison=Comparison.BELOW,
        level=3,
        clear_level=3,
        **({"minimum_stories": 0, "minimum_sources": 0} | changes),
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, [HALDEN, NORDIA]),
        ({"series": SeriesSelector(SeriesKind.TOPIC)}, [NEWS]),
        ({"minimum_sources": 1}, []),
        ({"minimum_stories": 1}, []),
    ],
)
def test_a_rule_that_looks_for_silence_visits_what_is_silent(changes, expected):
    judge = Judge([a_silence_rule(**changes)], NAMES, topics=["Financials"])
    found = judge.evaluate(minutes(1), FakeReadings(), {}, blind=False).changes
    assert [change.incident.series for change in found] == expected


def test_two_rules_of_one_series_are_two_incidents():
    judge = Judge([a_rule(name="b"), a_rule(name="a")], NAMES)
    changes = judge.evaluate(minutes(1), FakeReadings({HALDEN: BAD, NORDIA: BAD}), {}, blind=False).changes
    assert [(change.incident.rule, change.incident.series.name) for change in changes] == [
        ("b", "halden-bank"),
        ("b", "nordia"),
        ("a", "halden-bank"),
        ("a", "nordia"),
    ]
    assert len({change.incident.incident_id for change in changes}) == 4


def test_the_series_of_a_rule_are_judged_in_their_order():
    names = {f"bank-{number:02}": "Bank" for number in range(30)}
    readings = FakeReadings({Series(SeriesKind.ENTITY, name): BAD for name in reversed(names)})
    changes = Judge([a_rule()], names).evaluate(minutes(1), readings, {}, blind=False).changes
    assert [change.incident.series.name for change in changes] == list(names)


def test_what_is_removed_comes_last_and_in_order():
    judge = Judge([a_rule(name=name) for name in ("y", "x")], NAMES)
    readings = FakeReadings({HALDEN: BAD, NORDIA: BAD})
    states = run(judge, {}, judge.evaluate(minutes(1), readings, {}, blind=False))
    left = Judge([a_rule(name="new")], NAMES).evaluate(minutes(2), readings, dict(reversed(states.items())), blind=False)
    assert [(change.incident.rule, change.incident.series.name) for change in left.changes] == [
        ("new", "halden-bank"),
        ("new", "nordia"),
        ("x", "halden-bank"),
        ("x", "nordia"),
        ("y", "halden-bank"),
        ("y", "nordia"),
    ]


def test_a_template_that_cannot_be_compiled_is_refused_before_anything_is_judged():
    with pytest.raises(ConfigurationError, match=r"annotations\.summary"):
        Judge([a_rule(annotations={"summary": "{{ nope }}"})], NAMES)


counts = st.sampled_from([Count(), BAD, GOOD, a_count(negative=4, positive=6), a_count(negative=3)])


@settings(max_examples=60, deadline=None)
@given(
    history=st.lists(
        st.tuples(st.dictionaries(st.sampled_from([HALDEN, NORDIA]), counts), st.booleans(), st.booleans()), max_size=12
    ),
    for_minutes=st.sampled_from([0, 1, 2]),
)
def test_the_same_history_gives_the_same_incidents_whatever_restarts_lie_between(history, for_minutes):
    """A restart is a new judge, and states in another order."""
    rules = [a_rule(for_ms=minutes(for_minutes), keep_firing_ms=minutes(1)), a_rule(name="plain")]

    def play(*, restarts: bool):
        judge, states, changes = Judge(rules, NAMES), {}, []
        for minute, (found, blind, restarted) in enumerate(history):
            if restarts and restarted:
                judge, states = Judge(rules, dict(reversed(NAMES.items()))), dict(reversed(states.items()))
            evaluation = judge.evaluate(minutes(minute), FakeReadings(dict(found)), states, blind=blind)
            states = run(judge, states, evaluation)
            changes.extend(evaluation.changes)
        return changes

    first = play(restarts=False)
    assert first == play(restarts=True)
    for incident in {change.incident.incident_id for change in first}:
        kinds = [(change.kind, change.sequence) for change in first if change.incident.incident_id == incident]
        assert kinds in ([(ChangeKind.OPENED, 1)], [(ChangeKind.OPENED, 1), (ChangeKind.RESOLVED, 2)])
