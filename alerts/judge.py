"""Rules, the windows at one moment and the states before it to an evaluation: the states after it and what it did to incidents."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alerts.baseline import WINDOWS_MS, Baseline, Roster
from alerts.events import hear, hears
from alerts.evidence import surge_evidence, surge_summary, threshold_evidence
from alerts.lifecycle import Condition, Step, step, weigh
from alerts.messages import Opening, Templates, compile_templates
from alerts.surge import Counted, Evidence, SurgeKind, SurgeTest, feed_factors
from alerts.text import duration_text
from alerts.types import (
    AlertState,
    ChangeKind,
    Evaluation,
    EventRule,
    Incident,
    IncidentChange,
    Phase,
    ResolveReason,
    Rule,
    Severity,
    SurgeRule,
    ThresholdRule,
)
from monitor.types import ALL_SERIES, DAY_MS, MINUTE_MS, Count, Reading, Readings, Report, Series, SeriesKind

States = Mapping[tuple[str, Series], AlertState]
"""What is remembered of every series that is not inactive, by rule and series."""


@dataclass(slots=True)
class _Minute:
    """One minute under judgement: what can be read (nothing while blind), and what was decided so far."""

    at_ms: int
    readings: Readings | None
    baseline: Callable[[], Baseline] | None = None
    states: dict[tuple[str, Series], AlertState | None] = field(default_factory=dict)
    changes: list[IncidentChange] = field(default_factory=list)


class Judge:
    """Judges every rule at one moment after another. It remembers nothing: the states come in and go out.

    `entity_names` maps the watched entities' ids to what they are called; `topics` are the labels that a classifier can give, and
    matter only to rules that an empty window can open; `events` says what the categories of
    severe events are called. Raises ConfigurationError when a template is wrong. Names are unique.
    """

    def __init__(
        self,
        rules: Iterable[Rule],
        entity_names: Mapping[str, str],
        topics: Collection[str] = frozenset(),
        events: Mapping[str, str] | None = None,
    ) -> None:
        self.rules: tuple[Rule, ...] = tuple(rules)
        self._entity_names = entity_names
        self._events = events or {}
        self._topics = tuple(sorted(topics))
        self._templates: dict[str, Templates] = {rule.name: compile_templates(rule) for rule in self.rules}
        self._surge_tests: dict[str, SurgeTest] = {}
        self.looks_for_surges = any(isinstance(rule, SurgeRule) for rule in self.rules)

    def evaluate(
        self, at_ms: int, readings: Readings, states: States, *, blind: bool, baseline: Callable[[], Baseline] | None = None
    ) -> Evaluation:
        """Judges all rules at `at_ms` (stream time, a whole minute), in their order, and within a rule the series in theirs.

        `states` are those after the evaluation before. Rules that look for surges ask for the `baseline` of the moment, when there
        is something to look at. While `blind` nothing is read, opens or resolves; but at any time a firing state whose rule, or
        whose series in it, is no longer watched is resolved with `RULE_REMOVED`.
        """
        minute = _Minute(at_ms, None if blind else readings, baseline)
        live: dict[str, list[Series]] = {}
        for name, series in states:
            live.setdefault(name, []).append(series)
        for rule in self.rules:
            visited = {series for series in live.get(rule.name, []) if self._watches(rule, series)}
            match rule:
                case ThresholdRule():
                    visited.update(self._candidates(rule, minute))
                    for series in sorted(visited):
                        self._judge_series(minute, rule, series, states.get((rule.name, series)))
                case SurgeRule():
                    self._judge_surges(minute, rule, visited, states)
                case EventRule():
                    for series in sorted(visited):
                        self._let_rest(minute, rule, states[rule.name, series])
        self._dismiss(minute, states)
        return Evaluation(at_ms, minute.states, tuple(minute.changes))

    def hear(self, report: Report, states: States) -> Evaluation:
        """Tells every rule that asks for it of one report, at the moment of the report.

        `states` are those after what was judged and heard before.
        """
        minute = _Minute(report.at_ms, None)
        series, title = Series(SeriesKind.ENTITY, report.entity), self._events.get(report.category, report.category)
        for rule in self.rules:
            if not isinstance(rule, EventRule) or not hears(rule, report) or not self._watches(rule, series):
                continue
            state = states.get((rule.name, series))
            after, change = hear(rule, state, report, title, self._display(series))
            if change is not None and after is not None:
                incident = self._with_texts(rule, change.incident)
                after, change = replace(after, incident=incident), replace(change, incident=incident)
                minute.changes.append(change)
            if after != state:
                minute.states[rule.name, series] = after
        return Evaluation(report.at_ms, minute.states, tuple(minute.changes))

    def _watches(self, rule: Rule, series: Series) -> bool:
        if series.kind is not rule.series.kind or rule.series.name not in (None, series.name):
            return False
        return series.kind is not SeriesKind.ENTITY or series.name in self._entity_names

    def _candidates(self, rule: ThresholdRule, minute: _Minute) -> Iterable[Series]:
        """The series that could open an incident now: those in the window, and all of them where an empty window is enough."""
        kind, name = rule.series.kind, rule.series.name
        if minute.readings is None:
            found: Iterable[Series] = ()
        elif kind is SeriesKind.ALL:
            found = (ALL_SERIES,)
        elif name is not None:
            found = (Series(kind, name),)
        elif _opens_empty(rule):
            found = (Series(kind, name) for name in (self._entity_names if kind is SeriesKind.ENTITY else self._topics))
        else:
            found = minute.readings.counted(kind, rule.window_ms, minute.at_ms)
        return (series for series in found if self._watches(rule, series))

    def _judge_series(self, minute: _Minute, rule: ThresholdRule, series: Series, state: AlertState | None) -> None:
        reading, taken = _take_step(minute, rule, series, state)
        after = taken.state
        if taken.change is ChangeKind.OPENED and after is not None and reading is not None and minute.readings is not None:
            sources = minute.readings.sources(series, rule.window_ms, minute.at_ms)
            stories = minute.readings.stories(series, rule.window_ms, minute.at_ms)
            incident = replace(
                self._open(rule, after, reading, sources), evidence=threshold_evidence(rule, reading, sources, stories)
            )
            after = replace(after, incident=incident)
            minute.changes.append(IncidentChange(ChangeKind.OPENED, 1, minute.at_ms, incident, reading))
        elif taken.change is ChangeKind.RESOLVED and state is not None:
            minute.changes.append(self._resolve(state, minute.at_ms, ResolveReason.CLEARED, reading))
        if after != state:
            minute.states[rule.name, series] = after

    def _judge_surges(self, minute: _Minute, rule: SurgeRule, visited: set[Series], states: States) -> None:
        found = self._look_for_surges(minute, rule, visited, states)
        for series in sorted(visited.union(found)):
            state = states.get((rule.name, series))
            condition, evidence = found.get(series, (Condition.OVER, None))
            taken = step(rule, series, state, condition, minute.at_ms, blind=minute.readings is None)
            after = taken.state
            told = None if after is None or evidence is None else self._tell_surge(minute, rule, after, evidence, taken.change)
            if after is not None and told is not None:
                after = replace(after, incident=told.incident)
                minute.changes.append(told)
            if taken.change is ChangeKind.RESOLVED and state is not None:
                minute.changes.append(self._resolve(state, minute.at_ms, ResolveReason.CLEARED, None))
            if after != state:
                minute.states[rule.name, series] = after

    def _look_for_surges(
        self, minute: _Minute, rule: SurgeRule, visited: set[Series], states: States
    ) -> dict[Series, tuple[Condition, Evidence | None]]:
        """What the windows say of the series that could surge, or do so already; nothing while blind."""
        readings, at_ms = minute.readings, minute.at_ms
        if readings is None or minute.baseline is None:
            return {}
        firing = {series for series in visited if states[rule.name, series].phase is Phase.FIRING}
        asked = self._promising(rule, readings, at_ms).union(visited - firing)
        if not asked and not firing:
            return {}
        test = self._surge_test(rule, readings, minute.baseline())
        # A topic of a model that is gone has no baseline: nothing of it opens, and what fires is over.
        known = test.baseline.roster.rows.keys()
        everything = count_windows([ALL_SERIES], readings, at_ms, test.baseline.roster)
        feed = feed_factors(test.baseline, at_ms, everything.stories[0])
        found: dict[Series, tuple[Condition, Evidence | None]] = {}
        for series in sorted(firing & known):
            incident, counted = states[rule.name, series].incident, count_windows([series], readings, at_ms, test.baseline.roster)
            over = incident is None or test.is_over(at_ms, incident.evidence["found"]["window_ms"], counted, feed)[0]
            found[series] = Condition.OVER if over else Condition.LINGERS, None
        if asked & known:
            counted = count_windows(sorted(asked & known), readings, at_ms, test.baseline.roster)
            for alarm in test.alarms(at_ms, counted, feed, lambda series, window_ms: readings.sources(series, window_ms, at_ms)):
                if alarm.failed is None:
                    found[alarm.series] = Condition.HOLDS, alarm.evidence
        return found

    def _surge_test(self, rule: SurgeRule, readings: Readings, baseline: Baseline) -> SurgeTest:
        """The test of the hour, made when it is first asked for."""
        test = self._surge_tests.get(rule.name)
        if test is None or test.baseline is not baseline:
            # A feed of one wire has no second source to ask for.
            known_sources = readings.sources(ALL_SERIES, DAY_MS, baseline.until_ms)
            settings = replace(rule.settings, minimum_sources=min(rule.settings.minimum_sources, max(known_sources, 1)))
            test = self._surge_tests[rule.name] = SurgeTest(settings, baseline)
        return test

    def _promising(self, rule: SurgeRule, readings: Readings, at_ms: int) -> set[Series]:
        """The series that could surge now: in this minute they were told of, and they have enough stories."""
        if rule.settings.kind is SurgeKind.SILENCE:
            return {ALL_SERIES}
        longest_ms, volume = WINDOWS_MS[-1], rule.settings.kind is SurgeKind.VOLUME
        chosen = set()
        for series in readings.counted(rule.series.kind, MINUTE_MS, at_ms):
            tones = readings.reading(series, longest_ms, at_ms).count.stories
            if (sum(tones) if volume else tones[0]) >= rule.settings.minimum_stories and self._watches(rule, series):
                chosen.add(series)
        return chosen

    def _tell_surge(
        self, minute: _Minute, rule: SurgeRule, state: AlertState, found: Evidence, taken: ChangeKind | None
    ) -> IncidentChange | None:
        """The opening of an incident, or that it is louder than it was; None where there is nothing new to tell."""
        assert minute.readings is not None
        severity, was = rule.severity_of(found), state.incident
        louder = was is not None and severity.rank > was.severity.rank
        if taken is not ChangeKind.OPENED and not louder:
            return None
        series, display = state.series, self._display(state.series)
        stories = minute.readings.stories(series, found.window_ms, minute.at_ms)
        incident = Incident(
            incident_id=state.incident_id or "",
            rule=rule.name,
            kind=rule.kind,
            series=series,
            severity=severity,
            opened_at_ms=state.since_ms,
            summary=surge_summary(display, found, stories, duration_text(found.window_ms)),
            reading=minute.readings.reading(series, found.window_ms, minute.at_ms),
            display=display,
            sequence=1 if was is None else was.sequence + 1,
            evidence=surge_evidence(rule, found, minute.at_ms, stories),
        )
        kind = ChangeKind.ESCALATED if louder else ChangeKind.OPENED
        return IncidentChange(kind, incident.sequence, minute.at_ms, self._with_texts(rule, incident), incident.reading)

    def _let_rest(self, minute: _Minute, rule: EventRule, state: AlertState) -> None:
        """Ends an incident of events that nobody has told of for long enough."""
        blind = minute.readings is None
        taken = step(rule, state.series, state, Condition.OVER, minute.at_ms, blind=blind)
        if taken.change is ChangeKind.RESOLVED:
            minute.changes.append(self._resolve(state, minute.at_ms, ResolveReason.CLEARED, None))
        if taken.state != state:
            minute.states[rule.name, state.series] = taken.state

    def _dismiss(self, minute: _Minute, states: States) -> None:
        """Forgets what no rule watches any more, and resolves what of it is firing."""
        rules = {rule.name: rule for rule in self.rules}
        for (name, series), state in sorted(states.items(), key=lambda item: item[0]):
            if name in rules and self._watches(rules[name], series):
                continue
            minute.states[name, series] = None
            if state.phase is Phase.FIRING:
                minute.changes.append(self._resolve(state, minute.at_ms, ResolveReason.RULE_REMOVED, None))

    def _open(self, rule: ThresholdRule, state: AlertState, reading: Reading, sources: int) -> Incident:
        display = self._display(state.series)
        texts = self._templates[rule.name].render(Opening(state.series, display, reading, sources, state.since_ms))
        return Incident(
            incident_id=state.incident_id or "",
            rule=rule.name,
            kind=rule.kind,
            series=state.series,
            severity=rule.severity,
            opened_at_ms=state.since_ms,
            summary=texts.summary,
            labels=texts.labels,
            annotations=texts.annotations,
            reading=reading,
            display=display,
        )

    def _with_texts(self, rule: Rule, incident: Incident) -> Incident:
        texts = self._templates[rule.name].render_incident(incident)
        return replace(incident, summary=texts.summary, labels=texts.labels, annotations=texts.annotations)

    def _resolve(self, state: AlertState, at_ms: int, reason: ResolveReason, reading: Reading | None) -> IncidentChange:
        was = state.incident or self._rebuild(state)
        display = was.display or self._display(state.series)
        sequence = was.sequence + 1
        incident = replace(was, resolved_at_ms=at_ms, resolve_reason=reason, display=display, sequence=sequence)
        return IncidentChange(ChangeKind.RESOLVED, sequence, at_ms, incident, reading)

    def _rebuild(self, state: AlertState) -> Incident:
        """What can still be said of an incident whose opening was not kept with its state."""
        templates = self._templates.get(state.rule)
        display = self._display(state.series)
        return Incident(
            incident_id=state.incident_id or "",
            rule=state.rule,
            series=state.series,
            severity=Severity.WARNING if templates is None else templates.rule.severity,
            opened_at_ms=state.since_ms,
            summary=f"{display}: {state.rule}",
            labels={} if templates is None else templates.render_labels(state.series, display),
            display=display,
        )

    def _display(self, series: Series) -> str:
        if series.kind is SeriesKind.ENTITY:
            return self._entity_names.get(series.name, series.name)
        return series.name or "All news"


def count_windows(looked_at: Sequence[Series], readings: Readings, at_ms: int, roster: Roster) -> Counted:
    """What the windows of some series of the roster hold."""
    windows = [[readings.reading(series, window_ms, at_ms).count.stories for window_ms in WINDOWS_MS] for series in looked_at]
    tones = np.array(windows, dtype=np.int64)
    rows = np.array([roster.rows[series] for series in looked_at], dtype=np.intp)
    return Counted(rows, tones.sum(axis=2), tones[:, :, 0])


def _take_step(minute: _Minute, rule: ThresholdRule, series: Series, state: AlertState | None) -> tuple[Reading | None, Step]:
    readings, at_ms = minute.readings, minute.at_ms
    if readings is None:
        return None, step(rule, series, state, Condition.LINGERS, at_ms, blind=True)
    reading = readings.reading(series, rule.window_ms, at_ms)
    firing = state is not None and state.phase is Phase.FIRING
    condition = weigh(rule, reading, lambda: readings.sources(series, rule.window_ms, at_ms), firing=firing)
    return reading, step(rule, series, state, condition, at_ms, blind=False)


def _opens_empty(rule: ThresholdRule) -> bool:
    """Whether a window without stories satisfies the rule: few stories are what it looks for."""
    value = Reading(ALL_SERIES, 0, rule.window_ms, Count()).value(rule.metric)
    if value is None or rule.minimum_stories or rule.minimum_sources:
        return False
    return rule.comparison.holds(value, rule.level)
