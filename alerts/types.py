"""The nouns of alerting: rules, the state of a series under a rule, incidents and their changes, deliveries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from alerts.surge import Evidence, SurgeSettings
from monitor.types import DAY_MS, MINUTE_MS, Metric, Reading, Series, SeriesKind

NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


def _nothing() -> Mapping[str, str]:
    return NOTHING


class Severity(StrEnum):
    """How loud an incident is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"

    @property
    def rank(self) -> int:
        """Louder is higher."""
        return list(Severity).index(self)


class Comparison(StrEnum):
    """How a metric is held against a level."""

    ABOVE = ">"
    AT_LEAST = ">="
    BELOW = "<"
    AT_MOST = "<="

    def holds(self, value: float, level: float) -> bool:
        """Whether `value` compares so with `level`."""
        match self:
            case Comparison.ABOVE:
                return value > level
            case Comparison.AT_LEAST:
                return value >= level
            case Comparison.BELOW:
                return value < level
            case Comparison.AT_MOST:
                return value <= level


@dataclass(frozen=True, slots=True)
class SeriesSelector:
    """Which series a rule watches: all of one kind (`name` None) or one of them. Kind `ALL` has no name."""

    kind: SeriesKind
    name: str | None = None


class RuleKind(StrEnum):
    """How a rule decides: a level, what is usual, or a report."""

    THRESHOLD = "threshold"
    SURGE = "surge"
    EVENT = "event"


@dataclass(frozen=True, slots=True)
class ThresholdRule:
    """The user's own rule: a metric of a window held against a level.

    The condition holds when the metric compares with `level` and the window has at least `minimum_stories` stories and
    `minimum_sources` sources. It must hold for `for_ms` before the rule fires. While firing it is over once the metric no longer
    compares with `clear_level` (default: `level`), and it has not done so for `keep_firing_ms`.
    """

    name: str
    metric: Metric
    series: SeriesSelector
    window_ms: int
    comparison: Comparison
    level: float
    clear_level: float
    minimum_stories: int = 1
    minimum_sources: int = 1
    for_ms: int = 0
    keep_firing_ms: int = 0
    severity: Severity = Severity.WARNING
    labels: Mapping[str, str] = field(default_factory=_nothing)
    annotations: Mapping[str, str] = field(default_factory=_nothing)
    receivers: tuple[str, ...] | None = None
    """Names of the receivers that hear of it; None: all."""

    @property
    def kind(self) -> RuleKind:
        """How it decides."""
        return RuleKind.THRESHOLD


@dataclass(frozen=True, slots=True)
class EventRule:
    """One credible report of a severe event about a watched entity opens an incident at once.

    `categories` are the ids of the events that it hears of (None: all). A report is credible when its source is among
    `credible_sources` (None: every source is); others add to what is open. The incident is over when nobody has told of the
    entity's events for `keep_firing_ms`. Its severity is the highest of its categories'.
    """

    name: str
    series: SeriesSelector = SeriesSelector(SeriesKind.ENTITY)
    categories: frozenset[str] | None = None
    credible_sources: frozenset[str] | None = None
    keep_firing_ms: int = DAY_MS
    labels: Mapping[str, str] = field(default_factory=_nothing)
    annotations: Mapping[str, str] = field(default_factory=_nothing)
    receivers: tuple[str, ...] | None = None

    @property
    def kind(self) -> RuleKind:
        """How it decides."""
        return RuleKind.EVENT

    @property
    def severity(self) -> Severity:
        """How loud it is at the least."""
        return Severity.WARNING

    @property
    def for_ms(self) -> int:
        """A report is enough."""
        return 0


@dataclass(frozen=True, slots=True)
class SurgeRule:
    """More than chance explains: a series against what is normal of it at this hour of the week.

    `settings` say what is counted and how many false alarms a day are accepted over all of them, as warnings; an alarm that stays
    one under `critical_alarms_a_day` is critical (0: none ever is). The condition must hold for `for_ms` before the rule
    fires; while firing it is over once window and shortest window have been likely again for `keep_firing_ms`.
    Of a feed that had fewer sources than `minimum_sources` in a day, no more are asked than it had.
    """

    name: str
    series: SeriesSelector = SeriesSelector(SeriesKind.ENTITY)
    settings: SurgeSettings = field(default_factory=SurgeSettings)
    critical_alarms_a_day: float = 0.2
    for_ms: int = MINUTE_MS
    keep_firing_ms: int = 30 * MINUTE_MS
    labels: Mapping[str, str] = field(default_factory=_nothing)
    annotations: Mapping[str, str] = field(default_factory=_nothing)
    receivers: tuple[str, ...] | None = None

    @property
    def kind(self) -> RuleKind:
        """How it decides."""
        return RuleKind.SURGE

    @property
    def severity(self) -> Severity:
        """How loud it is at the least."""
        return Severity.WARNING

    def severity_of(self, found: Evidence) -> Severity:
        """How loud an alarm on such evidence is."""
        critical = found.alpha * self.critical_alarms_a_day / self.settings.alarms_a_day
        return Severity.CRITICAL if found.p < critical else Severity.WARNING


Rule = ThresholdRule | SurgeRule | EventRule


def severities(rule: Rule) -> tuple[Severity, ...]:
    """How loud the incidents of a rule can be."""
    return (rule.severity,) if isinstance(rule, ThresholdRule) else (Severity.WARNING, Severity.CRITICAL)


# --- the state of one series under one rule ----------------------------------------------------


class Phase(StrEnum):
    """Where a series stands under a rule. Nothing stored means: inactive."""

    PENDING = "pending"
    FIRING = "firing"


@dataclass(frozen=True, slots=True)
class AlertState:
    """What is remembered between evaluations about one series under one rule.

    `since_ms`: when the condition began to hold without a break (pending), or when the incident opened (firing).
    `clear_since_ms`: while firing, since when the condition has been over; None while it holds.
    `unknown_since_ms`: since when the feed has been blind; None while it sees. A blind state is frozen.
    `incident_id` is set while firing. `incident` is what was opened under that id, and is what resolves; a state read back
    without it resolves with what the rule still says.
    """

    rule: str
    series: Series
    phase: Phase
    since_ms: int
    clear_since_ms: int | None = None
    unknown_since_ms: int | None = None
    incident_id: str | None = None
    incident: Incident | None = None


class ChangeKind(StrEnum):
    """What happened to an incident: it began, it became louder, there is something new to know, it ended."""

    OPENED = "opened"
    ESCALATED = "escalated"
    UPDATED = "updated"
    RESOLVED = "resolved"


class ResolveReason(StrEnum):
    """Why an incident ended."""

    CLEARED = "cleared"
    RULE_REMOVED = "rule_removed"


@dataclass(frozen=True, slots=True)
class Incident:
    """One episode: a rule fired for a series. The same log gives the same `incident_id`.

    `display` is how the series is called in a message; "": by its name. Severity, texts, reading and evidence are those of the last
    change that made it louder or told something new. `evidence` is what was decided from, as JSON would hold it.
    """

    incident_id: str
    rule: str
    series: Series
    severity: Severity
    opened_at_ms: int
    kind: RuleKind = RuleKind.THRESHOLD
    resolved_at_ms: int | None = None
    resolve_reason: ResolveReason | None = None
    summary: str = ""
    labels: Mapping[str, str] = field(default_factory=_nothing)
    annotations: Mapping[str, str] = field(default_factory=_nothing)
    reading: Reading | None = None
    """What the window said."""
    display: str = ""
    sequence: int = 1
    """Number of its changes so far."""
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IncidentChange:
    """One step in an incident's life: what it was, when (stream time), the incident after it and the reading that decided it.

    `sequence` counts the changes of one incident from 1.
    """

    kind: ChangeKind
    sequence: int
    at_ms: int
    incident: Incident
    reading: Reading | None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What judging one minute of stream time decided: saved as one transaction, or not at all.

    `states` holds the new state of every series whose state changed; None means: back to inactive.
    """

    at_ms: int
    states: Mapping[tuple[str, Series], AlertState | None]
    changes: tuple[IncidentChange, ...]


# --- deliveries --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Delivery:
    """One message to one receiver: a row of the outbox.

    `delivery_id` is the same over all attempts and after a restart (it goes out as `webhook-id`). `body` is the exact payload.
    `due_at_ms` is wall-clock time, `attempts` how many were made.
    """

    delivery_id: str
    receiver: str
    incident_id: str
    sequence: int
    body: bytes
    created_at_ms: int
    due_at_ms: int
    attempts: int = 0


class DeliveryStatus(StrEnum):
    """Where a row of the outbox stands."""

    DUE = "due"
    DELIVERED = "delivered"
    ABANDONED = "abandoned"


class AttemptResult(StrEnum):
    """How one attempt ended. A fixed vocabulary, because it labels a metric."""

    DELIVERED = "delivered"
    REFUSED = "refused"
    THROTTLED = "throttled"
    REDIRECTED = "redirected"
    GONE = "gone"
    TIMED_OUT = "timed_out"
    UNREACHABLE = "unreachable"
    FORBIDDEN_ADDRESS = "forbidden_address"


@dataclass(frozen=True, slots=True)
class Attempt:
    """The outcome of one attempt. `detail` is one sentence without URL, header or secret.

    `retry_after_s` is what the receiver asked for, if it did.
    """

    result: AttemptResult
    status_code: int | None
    detail: str
    duration_s: float
    retry_after_s: float | None = None
