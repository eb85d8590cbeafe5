"""Stream time in, incidents out: every minute that the watermark has passed is judged once, and saved with what was decided.

Reports of severe events are heard between the minutes, each as soon as it is placed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from alerts.baseline import Baseline
from alerts.channels.protocol import Receiver
from alerts.judge import Judge
from alerts.outbox import plan
from alerts.types import AlertState, Evaluation, Incident, RuleKind
from monitor.metrics import Metrics
from monitor.normal import Normal, Span
from monitor.store.incidents import Incidents
from monitor.store.lease import Lease
from monitor.types import ALL_SERIES, DAY_MS, MINUTE_MS, Bucket, Report, Series
from monitor.windows import Windows

log = structlog.get_logger(__name__)

SURGES_REACH_MS: Final = 40 * DAY_MS
"""Surges that ended longer ago are of no use to any baseline."""

_MOST_IN_A_TRANSACTION: Final = 1_440
"""So many minutes, and so many decisions, are saved together."""


@dataclass(slots=True)
class Judging:
    """Judges minute after minute of stream time.

    `reach_ms` is the longest window that a rule reads; `blind_after_ms` how long without a counted document makes the feed blind.
    `announce` is called after deliveries were saved.
    """

    judge: Judge
    incidents: Incidents
    lease: Lease
    windows: Windows
    receivers: Sequence[Receiver]
    reach_ms: int
    blind_after_ms: int
    metrics: Metrics
    wall_ms: Callable[[], int]
    announce: Callable[[], None]
    normal: Normal | None = None
    """What is normal of each series; only rules that look for surges need it."""
    evaluated_until_ms: int | None = None
    states: dict[tuple[str, Series], AlertState] = field(default_factory=dict)
    surges: dict[Series, dict[str, Span]] = field(default_factory=dict)
    """When each series surged, by incident."""
    blind: bool = False

    def restore(self) -> None:
        """Reads how far time was judged and how the rules stood then. Raises StoreUnavailable."""
        self.evaluated_until_ms = self.incidents.evaluated_until_ms()
        self.states = self.incidents.states()
        self.surges = {}
        if self.normal is not None:
            for one in self.incidents.incidents(RuleKind.SURGE, since_ms=(self.evaluated_until_ms or 0) - SURGES_REACH_MS):
                self._remember_surge(one)

    def learn(self, buckets: Iterable[Bucket]) -> None:
        """Adds counts, of minutes or of whole hours, to what is normal; rules that look for no surges ask for none."""
        if self.normal is not None:
            self.normal.add(buckets)

    def clear(self) -> None:
        """Forgets what was restored, learned and judged since."""
        if self.normal is not None:
            self.normal.clear()
        self.evaluated_until_ms, self.states, self.surges, self.blind = None, {}, {}, False

    def advance(self, watermark_ms: int, *, reports: bool = True) -> int:
        """Judges every whole minute up to `watermark_ms` that was not judged yet; how many.

        Where there are `reports` that no rule has heard of, each is heard before the first minute that ends after it, and none
        waits for its own minute to end. Raises Deposed when another instance leads, and StoreUnavailable: then `restore` says how
        much of it was saved.
        """
        until_ms = watermark_ms - watermark_ms % MINUTE_MS
        if self.evaluated_until_ms is None:
            first_ms = self.windows.next_counted_minute(-1)
            self.evaluated_until_ms = until_ms if first_ms is None else min(first_ms, until_ms)
        unheard = deque(self.incidents.unheard()) if reports else deque()
        judged = 0
        while self.evaluated_until_ms < until_ms or unheard:
            judged += self._judge_some(self.evaluated_until_ms, until_ms, unheard)
        return judged

    def _judge_some(self, from_ms: int, until_ms: int, unheard: deque[tuple[int, Report]]) -> int:
        """Judges a bounded number of minutes after `from_ms`, and hears the reports among them, in one transaction; how many."""
        states = dict(self.states)
        evaluations: list[Evaluation] = []
        at_ms, judged, heard = from_ms, 0, None
        while len(evaluations) < _MOST_IN_A_TRANSACTION and judged < _MOST_IN_A_TRANSACTION:
            next_ms = self._next_minute(at_ms, until_ms, quiet=not states) if at_ms < until_ms else None
            if unheard and (next_ms is None or unheard[0][1].at_ms < next_ms):
                heard, report = unheard.popleft()
                if not states:
                    # Nothing could happen in the minutes before, and they must not follow the report.
                    at_ms = max(at_ms, min(report.at_ms - report.at_ms % MINUTE_MS, until_ms))
                evaluation = self.judge.hear(report, states)
            elif next_ms is not None:
                at_ms, judged = next_ms, judged + 1
                evaluation = self._evaluate(at_ms, states)
            else:
                break
            self._accept(evaluation, states)
            if evaluation.states or evaluation.changes:
                evaluations.append(evaluation)
        changes = [change for evaluation in evaluations for change in evaluation.changes]
        deliveries = plan(changes, self.receivers, self.judge.rules, self.wall_ms())
        self.incidents.save(evaluations, deliveries, at_ms, self.lease, heard)
        self.evaluated_until_ms, self.states = at_ms, states
        self.metrics.evaluations.inc(judged)
        for change in changes:
            now = change.incident
            self.metrics.incidents.labels(now.rule, change.kind).inc()
            log.info(
                "incident.changed",
                change=str(change.kind),
                incident=now.incident_id,
                rule=now.rule,
                series=str(now.series),
                stream_ms=change.at_ms,
            )
        if deliveries:
            self.announce()
        return judged

    def _evaluate(self, at_ms: int, states: Mapping[tuple[str, Series], AlertState]) -> Evaluation:
        self.blind = self._is_blind(at_ms)
        return self.judge.evaluate(at_ms, self.windows, states, blind=self.blind, baseline=partial(self._baseline, at_ms))

    def _baseline(self, at_ms: int) -> Baseline:
        assert self.normal is not None, "rules that look for surges were given no history"
        return self.normal.baseline(at_ms, self.surges)

    def _accept(self, evaluation: Evaluation, states: dict[tuple[str, Series], AlertState]) -> None:
        for key, state in evaluation.states.items():
            if state is None:
                states.pop(key, None)
            else:
                states[key] = state
        for change in evaluation.changes:
            self._remember_surge(change.incident)

    def _remember_surge(self, incident: Incident) -> None:
        if incident.kind is RuleKind.SURGE:
            spans = self.surges.setdefault(incident.series, {})
            spans[incident.incident_id] = incident.opened_at_ms, incident.resolved_at_ms

    def _next_minute(self, at_ms: int, until_ms: int, *, quiet: bool) -> int:
        """The minute to judge after `at_ms`: the very next, unless nothing is pending or firing and no window holds a document.

        Then nothing can happen before the next counted document, however many years that is away.
        """
        if quiet:
            counted_ms = self.windows.next_counted_minute(at_ms - self.reach_ms)
            if counted_ms is None:
                return until_ms
            return min(max(at_ms, counted_ms) + MINUTE_MS, until_ms)
        return at_ms + MINUTE_MS

    def _is_blind(self, at_ms: int) -> bool:
        return self.windows.reading(ALL_SERIES, self.blind_after_ms, at_ms).documents == 0
