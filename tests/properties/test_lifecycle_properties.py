"""The life of an incident, against an oracle that looks at the whole history at once."""

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.lifecycle import Condition, incident_id, step, weigh
from alerts.types import ChangeKind, Comparison, Phase, SeriesSelector, ThresholdRule
from monitor.types import MINUTE_MS, Count, Metric, Reading, Series, SeriesKind

BANK = Series(SeriesKind.ENTITY, "bank")
HOLDS, LINGERS, OVER = Condition.HOLDS, Condition.LINGERS, Condition.OVER


def rule(for_minutes=0, keep_minutes=0, **changes):
    whole = {
        "name": "rule",
        "metric": Metric.NEGATIVE_SHARE,
        "series": SeriesSelector(SeriesKind.ENTITY),
        "window_ms": 60 * MINUTE_MS,
        "comparison": Comparison.AT_LEAST,
        "level": 0.6,
        "clear_level": 0.4,
        "for_ms": for_minutes * MINUTE_MS,
        "keep_firing_ms": keep_minutes * MINUTE_MS,
    }
    return ThresholdRule(**(whole | changes))


def lived(the_rule, history):
    """(change, minute) of every change, by stepping through the history; None in it is a blind minute."""
    state, changes = None, []
    for minute, condition in enumerate(history):
        taken = step(the_rule, BANK, state, condition or OVER, minute * MINUTE_MS, blind=condition is None)
        if taken.change is not None:
            changes.append((taken.change, minute))
        state = taken.state
    return changes, state


def told(the_rule, history):
    """The same from the definitions: an oracle that searches, for each change, backwards through what was seen.

    Only minutes that see are evaluations. An incident opens at the first seen minute at the end of a run of HOLDS that has lasted
    `for`; it resolves at the first seen minute at the end of a run of OVER that has lasted `keep_firing`. A run's length is the
    time between its first and its last minute, without the time from a first blind minute to the minute that sees again.
    """
    cut, blind_since, seen = 0, None, []
    for minute, condition in enumerate(history):
        if condition is None:
            blind_since = minute if blind_since is None else blind_since
            continue
        if blind_since is not None:
            cut += minute - blind_since
            blind_since = None
        seen.append((minute, minute - cut, condition))
    changes, begin = [], 0
    for place, (minute, clock, _) in enumerate(seen):
        opened = len(changes) % 2 == 1
        wanted = OVER if opened else HOLDS
        run = place
        while run > begin and seen[run - 1][2] is wanted:
            run -= 1
        enough = (the_rule.keep_firing_ms if opened else the_rule.for_ms) // MINUTE_MS
        if seen[place][2] is wanted and clock - seen[run][1] >= enough:
            changes.append((ChangeKind.RESOLVED if opened else ChangeKind.OPENED, minute))
            begin = place + 1
    return changes


minutes = st.one_of(st.just(HOLDS), st.just(LINGERS), st.just(OVER), st.none())
runs = st.lists(st.tuples(minutes, st.sampled_from([1, 1, 2, 3, 4, 5])), max_size=14)


@given(runs, st.integers(0, 4), st.integers(0, 4))
@settings(max_examples=400, deadline=None)
def test_incidents_open_and_resolve_exactly_when_the_whole_history_says_so(parts, for_minutes, keep_minutes):
    history = [condition for condition, length in parts for _ in range(length)]
    the_rule = rule(for_minutes, keep_minutes)
    changes, state = lived(the_rule, history)
    assert changes == told(the_rule, history)
    assert (state is not None and state.phase is Phase.FIRING) == (len(changes) % 2 == 1)


@given(st.lists(st.none(), max_size=9), runs)
def test_a_blind_feed_begins_ends_and_resolves_nothing(blind, parts):
    history = [condition for condition, length in parts for _ in range(length)]
    before, state = lived(rule(2, 2), history)
    after, still = lived(rule(2, 2), history + blind)
    assert after == before
    if state is not None and blind:
        assert still.unknown_since_ms is not None
        assert (still.phase, still.incident_id) == (state.phase, state.incident_id)


levels = st.sampled_from([0, 1, 2, 3, 4, 5])


@given(st.tuples(levels, levels), st.booleans(), st.integers(0, 6), st.integers(0, 3), st.integers(0, 3))
def test_a_window_holds_lingers_or_is_over_by_its_numbers_alone(counted, firing, least, least_sources, sources):
    negative, neutral = counted
    the_rule = rule(minimum_stories=least, minimum_sources=least_sources)
    reading = Reading(BANK, 0, the_rule.window_ms, Count((negative, neutral, 0, 0)))
    asked = []

    def count_sources():
        asked.append(1)
        return sources

    stories = negative + neutral
    found = weigh(the_rule, reading, count_sources, firing=firing)
    if stories == 0 or negative / stories < 0.4:
        assert found is OVER
    elif firing or negative / stories < 0.6 or stories < least or max(sources, 1 if least_sources <= 1 else 0) < least_sources:
        assert found is LINGERS
    else:
        assert found is HOLDS
    assert not (firing and asked)


def test_the_same_opening_has_the_same_name_and_another_has_another():
    names = {
        incident_id("a", BANK, 0),
        incident_id("b", BANK, 0),
        incident_id("a", Series(SeriesKind.TOPIC, "bank"), 0),
        incident_id("a", BANK, MINUTE_MS),
    }
    assert len(names) == 4
    assert incident_id("a", BANK, 0) in names
