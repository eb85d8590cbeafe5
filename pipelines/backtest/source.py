"""Records that are all there already in, a `Source` out: a log of one partition that the daemon's own loop reads to its end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Final

from monitor.sources.protocol import Assignment, Polled
from monitor.types import Partition, Record

_RECORDS_A_POLL: Final = 2_000


class PastSource:
    """The records of one partition, read once from their beginning: it cannot be sought back into."""

    def __init__(self, partition: Partition, records: Iterator[Record]) -> None:
        self._partition = partition
        self._records = records
        self._position = 0
        self._exhausted = False
        self._paused = False

    @property
    def exhausted(self) -> bool:
        """Whether every record was handed over."""
        return self._exhausted

    @property
    def read(self) -> int:
        """Where the last record that was handed over ended."""
        return self._position

    def poll(self, wait_s: float) -> Polled:  # noqa: ARG002 (nothing is ever waited for)
        """The next records; none at the end."""
        if self._paused:
            return Polled()
        records = tuple(islice(self._records, _RECORDS_A_POLL))
        self._exhausted = not records
        if records:
            self._position = records[-1].next_offset
        return Polled(records)

    def assignment(self) -> Assignment:
        """The one partition."""
        return Assignment(1, self.partitions())

    def partitions(self) -> frozenset[Partition]:
        """The one partition."""
        return frozenset({self._partition})

    def identity(self, partition: Partition) -> str:  # noqa: ARG002 (there is one)
        """Nothing tells it from another."""
        return ""

    def seek(self, partition: Partition, offset: int | None, identity: str) -> None:
        """Begins at the beginning, where it is already: the store of a backtest is new."""

    def positions(self) -> Mapping[Partition, int]:
        """Where the last record that was polled ended."""
        return {self._partition: self._position}

    def end_offsets(self) -> Mapping[Partition, int]:
        """As `positions` at the end; before it, behind that, since nobody has counted what is left."""
        return {self._partition: self._position + (not self._exhausted)}

    def hint(self, positions: Mapping[Partition, int]) -> None:
        """Nobody asks for the lag."""

    def pause(self) -> None:
        """Polls bring nothing until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Undoes `pause`."""
        self._paused = False

    def close(self) -> None:
        """Nothing is held."""
