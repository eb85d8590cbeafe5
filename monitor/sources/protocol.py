"""The contract of a log: records out, positions in; `tests/contracts/test_source.py` holds every source to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from monitor.types import Partition, Record


class InterruptionKind(StrEnum):
    """What broke the continuity of a log."""

    ROTATED = "rotated"
    TRUNCATED = "truncated"
    REPLACED = "replaced"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True)
class Interruption:
    """Reading goes on at `next_offset`, not at `expected_offset`: what lay between was rotated, cut off, replaced or expired.

    `ROTATED`: the old file was read to its end, nothing is lost. `TRUNCATED`, `REPLACED`, `EXPIRED`: something may be.
    It comes in `Polled` before the first record that follows it, and never with records of its partition from before it.
    """

    partition: Partition
    kind: InterruptionKind
    expected_offset: int
    next_offset: int


@dataclass(frozen=True, slots=True)
class Polled:
    """What one poll brought: first the interruptions, then the records, per partition in rising offset order."""

    records: tuple[Record, ...] = ()
    interruptions: tuple[Interruption, ...] = ()


@dataclass(frozen=True, slots=True)
class Assignment:
    """Which partitions are ours. A new `generation` means: every claim made before is void."""

    generation: int
    partitions: frozenset[Partition]


class Source(Protocol):
    """A log of records. One thread uses it; nothing here is safe to call from two."""

    def poll(self, wait_s: float) -> Polled:
        """New records of the assigned partitions, after at most about `wait_s` seconds; empty when there are none.

        While a consumer group forms, a source may wait longer than asked for. Raises `SourceUnavailable` when the log does not
        answer and the source must be closed and opened again; a short outage that the client rides out is an empty poll.
        """

    def assignment(self) -> Assignment:
        """The partitions that are ours now. Never blocks."""

    def partitions(self) -> frozenset[Partition]:
        """Every partition that the log has, ours or not, as far as it was last known. Never blocks."""

    @property
    def exhausted(self) -> bool:
        """Whether there will never be another record: a file that is read to its end and not followed. A log has no such end."""

    def identity(self, partition: Partition) -> str:
        """What tells this log from another under the same name (a topic's id, a file's beginning); "" where nothing does.

        It is saved with the position: a saved position means nothing in a log of another identity.
        """

    def seek(self, partition: Partition, offset: int | None, identity: str) -> None:
        """Goes on reading at `offset`, the position saved under `identity`; None: wherever the source is configured to begin.

        Records already fetched from elsewhere are dropped. If the log is another one by now, or no longer holds `offset`, the
        next poll says so with an `Interruption` and goes on at the earliest record that exists.
        """

    def positions(self) -> Mapping[Partition, int]:
        """Where the last record that was polled ended, or where reading was sought to; for each partition where that is known.

        Equal to `end_offsets` where no record is left to read. Never blocks.
        """

    def end_offsets(self) -> Mapping[Partition, int]:
        """Where the last record of each assigned partition ends now, asked of the log itself.

        What lies behind it and is no record (markers of a transaction, blank lines) is left out as soon as it was read over. Raises
        `SourceUnavailable` when the log does not answer.
        """

    def hint(self, positions: Mapping[Partition, int]) -> None:
        """Tells the log how far we are saved, for its lag tools. Best effort: never blocks for long, never raises."""

    def pause(self) -> None:
        """Polls bring nothing until `resume`; membership and positions stay."""

    def resume(self) -> None:
        """Undoes `pause`."""

    def close(self) -> None:
        """Leaves the group, frees everything. Safe to call twice."""
