"""Incidents and a table of known events in, what was found, how early, and what was a false alarm out."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from alerts.types import Incident
from monitor.decode import parse_time_ms
from monitor.errors import PipelineError
from monitor.types import DAY_MS, SeriesKind
from monitor.watchlist import WatchList

FOUND_WITHIN_MS: Final = DAY_MS
BEFORE_MS: Final = DAY_MS
AROUND_MS: Final = 7 * DAY_MS
"""A crisis is news for a week: what opens about its subject so long before or after its first bad headline may be it."""

_COLUMNS: Final = ("event", "entity_regex", "known_date", "first_neg_headline_utc")


@dataclass(frozen=True, slots=True)
class KnownEvent:
    """A crisis that is on record: whom it was about, the day it is known under, and its first negative headline in the archive."""

    name: str
    pattern: re.Pattern[str]
    known_date: str
    first_ms: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What was made of an event: the first incident about it (None: it was missed), and how many incidents were about it at all.

    `minutes` are those from the first negative headline to the opening; below 0 the incident came before it.
    """

    event: KnownEvent
    first: Incident | None
    minutes: float | None
    incidents: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """How a run did against the events that lie within its time.

    `precision` is the share of incidents that were about an event, None without incidents. `false_alarms` are the others.
    """

    verdicts: tuple[Verdict, ...]
    false_alarms: tuple[Incident, ...]
    precision: float | None
    false_alarms_a_day: float

    def found_within(self, span_ms: int) -> int:
        """Events with an incident at most so long after their first negative headline."""
        return sum(one.minutes is not None and one.minutes * 60_000 <= span_ms for one in self.verdicts)


def read_events(path: Path) -> tuple[KnownEvent, ...]:
    """The events of a tab-separated file with the columns event, entity_regex, known_date and first_neg_headline_utc.

    Further columns are ignored. Raises PipelineError that lists every fault.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{path} cannot be read: {error}") from error
    rows = csv.DictReader(text.splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE)
    missing = [column for column in _COLUMNS if column not in (rows.fieldnames or ())]
    if missing:
        raise PipelineError(f"{path} lacks the columns {', '.join(missing)}")
    events, problems = [], []
    for number, row in enumerate(rows, start=2):
        first_ms = parse_time_ms(row["first_neg_headline_utc"] or "")
        if first_ms is None:
            problems.append(f"line {number}: first_neg_headline_utc is no date and time like 2026-01-31T09:30Z")
        try:
            pattern = re.compile(row["entity_regex"] or "")
        except re.error as error:
            problems.append(f"line {number}: entity_regex is no regular expression: {error}")
            continue
        if first_ms is not None:
            events.append(KnownEvent(row["event"], pattern, row["known_date"] or "", first_ms))
    if problems:
        raise PipelineError(f"{path} cannot be used: {'; '.join(problems)}")
    return tuple(events)


def judge(
    incidents: Sequence[Incident], events: Iterable[KnownEvent], watchlist: WatchList, from_ms: int, until_ms: int
) -> Judgement:
    """Holds the incidents of a run from `from_ms` to `until_ms` against the events whose first headline lies within it.

    An incident is about an event when the event's pattern is found in the name or an alias of its entity, or in its summary, it
    opened within a week of the first negative headline, and was not over a day before it. The event is found by the first of them,
    if that opened no later than a day after the headline.
    """
    within = [event for event in events if from_ms <= event.first_ms < until_ms]
    about = {event: [one for one in incidents if _is_about(one, event, watchlist)] for event in within}
    explained = {incident.incident_id for found in about.values() for incident in found}
    false_alarms = tuple(incident for incident in incidents if incident.incident_id not in explained)
    days = max((until_ms - from_ms) / DAY_MS, 1 / 24)
    return Judgement(
        verdicts=tuple(_verdict(event, about[event]) for event in within),
        false_alarms=false_alarms,
        precision=1 - len(false_alarms) / len(incidents) if incidents else None,
        false_alarms_a_day=len(false_alarms) / days,
    )


def _is_about(incident: Incident, event: KnownEvent, watchlist: WatchList) -> bool:
    if abs(incident.opened_at_ms - event.first_ms) >= AROUND_MS:
        return False
    if incident.resolved_at_ms is not None and incident.resolved_at_ms < event.first_ms - BEFORE_MS:
        return False
    return any(event.pattern.search(text) for text in _names(incident, watchlist))


def _names(incident: Incident, watchlist: WatchList) -> list[str]:
    names = [incident.summary, incident.display]
    entity = watchlist.entities.get(incident.series.name) if incident.series.kind is SeriesKind.ENTITY else None
    return names if entity is None else [*names, entity.name, *(alias.text for alias in entity.aliases)]


def _verdict(event: KnownEvent, about: Sequence[Incident]) -> Verdict:
    first = min(about, key=lambda incident: incident.opened_at_ms, default=None)
    if first is None or first.opened_at_ms > event.first_ms + FOUND_WITHIN_MS:
        return Verdict(event, None, None, len(about))
    return Verdict(event, first, (first.opened_at_ms - event.first_ms) / 60_000, len(about))
