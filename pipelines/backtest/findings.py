"""A run in, what a person wants to know of it out: alarms per week and rule, events found, false alarms, what other levels do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from alerts.types import Incident, Rule
from monitor.types import DAY_MS, HOUR_MS
from monitor.watchlist import WatchList
from pipelines.backtest.events import Judgement, KnownEvent, judge
from pipelines.backtest.run import Run
from pipelines.backtest.what_if import Variant

_PROMPT_MS: Final = 2 * HOUR_MS


@dataclass(frozen=True, slots=True)
class Week:
    """The incidents that opened in the week that began on `monday`, by rule."""

    monday: str
    opened: Counter[str]


@dataclass(frozen=True, slots=True)
class Alternative:
    """A rule, or a variant of it (`field` = `value`; "" for the rule as it stands), and what it did by itself.

    `found` and `found_promptly` are events with an incident within a day and within two hours; all but `incidents` is None without
    a file of events.
    """

    rule: str
    field: str
    value: str
    incidents: int
    incidents_a_day: float
    found: int | None
    found_promptly: int | None
    precision: float | None
    false_alarms_a_day: float | None


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that a run showed. `incidents` are those of the rules themselves, without those of their variants."""

    rules: tuple[str, ...]
    incidents: tuple[Incident, ...]
    from_ms: int
    until_ms: int
    weeks: tuple[Week, ...]
    judgement: Judgement | None
    alternatives: tuple[Alternative, ...]

    @property
    def days(self) -> float:
        """How long the archive was."""
        return _days(self.from_ms, self.until_ms)

    @property
    def most_a_week(self) -> int:
        """How many incidents opened in the worst week."""
        return max((week.opened.total() for week in self.weeks), default=0)


def find(
    run: Run,
    rules: Sequence[Rule],
    variants: Sequence[Variant],
    events: Sequence[KnownEvent] | None,
    watchlist: WatchList,
) -> Findings:
    """What the run showed; `rules` hold the variants too."""
    from_ms, until_ms = run.from_ms or 0, run.until_ms or 0
    varied = {variant.name for variant in variants}
    own = tuple(incident for incident in run.incidents if incident.rule not in varied)

    def held(incidents: Sequence[Incident]) -> Judgement | None:
        return None if events is None else judge(incidents, events, watchlist, from_ms, until_ms)

    def alternative(name: str, rule: str, field: str, value: str) -> Alternative:
        incidents = [incident for incident in run.incidents if incident.rule == name]
        judged = held(incidents)
        return Alternative(
            rule=rule,
            field=field,
            value=value,
            incidents=len(incidents),
            incidents_a_day=len(incidents) / _days(from_ms, until_ms),
            found=None if judged is None else judged.found_within(DAY_MS),
            found_promptly=None if judged is None else judged.found_within(_PROMPT_MS),
            precision=None if judged is None else judged.precision,
            false_alarms_a_day=None if judged is None else judged.false_alarms_a_day,
        )

    names = tuple(rule.name for rule in rules if rule.name not in varied)
    alternatives: list[Alternative] = []
    for name in names:
        alternatives.append(alternative(name, name, "", ""))
        alternatives += [alternative(one.name, one.rule, one.field, one.value) for one in variants if one.rule == name]
    return Findings(
        rules=names,
        incidents=own,
        from_ms=from_ms,
        until_ms=until_ms,
        weeks=_weeks(own, from_ms, until_ms),
        judgement=held(own),
        alternatives=tuple(alternatives),
    )


def _weeks(incidents: Sequence[Incident], from_ms: int, until_ms: int) -> tuple[Week, ...]:
    """Every week of the archive, also the quiet ones."""
    opened: dict[str, Counter[str]] = {}
    monday = _monday(from_ms)
    while monday <= _monday(until_ms):
        opened[monday.date().isoformat()] = Counter()
        monday += timedelta(days=7)
    for incident in incidents:
        opened[_monday(incident.opened_at_ms).date().isoformat()][incident.rule] += 1
    return tuple(Week(*item) for item in opened.items())


def _monday(time_ms: int) -> datetime:
    moment = datetime.fromtimestamp(time_ms / 1000, tz=UTC)
    return moment.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=moment.weekday())


def _days(from_ms: int, until_ms: int) -> float:
    return max((until_ms - from_ms) / DAY_MS, 1 / 24)
