"""Keys of stories in, the stories that share keys with a text out: a compact memory of what the store holds in full."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from monitor.fingerprints import Words, numbers

_MERGE_FACTOR: Final = 4
_FORGOTTEN_SHARE: Final = 8

_Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Match:
    """A story that shares `keys` keys with a text."""

    story_id: int
    first_received_ms: int
    keys: int


@dataclass(frozen=True, slots=True)
class Found:
    """What the index knows about one text: the stories near in time that share keys with it, and for each key how many have it."""

    matches: list[Match]
    crowds: list[int]


@dataclass(frozen=True, slots=True)
class _Run:
    """Keys in rising order, and beside each the row of its story."""

    keys: Words
    rows: NDArray[np.int32]

    def find(self, wanted: Words) -> tuple[_Numbers, _Numbers]:
        """(position in `wanted`, row) for every equal key; `wanted` is rising."""
        lows = np.searchsorted(self.keys, wanted)
        hits = np.flatnonzero(self.keys[np.minimum(lows, len(self.keys) - 1)] == wanted)
        lengths = np.searchsorted(self.keys, wanted[hits], side="right") - lows[hits]
        ends = np.cumsum(lengths)
        within = np.arange(ends[-1] if len(ends) else 0) - np.repeat(ends - lengths, lengths)
        return np.repeat(hits, lengths), self.rows[np.repeat(lows[hits], lengths) + within].astype(np.int64)


class StoryIndex:
    """Which stories share keys with a text: sorted runs of keys, merged as they grow, about 0.5 kB a story."""

    def __init__(self) -> None:
        self._known: set[int] = set()
        self._ids = np.empty(0, dtype=np.int64)
        self._firsts = np.empty(0, dtype=np.int64)
        self._size = 0
        self._runs: list[_Run] = []

    def __len__(self) -> int:
        return self._size

    @property
    def memory_bytes(self) -> int:
        """Bytes held by the arrays, without the set of ids."""
        return self._ids.nbytes + self._firsts.nbytes + sum(run.keys.nbytes + run.rows.nbytes for run in self._runs)

    def add(self, stories: Iterable[tuple[int, int, bytes]]) -> None:
        """Takes up (story id, first received, keys); a story that is known already is left as it is."""
        keys, rows = [], []
        for story_id, first_received_ms, packed in stories:
            if story_id not in self._known:
                row = self._append(story_id, first_received_ms)
                own = numbers(packed)
                keys.append(own)
                rows.append(np.full(len(own), row, dtype=np.int32))
        if keys:
            self._runs.append(_sorted(np.concatenate(keys), np.concatenate(rows)))
            self._merge()

    def find(self, packed_keys: Sequence[bytes], times_ms: Sequence[int], window_ms: int) -> list[Found]:
        """For each text's keys what is known of stories that began less than `window_ms` before or after the text's time.

        The matches are in no particular order.
        """
        parts = [numbers(packed) for packed in packed_keys]
        if not parts or not self._runs:
            return [Found([], [0] * len(part)) for part in parts]
        owners = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        positions, rows = self._equal(np.concatenate(parts))
        near = np.abs(self._firsts[rows] - np.asarray(times_ms, dtype=np.int64)[owners[positions]]) < window_ms
        positions, rows = positions[near], rows[near]
        crowds = iter(np.bincount(positions, minlength=len(owners)).tolist())
        found = [Found([], [next(crowds) for _ in part]) for part in parts]
        pairs, shared = np.unique(owners[positions] * self._size + rows, return_counts=True)
        ids, firsts = self._ids[pairs % self._size].tolist(), self._firsts[pairs % self._size].tolist()
        for text, story_id, first_ms, keys in zip((pairs // self._size).tolist(), ids, firsts, shared.tolist(), strict=True):
            found[text].matches.append(Match(story_id, first_ms, keys))
        return found

    def forget_before(self, time_ms: int) -> None:
        """Stories that began before this moment are no longer needed; they go once they are an eighth of all."""
        kept = self._firsts[: self._size] >= time_ms
        gone = self._size - int(np.count_nonzero(kept))
        if gone == 0 or gone * _FORGOTTEN_SHARE < self._size:
            return
        new_rows = (np.cumsum(kept) - 1).astype(np.int32)
        self._ids, self._firsts = self._ids[: self._size][kept], self._firsts[: self._size][kept]
        self._size = len(self._ids)
        self._known = set(self._ids.tolist())
        runs = [(run, kept[run.rows]) for run in self._runs]
        self._runs = [_Run(run.keys[mask], new_rows[run.rows[mask]]) for run, mask in runs if mask.any()]

    def _append(self, story_id: int, first_received_ms: int) -> int:
        if self._size == len(self._ids):
            room = np.zeros(max(1_024, self._size // 2), dtype=np.int64)
            self._ids, self._firsts = np.concatenate((self._ids, room)), np.concatenate((self._firsts, room))
        row = self._size
        self._ids[row], self._firsts[row] = story_id, first_received_ms
        self._known.add(story_id)
        self._size += 1
        return row

    def _merge(self) -> None:
        while len(self._runs) > 1 and len(self._runs[-2].keys) < _MERGE_FACTOR * len(self._runs[-1].keys):
            last, previous = self._runs.pop(), self._runs.pop()
            self._runs.append(_sorted(np.concatenate((previous.keys, last.keys)), np.concatenate((previous.rows, last.rows))))

    def _equal(self, wanted: Words) -> tuple[_Numbers, _Numbers]:
        """(position in `wanted`, row) for every equal key of every run."""
        order = np.argsort(wanted, kind="stable")  # neighbouring searches touch the same memory
        found = [run.find(wanted[order]) for run in self._runs]
        return order[np.concatenate([positions for positions, _ in found])], np.concatenate([rows for _, rows in found])


def _sorted(keys: Words, rows: NDArray[np.int32]) -> _Run:
    order = np.argsort(keys, kind="stable")
    return _Run(keys[order], rows[order])
