"""Rules, readings and stand-ins for the tests of alerting, each as small as what it stands for."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from threading import Event

from alerts.types import (
    Attempt,
    AttemptResult,
    ChangeKind,
    Comparison,
    Delivery,
    DeliveryStatus,
    Incident,
    IncidentChange,
    ResolveReason,
    SeriesSelector,
    Severity,
    ThresholdRule,
)
from monitor.types import MINUTE_MS, Count, Metric, Reading, Series, SeriesKind, StoryView

HALDEN = Series(SeriesKind.ENTITY, "halden-bank")
NORDIA = Series(SeriesKind.ENTITY, "nordia")
NAMES = {"halden-bank": "Halden Bank", "nordia": "Nordia"}


def minutes(number: int) -> int:
    return number * MINUTE_MS


def a_rule(**changes) -> ThresholdRule:
    """Half of at least four stories by at least two sources negative; over below a quarter."""
    rule = ThresholdRule(
        name="tone",
        metric=Metric.NEGATIVE_SHARE,
        series=SeriesSelector(SeriesKind.ENTITY),
        window_ms=minutes(60),
        comparison=Comparison.AT_LEAST,
        level=0.5,
        clear_level=0.25,
        minimum_stories=4,
        minimum_sources=2,
    )
    return replace(rule, **changes)


def a_count(negative: int = 0, neutral: int = 0, positive: int = 0, uncertain: int = 0, copies: int = 0) -> Count:
    return Count((negative, neutral, positive, uncertain), (copies, 0, 0, 0), 5_000 * (positive - negative))


def a_change(*, resolved: bool = False, **changes) -> IncidentChange:
    """Halden Bank, 13 of 21 stories negative in the hour before 05:14 UTC; resolved 92 minutes later."""
    opened_at_ms = 1_795_583_640_000
    at_ms = opened_at_ms + minutes(92) if resolved else opened_at_ms
    count = a_count(3, 9, 1) if resolved else a_count(13, 3, 4, 1, copies=30)
    reading = Reading(HALDEN, at_ms - minutes(60), at_ms, count)
    incident = Incident(
        incident_id="143186a8c061ff14463a",
        rule="tone",
        series=HALDEN,
        severity=Severity.CRITICAL,
        opened_at_ms=opened_at_ms,
        resolved_at_ms=at_ms if resolved else None,
        resolve_reason=ResolveReason.CLEARED if resolved else None,
        summary="Halden Bank: 61.9 % of 21 stories negative over 1 h (limit 50 %)",
        labels={"desk": "credit"},
        reading=reading,
        display="Halden Bank",
    )
    kind = ChangeKind.RESOLVED if resolved else ChangeKind.OPENED
    return IncidentChange(kind, 2 if resolved else 1, at_ms, replace(incident, **changes), reading)


def a_delivery(name: str = "a", *, receiver: str = "desk", sequence: int = 1, due_at_ms: int = 0, body: bytes = b"{}") -> Delivery:
    return Delivery(f"msg_{name}_{sequence}_{receiver}", receiver, name, sequence, body, created_at_ms=0, due_at_ms=due_at_ms)


def an_attempt(result: AttemptResult = AttemptResult.DELIVERED, **changes) -> Attempt:
    return replace(Attempt(result, None, "it went as it went", 0.1), **changes)


@dataclass
class FakeReadings:
    """What windows say: a count and a number of sources per series, the same at every minute. `asked` remembers the questions."""

    counts: dict[Series, Count] = field(default_factory=dict)
    source_numbers: dict[Series, int] = field(default_factory=dict)
    asked: list[tuple[str, Series]] = field(default_factory=list)

    def reading(self, series: Series, window_ms: int, until_ms: int) -> Reading:
        self.asked.append(("reading", series))
        return Reading(series, until_ms - window_ms, until_ms, self.counts.get(series, Count()))

    def counted(self, kind: SeriesKind, window_ms: int, until_ms: int) -> list[Series]:
        return sorted(series for series, count in self.counts.items() if series.kind is kind and count != Count())

    def sources(self, series: Series, window_ms: int, until_ms: int) -> int:
        self.asked.append(("sources", series))
        return self.source_numbers.get(series, 9)

    def stories(self, series: Series, window_ms: int, until_ms: int) -> list[StoryView]:
        return []


@dataclass
class MemoryOutbox:
    """The outbox in a dictionary."""

    rows: dict[str, Delivery] = field(default_factory=dict)
    statuses: dict[str, DeliveryStatus] = field(default_factory=dict)
    last: dict[str, Attempt] = field(default_factory=dict)
    disabled: dict[str, str] = field(default_factory=dict)

    def add(self, deliveries: Iterable[Delivery]) -> None:
        for delivery in deliveries:
            self.rows[delivery.delivery_id] = delivery
            self.statuses[delivery.delivery_id] = DeliveryStatus.DUE

    def due(self, now_ms: int, limit: int) -> list[Delivery]:
        found = [delivery for delivery in self._open() if delivery.due_at_ms <= now_ms]
        return sorted(found, key=lambda delivery: (delivery.due_at_ms, delivery.delivery_id))[:limit]

    def hold(self, due: Delivery, until_ms: int) -> bool:
        row = self.rows[due.delivery_id]
        free = self.statuses[due.delivery_id] is DeliveryStatus.DUE and row.due_at_ms == due.due_at_ms
        if free:
            self.rows[due.delivery_id] = replace(row, due_at_ms=until_ms)
        return free

    def next_due_at_ms(self) -> int | None:
        return min((delivery.due_at_ms for delivery in self._open()), default=None)

    def record(self, delivery_id: str, attempt: Attempt, status: DeliveryStatus, due_at_ms: int | None, at_ms: int) -> None:
        row = self.rows[delivery_id]
        due = row.due_at_ms if due_at_ms is None else due_at_ms
        self.rows[delivery_id] = replace(row, attempts=row.attempts + 1, due_at_ms=due)
        self.statuses[delivery_id] = status
        self.last[delivery_id] = attempt

    def disable(self, receiver: str, reason: str, at_ms: int) -> None:
        self.disabled[receiver] = reason
        for row in self._waiting():
            if row.receiver == receiver:
                self.statuses[row.delivery_id] = DeliveryStatus.ABANDONED

    def _waiting(self) -> list[Delivery]:
        return [row for row in self.rows.values() if self.statuses[row.delivery_id] is DeliveryStatus.DUE]

    def _open(self) -> list[Delivery]:
        waiting = [row for row in self._waiting() if row.receiver not in self.disabled]
        first: dict[tuple[str, str], int] = {}
        for row in waiting:
            key = row.receiver, row.incident_id
            first[key] = min(row.sequence, first.get(key, row.sequence))
        return [row for row in waiting if row.sequence == first[row.receiver, row.incident_id]]


@dataclass
class ScriptedChannel:
    """A receiver that answers as written, the last answer for ever; `hold` keeps it from answering until it is set."""

    answers: list[Attempt] = field(default_factory=lambda: [an_attempt()])
    retry_for_ms: int = 3 * 86_400_000
    timeout_ms: int = 15_000
    hold: Event | None = None
    sent: list[Delivery] = field(default_factory=list)
    begun: Event = field(default_factory=Event)

    def send(self, delivery: Delivery, now_ms: int) -> Attempt:
        self.sent.append(delivery)
        self.begun.set()
        if self.hold is not None and not self.hold.wait(10):
            raise TimeoutError
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
