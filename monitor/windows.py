"""Minute buckets in, readings of windows out: running totals per series, so that a long window costs what a short one does."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from monitor.types import Bucket, Count, Reading, Series, SeriesKind, StoryView

_COLUMNS: Final = 9
_FIRST_ROWS: Final = 8
_SWEEPS_A_CAPACITY: Final = 8


class Witnesses(Protocol):
    """Where the documents behind a count are looked up."""

    def sources(self, series: Series, window_ms: int, until_ms: int) -> int:
        """Distinct sources of the documents (stories and copies) that [until_ms - window_ms, until_ms) counts."""

    def story_views(self, series: Series, window_ms: int, until_ms: int) -> list[StoryView]:
        """The stories of these documents: negative ones first, then those with most documents, the earliest."""


class Windows:
    """The `Readings` of rules, from minute counts in memory.

    Counts may come in any order and may lie ahead of the moment that is read. What `forget_before` has passed is gone: it is
    neither taken nor read. `capacity_ms` is the longest window that may be asked for.
    """

    def __init__(self, capacity_ms: int, witnesses: Witnesses) -> None:
        self._capacity_ms = capacity_ms
        self._witnesses = witnesses
        self._totals: dict[SeriesKind, dict[Series, _Totals]] = {kind: {} for kind in SeriesKind}
        self._minutes: list[int] = []
        self._from_ms: int | None = None
        self._swept_ms: int | None = None

    def add(self, buckets: Iterable[Bucket]) -> None:
        """Counts these buckets, in addition to what their minutes hold already."""
        for bucket in buckets:
            if self._from_ms is None or bucket.minute_ms >= self._from_ms:
                self._add(bucket)

    def reading(self, series: Series, window_ms: int, until_ms: int) -> Reading:
        """The count of `series` in [until_ms - window_ms, until_ms).

        Raises ValueError if the window is longer than the capacity.
        """
        from_ms = self._beginning(window_ms, until_ms)
        totals = self._totals[series.kind].get(series)
        count = Count() if totals is None else totals.between(from_ms, until_ms)
        return Reading(series, until_ms - window_ms, until_ms, count)

    def counted(self, kind: SeriesKind, window_ms: int, until_ms: int) -> list[Series]:
        """The series of one kind with a story or a copy in the window, sorted. Raises ValueError as `reading` does."""
        from_ms = self._beginning(window_ms, until_ms)
        return sorted(series for series, totals in self._totals[kind].items() if totals.any(from_ms, until_ms))

    def sources(self, series: Series, window_ms: int, until_ms: int) -> int:
        """Distinct sources of the documents that the window counts, asked of the store."""
        return self._witnesses.sources(series, window_ms, until_ms)

    def stories(self, series: Series, window_ms: int, until_ms: int) -> list[StoryView]:
        """The stories of the documents that the window counts, asked of the store."""
        return self._witnesses.story_views(series, window_ms, until_ms)

    def next_counted_minute(self, after_ms: int) -> int | None:
        """The first minute that begins after `after_ms` and counts anything; None if there is none."""
        position = bisect_right(self._minutes, after_ms)
        return self._minutes[position] if position < len(self._minutes) else None

    def forget_before(self, time_ms: int) -> None:
        """Minutes that begin before this moment are no longer needed."""
        if self._from_ms is None or time_ms > self._from_ms:
            self._from_ms = time_ms
        if self._swept_ms is None or self._from_ms - self._swept_ms >= self._capacity_ms // _SWEEPS_A_CAPACITY:
            self._sweep(self._from_ms)

    def clear(self) -> None:
        """Forgets everything, as if nothing had ever been counted."""
        self._totals = {kind: {} for kind in SeriesKind}
        self._minutes = []
        self._from_ms = self._swept_ms = None

    def _beginning(self, window_ms: int, until_ms: int) -> int:
        if window_ms > self._capacity_ms:
            raise ValueError(f"a window of {window_ms} ms is longer than the {self._capacity_ms} ms that are kept")
        from_ms = until_ms - window_ms
        return from_ms if self._from_ms is None else max(from_ms, self._from_ms)

    def _add(self, bucket: Bucket) -> None:
        totals = self._totals[bucket.series.kind].get(bucket.series)
        if totals is None:
            totals = self._totals[bucket.series.kind][bucket.series] = _Totals()
        totals.add(bucket.minute_ms, bucket.count)
        position = bisect_left(self._minutes, bucket.minute_ms)
        if position == len(self._minutes) or self._minutes[position] != bucket.minute_ms:
            self._minutes.insert(position, bucket.minute_ms)

    def _sweep(self, time_ms: int) -> None:
        self._swept_ms = time_ms
        del self._minutes[: bisect_left(self._minutes, time_ms)]
        for of_kind in self._totals.values():
            for series in [series for series, totals in of_kind.items() if not totals.keep_from(time_ms)]:
                del of_kind[series]


class _Totals:
    """One series: the minutes that count anything, and the running totals before and after each of them."""

    __slots__ = ("_minutes", "_rows")

    def __init__(self) -> None:
        self._minutes: list[int] = []
        self._rows: NDArray[np.int64] = np.zeros((_FIRST_ROWS, _COLUMNS), dtype=np.int64)

    def add(self, minute_ms: int, count: Count) -> None:
        position = bisect_left(self._minutes, minute_ms)
        if position == len(self._minutes) or self._minutes[position] != minute_ms:
            self._insert(position, minute_ms)
        self._rows[position + 1 : len(self._minutes) + 1] += (*count.stories, *count.copies, count.score_units)

    def between(self, from_ms: int, until_ms: int) -> Count:
        first, last = bisect_left(self._minutes, from_ms), bisect_left(self._minutes, until_ms)
        if first >= last:
            return Count()
        a, b, c, d, e, f, g, h, score_units = (self._rows[last] - self._rows[first]).tolist()
        return Count((a, b, c, d), (e, f, g, h), score_units)

    def any(self, from_ms: int, until_ms: int) -> bool:
        position = bisect_left(self._minutes, from_ms)
        return position < len(self._minutes) and self._minutes[position] < until_ms

    def keep_from(self, time_ms: int) -> bool:
        """Drops what is before; whether anything is left."""
        gone = bisect_left(self._minutes, time_ms)
        del self._minutes[:gone]
        if gone:
            self._rows = self._rows[gone : gone + len(self._minutes) + 1].copy()
        return bool(self._minutes)

    def _insert(self, position: int, minute_ms: int) -> None:
        used = len(self._minutes) + 1
        if used == len(self._rows):
            self._rows = np.concatenate((self._rows, np.zeros_like(self._rows)))
        self._rows[position + 1 : used + 1] = self._rows[position:used].copy()
        self._minutes.insert(position, minute_ms)
