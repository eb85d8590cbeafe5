"""Hourly counts and past surges to what is normal of each series, renewed every hour of stream time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from alerts.baseline import Baseline, Roster, estimate, first_hour
from monitor.history import History
from monitor.types import ALL_SERIES, HOUR_MS, Bucket, Series, SeriesKind

Span = tuple[int, int | None]
"""When a surge was firing: from, and until; None: it still is."""


@dataclass(slots=True)
class Normal:
    """Gives the baseline of any moment, and remembers the hour's.

    The same counts and surges give the same bits: whatever happened in the hour itself is looked at in the next.
    """

    roster: Roster
    history: History = field(default_factory=History)
    _hour: int | None = None
    _baseline: Baseline | None = None

    def add(self, buckets: Iterable[Bucket]) -> None:
        """Counts these buckets, of minutes or of whole hours."""
        self.history.add(buckets)

    def clear(self) -> None:
        """Forgets everything, as if nothing had ever been counted."""
        self.history.clear()
        self._hour = self._baseline = None

    def baseline(self, at_ms: int, surges: Mapping[Series, Mapping[str, Span]]) -> Baseline:
        """What is normal at `at_ms`: estimated at the beginning of its hour, without the times of past `surges` (by incident)."""
        hour = at_ms // HOUR_MS
        if self._baseline is None or self._hour != hour:
            until_ms = hour * HOUR_MS
            spans = {
                series: [
                    (begin, until_ms if end is None else min(end, until_ms)) for begin, end in known.values() if begin < until_ms
                ]
                for series, known in surges.items()
            }
            stories, negative = self.history.hours(self.roster.series, first_hour(until_ms), hour)
            self._baseline = estimate(self.roster, stories, negative, until_ms, spans)
            self._hour = hour
        return self._baseline


def watched(entities: Collection[str], topics: Collection[str]) -> Roster:
    """Every series that can be counted: everything, the topics by their labels, the watched entities by their ids."""
    of_topics = (Series(SeriesKind.TOPIC, topic) for topic in topics)
    return Roster([ALL_SERIES, *of_topics, *(Series(SeriesKind.ENTITY, entity) for entity in entities)])
