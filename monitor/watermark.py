"""How far each partition is in, the place in stream order before which nothing is awaited any more out.

Two halves, because partitions belong to different instances and one of them leads. Each owner watches the silence of its partitions
(`Silence`) and reports it beside what it saves. The leader reads all reports and knows the mark (`mark`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from monitor.types import Partition, Turn

_CONFIRM_AGAIN_S: Final = 1.0
_IN_FLIGHT_MS: Final = 2_000
"""A record may take so long from its own time to its place in the log."""
_TRUST_MS: Final = 5_000
"""A report of silence that is so much older than the newest report is no longer believed: its owner may be gone."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """What an owner reports of a partition.

    `quiet_ms` is how long the log had held nothing more when it was last asked; 0 where there is more, or nobody knows. No record
    from before `complete_ms` is awaited then; None: nobody knows.
    """

    quiet_ms: int = 0
    complete_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition is: the stream time of its newest saved record (None before the first) and the offset behind it, what its
    owner reports, and when by the database's clock.
    """

    time_ms: int | None
    next_offset: int
    quiet: Quiet
    reported_at_ms: int


@dataclass(slots=True)
class _Watched:
    """One partition: `quiet_since_s` is when the last record came, or when the log first confirmed that there is none."""

    quiet_since_s: float | None = None
    confirmed_s: float | None = None
    complete_ms: int | None = None


class Silence:
    """Which of the partitions that are ours are silent. Without the log's word a partition is not: a backlog is no silence.

    `now_s` is monotonic seconds everywhere.
    """

    def __init__(self, idle_after_s: float) -> None:
        self._idle_after_s = idle_after_s
        self._watched: dict[Partition, _Watched] = {}

    def assign(self, partitions: Iterable[Partition]) -> None:
        """These partitions are ours from now on. What was confirmed before is void: another instance may have read on."""
        self._watched = {partition: _Watched() for partition in partitions}

    def observe(self, partition: Partition, now_s: float) -> None:
        """A record was saved. Nothing happens if the partition is not ours."""
        if partition in self._watched:
            self._watched[partition] = _Watched(quiet_since_s=now_s)

    def confirm_end(self, partition: Partition, now_s: float, newest_ms: int | None) -> None:
        """The log itself said that everything in this partition is saved; before it was asked, stream time had come to `newest_ms`.

        Nothing happens if the partition is not ours.
        """
        watched = self._watched.get(partition)
        if watched is None:
            return
        if watched.quiet_since_s is None:
            watched.quiet_since_s = now_s
        watched.confirmed_s = now_s
        watched.complete_ms = None if newest_ms is None else newest_ms - _IN_FLIGHT_MS

    def candidates(self, now_s: float) -> frozenset[Partition]:
        """The partitions whose end is worth asking for: without a record for `idle_after_s` or since they are ours, and not asked
        about within the last second.
        """
        return frozenset(
            partition
            for partition, watched in self._watched.items()
            if _age_s(watched.quiet_since_s, now_s) >= self._idle_after_s and _age_s(watched.confirmed_s, now_s) >= _CONFIRM_AGAIN_S
        )

    def reports(self) -> dict[Partition, Quiet]:
        """What is known of each partition."""
        return {
            partition: Quiet()
            if watched.confirmed_s is None or watched.quiet_since_s is None
            else Quiet(round((watched.confirmed_s - watched.quiet_since_s) * 1_000), watched.complete_ms)
            for partition, watched in self._watched.items()
        }


def mark(progress: Mapping[Partition, Progress], known: Collection[Partition], idle_after_ms: int) -> Turn | None:
    """Before which place in stream order everything is saved, of all `known` partitions; None while that is unknown.

    A partition that talks holds the mark at its newest record: the records behind that one come later in the order. One that has
    been silent for `idle_after_ms` holds it where the others were when the log was last asked. When all are silent, time goes on
    from the newest record as long as silence is confirmed, and `idle_after_ms` behind it.
    """
    if not known or not progress.keys() >= set(known):
        return None
    latest_ms = max(progress[partition].reported_at_ms for partition in known)
    bounds, newest = [], None
    silent = True
    for partition in known:
        found = progress[partition]
        idle = found.quiet.quiet_ms >= idle_after_ms and latest_ms - found.reported_at_ms <= _TRUST_MS
        silent = silent and idle
        if found.time_ms is not None:
            newest = max(newest or (found.time_ms, 0), (found.time_ms, found.quiet.quiet_ms))
        if not idle:
            if found.time_ms is None:
                return None
            bounds.append((found.time_ms, partition.topic, partition.number, found.next_offset))
        elif found.quiet.complete_ms is not None:
            bounds.append(_before(found.quiet.complete_ms))
    if silent:
        return None if newest is None else _before(newest[0] + max(1, newest[1] - idle_after_ms))
    return min(bounds)


def _before(time_ms: int) -> Turn:
    """The place before everything that was received at or after a time."""
    return time_ms, "", -1, -1


def _age_s(since_s: float | None, now_s: float) -> float:
    return float("inf") if since_s is None else now_s - since_s
