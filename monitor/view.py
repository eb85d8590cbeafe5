"""Windows and states in, one immutable picture out: what metrics and terminal show, taken by the loop between two batches."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from alerts.types import Phase
from monitor.judging import Judging
from monitor.metrics import View
from monitor.types import ALL_SERIES, MINUTE_MS, Series, SeriesKind
from monitor.windows import Windows

VIEW_WINDOW_MS: Final = 60 * MINUTE_MS


@dataclass(frozen=True, slots=True)
class Viewer:
    """Takes the picture of the last hour before the moment up to which rules were judged."""

    windows: Windows
    judging: Judging
    topics: tuple[str, ...]
    entities: tuple[str, ...]

    def view(self) -> View:
        """The picture now; every topic and every watched entity is in it, with zeros where nothing was written."""
        at_ms = self.judging.evaluated_until_ms
        if at_ms is None:
            return View()
        wanted = [
            ALL_SERIES,
            *(Series(SeriesKind.TOPIC, topic) for topic in self.topics),
            *(Series(SeriesKind.ENTITY, entity) for entity in self.entities),
        ]
        firing = Counter(
            (state.rule, state.incident.severity)
            for state in self.judging.states.values()
            if state.phase is Phase.FIRING and state.incident is not None
        )
        return View(
            at_ms=at_ms,
            readings=tuple(self.windows.reading(series, VIEW_WINDOW_MS, at_ms) for series in wanted),
            firing=dict(firing),
            blind=self.judging.blind,
            unknown=sum(state.unknown_since_ms is not None for state in self.judging.states.values()),
        )
