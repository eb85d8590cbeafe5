"""Record times per partition in, stream time out: the moment that every partition still talking has passed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from monitor.types import Partition

_CONFIRM_AGAIN_S: Final = 1.0


@dataclass(slots=True)
class _Progress:
    """How far one partition is.

    `time_ms` is the newest record time and `reached_s` when it was first seen here (None: it was restored). `quiet_since_s` is
    when the last record came, or when the log first confirmed that there is none. `confirmed_s` is the last such confirmation.
    """

    time_ms: int | None
    reached_s: float | None = None
    quiet_since_s: float | None = None
    confirmed_s: float | None = None

    def idle(self, idle_after_s: float) -> bool:
        if self.confirmed_s is None or self.quiet_since_s is None:
            return False
        return self.confirmed_s - self.quiet_since_s >= idle_after_s

    @property
    def anchor_s(self) -> float | None:
        return self.quiet_since_s if self.reached_s is None else self.reached_s


class Watermark:
    """Stream time: the minimum over the partitions still talking of their newest record time. It never goes back.

    A partition stops counting once the log has confirmed, `idle_after_s` after its last record, that we are at its end. Without
    that confirmation it holds the mark: a backlog is not silence. When all are quiet, time goes on from the newest record with the
    monotonic clock, as far as every partition was confirmed and `idle_after_s` behind.

    `now_s` is monotonic seconds everywhere; `floor_ms` is the mark saved by an earlier process.
    """

    def __init__(self, idle_after_s: float, floor_ms: int | None = None) -> None:
        self._idle_after_s = idle_after_s
        self._mark_ms = floor_ms
        self._progress: dict[Partition, _Progress] = {}

    def assign(self, partitions: Mapping[Partition, int | None]) -> None:
        """These partitions are ours from now on, with their saved stream times (None: nothing saved).

        Whatever was confirmed before is void: another instance may have read on.
        """
        self._progress = {partition: _Progress(time_ms) for partition, time_ms in partitions.items()}
        self._raise()

    def observe(self, partition: Partition, time_ms: int, now_s: float) -> None:
        """A record of this time was saved. Nothing happens if the partition is not ours."""
        progress = self._progress.get(partition)
        if progress is None:
            return
        if progress.time_ms is None or time_ms > progress.time_ms:
            progress.time_ms, progress.reached_s = time_ms, now_s
        progress.quiet_since_s, progress.confirmed_s = now_s, None
        self._raise()

    def confirm_end(self, partition: Partition, now_s: float) -> None:
        """The log itself said that everything in this partition is saved. Nothing happens if the partition is not ours."""
        progress = self._progress.get(partition)
        if progress is None:
            return
        if progress.quiet_since_s is None:
            progress.quiet_since_s = now_s
        progress.confirmed_s = now_s
        self._raise()

    def quiet_candidates(self, now_s: float) -> frozenset[Partition]:
        """The partitions whose end is worth asking for: an answer would let the mark move.

        Those without a record for `idle_after_s` (or since they were assigned) that are not confirmed; and when all are, every one
        of them again after a second, because silence counts only as far as it is confirmed.
        """
        idle = {partition for partition, progress in self._progress.items() if progress.idle(self._idle_after_s)}
        all_idle = len(idle) == len(self._progress)
        return frozenset(
            partition
            for partition, progress in self._progress.items()
            if (all_idle and _age_s(progress.confirmed_s, now_s) >= _CONFIRM_AGAIN_S)
            or (partition not in idle and _age_s(progress.quiet_since_s, now_s) >= self._idle_after_s)
        )

    def value_ms(self) -> int | None:
        """Stream time: nothing before it is awaited any more. None while it is unknown."""
        return self._mark_ms

    def is_late(self, time_ms: int) -> bool:
        """Whether a record of this time comes after the mark has passed it."""
        return self._mark_ms is not None and time_ms < self._mark_ms

    def _raise(self) -> None:
        talking = [progress for progress in self._progress.values() if not progress.idle(self._idle_after_s)]
        reached_ms = _slowest_ms(talking) if talking else self._silent_ms()
        if reached_ms is not None:
            self._mark_ms = reached_ms if self._mark_ms is None else max(self._mark_ms, reached_ms)

    def _silent_ms(self) -> int | None:
        """Where time stands when every partition is quiet."""
        confirmed_s = min((_known(progress.confirmed_s) for progress in self._progress.values()), default=None)
        times = [
            (progress.time_ms, -_known(progress.anchor_s)) for progress in self._progress.values() if progress.time_ms is not None
        ]
        if confirmed_s is None or not times:
            return None
        newest_ms, negative_anchor_s = max(times)
        return newest_ms + max(0, int((confirmed_s + negative_anchor_s - self._idle_after_s) * 1_000))


def _slowest_ms(talking: Iterable[_Progress]) -> int | None:
    times = [progress.time_ms for progress in talking]
    known = [time_ms for time_ms in times if time_ms is not None]
    return min(known) if len(known) == len(times) else None


def _age_s(since_s: float | None, now_s: float) -> float:
    return float("inf") if since_s is None else now_s - since_s


def _known(value: float | None) -> float:
    assert value is not None  # an idle partition was confirmed
    return value
