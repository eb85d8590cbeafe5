"""The state of one series under one rule and a condition to the next state and, at most, one change of an incident."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from hashlib import blake2b
from typing import Final

from alerts.types import AlertState, ChangeKind, Phase, Rule, ThresholdRule
from monitor.types import Reading, Series

_ID_BYTES: Final = 10


class Condition(StrEnum):
    """What a window says about a rule.

    `HOLDS` opens and keeps open. `LINGERS` lies between level and clear level, or falls short of the minimum of stories or
    sources: it opens nothing and ends nothing, but it interrupts what is pending. `OVER` ends.
    """

    HOLDS = "holds"
    LINGERS = "lingers"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Step:
    """The state after an evaluation (None: inactive) and what it did to an incident, if anything."""

    state: AlertState | None
    change: ChangeKind | None = None


def weigh(rule: ThresholdRule, reading: Reading, sources: Callable[[], int], *, firing: bool) -> Condition:
    """What `reading` says about `rule`.

    A metric that is undefined, because the window holds no story, is over: windows expire by silence, and a feed that is silent as
    a whole is blind and never weighed. The minima gate only the opening, so `sources` is asked last, and never while `firing`.
    """
    value = reading.value(rule.metric)
    if value is None or not rule.comparison.holds(value, rule.clear_level):
        return Condition.OVER
    if firing or not rule.comparison.holds(value, rule.level) or reading.stories < rule.minimum_stories:
        return Condition.LINGERS
    # A story has a source, so the first one needs no question to the database.
    known = 1 if reading.stories else 0
    return Condition.HOLDS if rule.minimum_sources <= known or sources() >= rule.minimum_sources else Condition.LINGERS


def freeze(state: AlertState, at_ms: int) -> AlertState:
    """The state while the feed is blind: as it was, and marked with when that began."""
    return state if state.unknown_since_ms is not None else replace(state, unknown_since_ms=at_ms)


def thaw(state: AlertState, at_ms: int) -> AlertState:
    """The state when the feed sees again: pending and clear time go on where they stood, the blind span is cut out of them.

    Time from the first blind evaluation to this one does not count; `since_ms` of an incident stays the moment of its opening.
    """
    if state.unknown_since_ms is None:
        return state
    blind_ms = at_ms - state.unknown_since_ms
    return replace(
        state,
        since_ms=state.since_ms + blind_ms if state.phase is Phase.PENDING else state.since_ms,
        clear_since_ms=None if state.clear_since_ms is None else state.clear_since_ms + blind_ms,
        unknown_since_ms=None,
    )


def step(rule: Rule, series: Series, state: AlertState | None, condition: Condition, at_ms: int, *, blind: bool) -> Step:
    """One evaluation of one series at `at_ms` (stream time).

    Pending becomes firing once the condition has held for `for_ms` (0: at once). Firing ends once the condition has been over for
    `keep_firing_ms` without a break. While `blind`, `condition` is not looked at: nothing begins, fires or ends.
    """
    if blind:
        return Step(None if state is None else freeze(state, at_ms))
    seen = None if state is None else thaw(state, at_ms)
    if seen is not None and seen.phase is Phase.FIRING:
        return _step_firing(rule, seen, condition, at_ms)
    if condition is not Condition.HOLDS:
        return Step(None)
    pending = seen or AlertState(rule.name, series, Phase.PENDING, since_ms=at_ms)
    if at_ms - pending.since_ms < rule.for_ms:
        return Step(pending)
    opened = AlertState(rule.name, series, Phase.FIRING, since_ms=at_ms, incident_id=incident_id(rule.name, series, at_ms))
    return Step(opened, ChangeKind.OPENED)


def _step_firing(rule: Rule, state: AlertState, condition: Condition, at_ms: int) -> Step:
    if condition is not Condition.OVER:
        return Step(replace(state, clear_since_ms=None))
    clear_since_ms = at_ms if state.clear_since_ms is None else state.clear_since_ms
    if at_ms - clear_since_ms >= rule.keep_firing_ms:
        return Step(None, ChangeKind.RESOLVED)
    return Step(replace(state, clear_since_ms=clear_since_ms))


def incident_id(rule: str, series: Series, opened_at_ms: int) -> str:
    """Names the incident that `rule` opened for `series` at that minute: 20 hexadecimal digits, the same in every replay."""
    text = "\0".join((rule, str(series.kind), series.name, str(opened_at_ms)))
    return blake2b(text.encode(), digest_size=_ID_BYTES).hexdigest()
