"""Positions and ends of the log in, the partitions that have records which do not come out."""

from __future__ import annotations

from dataclasses import dataclass

from monitor.types import Partition


@dataclass(frozen=True, slots=True)
class _Stuck:
    """Where a partition stands, and since when."""

    position: int
    since_s: float


class Starvation:
    """Notices a client that has silently stopped fetching: the log has more, it is asked again and again, and nothing comes.

    That takes `after_s` seconds and `after_polls` empty polls, so that a process that was itself busy is not taken for a starving
    one. kafka-python had several such faults (its issues 3106 and 3131).
    """

    def __init__(self, after_s: float = 60.0, after_polls: int = 20) -> None:
        self._after_s = after_s
        self._after_polls = after_polls
        self._polls = 0
        self._stuck: dict[Partition, _Stuck] = {}

    def polled(self, *, empty: bool) -> None:
        """A poll that could have brought records came back."""
        self._polls = self._polls + 1 if empty else 0

    def starves(self, partition: Partition, position: int, end: int, now_s: float) -> bool:
        """Whether the partition has had records behind `position` for too long; `now_s` is monotonic."""
        if position >= end:
            self._stuck.pop(partition, None)
            return False
        stuck = self._stuck.get(partition)
        if stuck is None or stuck.position != position:
            self._stuck[partition] = _Stuck(position, now_s)
            return False
        return now_s - stuck.since_s >= self._after_s and self._polls >= self._after_polls

    def forget(self) -> None:
        """The source is another one from now on."""
        self._polls = 0
        self._stuck.clear()
