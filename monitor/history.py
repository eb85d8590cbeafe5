"""Minute buckets in, hourly counts of stories and negative stories per series out, over the weeks that baselines are taken from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.types import HOUR_MS, Bucket, Series

_STORIES, _NEGATIVE = 0, 1
_NOBODY: Final = 0
"""The row of every series that counts nothing: zeros, never written."""
_FIRST_ROWS: Final = 64
_SWEEP_AFTER_HOURS: Final = 24


class History:
    """Distinct stories, and distinct negative ones, of every series in each of the last `capacity_hours` hours.

    Counts may come in any order, late ones too: the same buckets give the same hours. A bucket may also hold a whole hour, which is
    how a restart adds up the table of buckets. Hours are kept up to the newest that counts anything; older ones fall out. Memory is
    two integers of four bytes per series and hour: 67 MB for 10,000 series and 35 days, and at most a quarter more.
    """

    def __init__(self, capacity_hours: int = 35 * 24) -> None:
        self._capacity = capacity_hours
        self.clear()

    def clear(self) -> None:
        """Forgets everything, as if nothing had ever been counted."""
        self._rows: dict[Series, int] = {}
        self._free: list[int] = []
        self._counts: NDArray[np.int32] = np.zeros((2, _FIRST_ROWS, self._capacity), dtype=np.int32)
        self._used = _NOBODY + 1
        self._from_hour: int | None = None
        self._forgotten_hour: int | None = None
        self._swept_hour: int | None = None

    def add(self, buckets: Iterable[Bucket]) -> None:
        """Counts these buckets, in addition to what their hours hold already."""
        for bucket in buckets:
            hour = bucket.minute_ms // HOUR_MS
            stories = bucket.count.stories
            if not any(stories) or (self._forgotten_hour is not None and hour < self._forgotten_hour):
                continue
            self._reach(hour)
            if self._from_hour is not None and hour >= self._from_hour:
                row, column = self._row(bucket.series), hour % self._capacity
                self._counts[_STORIES, row, column] += sum(stories)
                self._counts[_NEGATIVE, row, column] += stories[0]

    def hours(self, series: Sequence[Series], from_hour: int, until_hour: int) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """(stories, negative stories) of each of `series` in each hour of [from_hour, until_hour), as two arrays (series, hours).

        Hours are numbered from the epoch. What was never counted, or is no longer kept, is zero.
        """
        taken = np.zeros((2, len(series), max(until_hour - from_hour, 0)), dtype=np.int32)
        if self._from_hour is not None:
            first = max(from_hour, self._from_hour)
            last = min(until_hour, self._from_hour + self._capacity)
            rows = np.array([self._rows.get(one, _NOBODY) for one in series], dtype=np.intp)
            for begin, end in self._stretches(first, last):
                column = begin % self._capacity
                taken[:, :, begin - from_hour : end - from_hour] = self._counts[:, rows, column : column + end - begin]
        return taken[_STORIES], taken[_NEGATIVE]

    def forget_before(self, time_ms: int) -> None:
        """Hours that end at or before this moment are no longer needed: they are neither given nor taken."""
        hour = time_ms // HOUR_MS
        if self._forgotten_hour is None or hour > self._forgotten_hour:
            self._forgotten_hour = hour
            if self._from_hour is not None and hour > self._from_hour:
                self._drop_before(hour)

    def _stretches(self, first: int, last: int) -> list[tuple[int, int]]:
        """The parts of [first, last) that lie in one piece in the ring."""
        turn = first - first % self._capacity + self._capacity
        return [(begin, end) for begin, end in ((first, min(last, turn)), (max(first, turn), last)) if begin < end]

    def _reach(self, hour: int) -> None:
        """Makes room for an hour that is newer than all before."""
        if self._from_hour is None:
            self._from_hour = self._swept_hour = hour - self._capacity + 1
        elif hour >= self._from_hour + self._capacity:
            self._drop_before(hour - self._capacity + 1)

    def _drop_before(self, hour: int) -> None:
        assert self._from_hour is not None
        for begin, end in self._stretches(self._from_hour, min(hour, self._from_hour + self._capacity)):
            column = begin % self._capacity
            self._counts[:, : self._used, column : column + end - begin] = 0
        self._from_hour = hour
        if self._swept_hour is None or hour - self._swept_hour >= _SWEEP_AFTER_HOURS:
            self._sweep(hour)

    def _row(self, series: Series) -> int:
        row = self._rows.get(series)
        if row is None:
            row = self._rows[series] = self._free.pop() if self._free else self._next_row()
        return row

    def _next_row(self) -> int:
        if self._used == self._counts.shape[1]:
            more = np.zeros((2, max(_FIRST_ROWS, self._used // 4), self._capacity), dtype=np.int32)
            self._counts = np.concatenate((self._counts, more), axis=1)
        self._used += 1
        return self._used - 1

    def _sweep(self, hour: int) -> None:
        """Gives back the rows of series that count nothing any more."""
        self._swept_hour = hour
        empty = ~self._counts[_STORIES].any(axis=1)
        for series in [series for series, row in self._rows.items() if empty[row]]:
            self._free.append(self._rows.pop(series))
