"""One rule, one series: when an incident begins, when it ends, and what a blind feed leaves alone."""

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from alerts.lifecycle import Condition, incident_id, step, weigh
from alerts.types import AlertState, ChangeKind, Comparison, Phase, ThresholdRule
from monitor.types import ALL_SERIES, Metric, Reading
from tests.alerts.building import HALDEN, NORDIA, a_count, a_rule, minutes

HOLDS, LINGERS, OVER = Condition.HOLDS, Condition.LINGERS, Condition.OVER


def play(rule: ThresholdRule, history) -> list[tuple[ChangeKind, int]]:
    """The changes that a history of (minute, condition or None for blind) brings, with their minutes."""
    state, changes = None, []
    for minute, condition in history:
        taken = step(rule, HALDEN, state, condition or OVER, minutes(minute), blind=condition is None)
        state = taken.state
        if taken.change is not None:
            changes.append((taken.change, minute))
    return changes


def every_minute(*conditions):
    return list(enumerate(conditions))


def opened(minute):
    return (ChangeKind.OPENED, minute)


def resolved(minute):
    return (ChangeKind.RESOLVED, minute)


def test_without_a_hold_time_a_rule_fires_at_once():
    assert play(a_rule(), every_minute(OVER, HOLDS)) == [opened(1)]


@pytest.mark.parametrize(("for_minutes", "fires_at"), [(1, 1), (2, 2), (3, 3)])
def test_a_rule_fires_once_its_condition_has_held_for_the_hold_time(for_minutes, fires_at):
    assert play(a_rule(for_ms=minutes(for_minutes)), every_minute(*[HOLDS] * 5)) == [opened(fires_at)]


@pytest.mark.parametrize("interruption", [LINGERS, OVER])
def test_an_interruption_starts_the_hold_time_again(interruption):
    history = every_minute(HOLDS, HOLDS, interruption, HOLDS, HOLDS, HOLDS)
    assert play(a_rule(for_ms=minutes(2)), history) == [opened(5)]


def test_between_the_levels_nothing_begins_and_nothing_ends():
    history = every_minute(LINGERS, LINGERS, HOLDS, LINGERS, LINGERS, HOLDS, LINGERS, OVER, LINGERS)
    assert play(a_rule(), history) == [opened(2), resolved(7)]


def test_an_incident_is_kept_until_the_condition_has_been_over_for_the_keeping_time():
    history = every_minute(HOLDS, OVER, OVER, OVER, OVER)
    assert play(a_rule(keep_firing_ms=minutes(2)), history) == [opened(0), resolved(3)]


@pytest.mark.parametrize("relapse", [LINGERS, HOLDS])
def test_a_relapse_starts_the_keeping_time_again(relapse):
    history = every_minute(HOLDS, OVER, relapse, OVER, OVER, OVER)
    assert play(a_rule(keep_firing_ms=minutes(2)), history) == [opened(0), resolved(5)]


def test_a_blind_feed_neither_fires_nor_resolves():
    assert play(a_rule(), every_minute(None, None, HOLDS, None, None, OVER)) == [opened(2), resolved(5)]


def test_blind_time_does_not_count_towards_the_hold_time():
    history = [(0, HOLDS), (1, HOLDS), (2, None), (3, None), (60, HOLDS), (61, HOLDS)]
    assert play(a_rule(for_ms=minutes(3)), history) == [opened(61)]


def test_blind_time_does_not_count_towards_the_keeping_time():
    history = [(0, HOLDS), (1, OVER), (2, None), (60, OVER), (61, OVER), (62, OVER)]
    assert play(a_rule(keep_firing_ms=minutes(3)), history) == [opened(0), resolved(62)]


def test_a_blind_state_is_frozen_and_remembers_since_when():
    pending = AlertState("tone", HALDEN, Phase.PENDING, minutes(1))
    frozen = step(a_rule(), HALDEN, pending, OVER, minutes(2), blind=True).state
    assert frozen is not None
    assert (frozen.phase, frozen.since_ms, frozen.unknown_since_ms) == (Phase.PENDING, minutes(1), minutes(2))
    assert step(a_rule(), HALDEN, frozen, OVER, minutes(3), blind=True).state == frozen


def test_blindness_does_not_move_the_moment_at_which_an_incident_opened():
    state = step(a_rule(), HALDEN, None, HOLDS, minutes(1), blind=False).state
    state = step(a_rule(), HALDEN, state, OVER, minutes(2), blind=True).state
    seen = step(a_rule(), HALDEN, state, HOLDS, minutes(9), blind=False).state
    assert seen is not None
    assert (seen.since_ms, seen.unknown_since_ms) == (minutes(1), None)


def test_an_incident_is_named_by_its_rule_its_series_and_its_minute():
    names = {
        incident_id(rule, series, at_ms)
        for rule in ("a", "b")
        for series in (HALDEN, NORDIA, ALL_SERIES)
        for at_ms in (0, minutes(1))
    }
    assert len(names) == 12
    assert incident_id("tone", HALDEN, minutes(29_000_000)) == "143186a8c061ff14463a"


# --- what a window says about a rule -----------------------------------------------------------


def condition_of(rule, count, sources=9, *, firing=False):
    reading = Reading(HALDEN, 0, minutes(60), count)
    return weigh(rule, reading, lambda: sources, firing=firing)


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (a_count(negative=2, positive=2), HOLDS),
        (a_count(negative=4), HOLDS),
        (a_count(negative=1, positive=3), LINGERS),
        (a_count(negative=49, positive=51), LINGERS),
        (a_count(negative=1, positive=4), OVER),
        (a_count(copies=9), OVER),
        (a_count(), OVER),
    ],
)
def test_a_share_is_held_against_both_levels(count, expected):
    assert condition_of(a_rule(), count) is expected


@pytest.mark.parametrize(("stories", "expected"), [(3, LINGERS), (4, HOLDS)])
def test_too_few_stories_open_nothing(stories, expected):
    assert condition_of(a_rule(), a_count(negative=stories)) is expected


@pytest.mark.parametrize(("sources", "expected"), [(1, LINGERS), (2, HOLDS)])
def test_too_few_sources_open_nothing(sources, expected):
    assert condition_of(a_rule(), a_count(negative=4), sources) is expected


def test_the_minima_do_not_end_what_is_open():
    assert condition_of(a_rule(), a_count(negative=1), sources=0, firing=True) is not OVER


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [(Comparison.ABOVE, LINGERS), (Comparison.AT_LEAST, HOLDS), (Comparison.BELOW, LINGERS), (Comparison.AT_MOST, HOLDS)],
)
def test_a_value_on_the_level_counts_only_for_the_comparisons_that_include_it(comparison, expected):
    clear = {Comparison.ABOVE: 0.25, Comparison.AT_LEAST: 0.25}.get(comparison, 0.75)
    assert condition_of(a_rule(comparison=comparison, clear_level=clear), a_count(negative=2, positive=2)) is expected


def test_the_database_is_asked_for_sources_only_when_everything_else_holds():
    def ask():
        pytest.fail("asked")

    window = Reading(HALDEN, 0, minutes(60), a_count(negative=4))
    few = Reading(HALDEN, 0, minutes(60), a_count(negative=3))
    calm = Reading(HALDEN, 0, minutes(60), a_count(positive=4))
    weigh(a_rule(), few, ask, firing=False)
    weigh(a_rule(), calm, ask, firing=False)
    weigh(a_rule(), window, ask, firing=True)
    weigh(a_rule(minimum_sources=1), window, ask, firing=False)


def test_an_empty_window_has_no_source_that_need_not_be_asked_for():
    quiet = a_rule(metric=Metric.STORIES, comparison=Comparison.BELOW, level=3, clear_level=3, minimum_stories=0, minimum_sources=1)
    assert condition_of(quiet, a_count(), sources=0) is LINGERS
    assert condition_of(a_rule(metric=Metric.STORIES, comparison=Comparison.BELOW, level=3, clear_level=3, minimum_stories=0,
                               minimum_sources=0), a_count(), sources=0) is HOLDS  # fmt: skip


# --- the whole history ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Moment:
    minute: int
    condition: Condition | None


def seen_minutes(history: list[Moment], first: int, last: int) -> int:
    """Minutes between two moments, without those that follow a blind one."""
    pairs = list(pairwise(history))[first:last]
    return sum(after.minute - before.minute for before, after in pairs if before.condition is not None)


def lasted(history: list[Moment], condition: Condition, after: int, last: int, wanted_minutes: int) -> bool:
    """Whether, after one moment and up to another, everything seen was of one kind for long enough."""
    for first in range(after + 1, last + 1):
        if history[first].condition is None or history[last].condition is None:
            continue
        seen = {moment.condition for moment in history[first : last + 1]} - {None}
        if seen == {condition} and seen_minutes(history, first, last) >= wanted_minutes:
            return True
    return False


def expected_changes(history: list[Moment], for_minutes: int, keep_minutes: int) -> list[tuple[ChangeKind, int]]:
    changes, last_change, is_open = [], -1, False
    for index, moment in enumerate(history):
        condition, wanted = (Condition.OVER, keep_minutes) if is_open else (Condition.HOLDS, for_minutes)
        if lasted(history, condition, last_change, index, wanted):
            is_open = not is_open
            last_change = index
            changes.append((ChangeKind.OPENED if is_open else ChangeKind.RESOLVED, moment.minute))
    return changes


@settings(max_examples=300, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.sampled_from([1, 1, 1, 2, 5]), st.sampled_from([HOLDS, HOLDS, LINGERS, OVER, OVER, None])), max_size=25
    ),
    for_minutes=st.sampled_from([0, 1, 2, 5]),
    keep_minutes=st.sampled_from([0, 1, 2, 5]),
)
@example([(1, HOLDS), (1, None), (5, HOLDS), (1, HOLDS)], 2, 0)
@example([(1, HOLDS), (1, OVER), (1, None), (5, OVER), (1, OVER)], 0, 2)
def test_incidents_are_those_that_a_slow_reading_of_the_whole_history_finds(steps, for_minutes, keep_minutes):
    history, minute = [], 0
    for gap, condition in steps:
        minute += gap
        history.append(Moment(minute, condition))
    rule = a_rule(for_ms=minutes(for_minutes), keep_firing_ms=minutes(keep_minutes))
    found = play(rule, [(moment.minute, moment.condition) for moment in history])
    assert found == expected_changes(history, for_minutes, keep_minutes)
