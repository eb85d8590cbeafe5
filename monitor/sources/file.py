"""A JSONL file that is tailed, or standard input, in; the records of a one-partition log out."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Final

from monitor.config import FileSettings
from monitor.errors import SourceUnavailable
from monitor.sources.lines import Line, Lines
from monitor.sources.protocol import Assignment, Interruption, InterruptionKind, Polled
from monitor.sources.tail import LOOK_AGAIN_S, Feed, Pipe, TailedFile
from monitor.sources.times import document_time_ms, wall_clock_ms
from monitor.types import NO_TIME, Partition, Record

MAX_RECORDS: Final = 2_000
MAX_BYTES: Final = 4_194_304


class FileSource:
    """A `Source` over one file: offsets are byte positions, every complete line that is not blank is a record.

    A line without its end waits for it, unless the file ends for good (`follow` off, a closed pipe, a rotated file). The record
    of a line begins where the record before it ended, so blank lines belong to the record behind them. `identity` belongs to the
    records of the last poll. Two rotations between two polls hide the file in the middle.
    Raises SourceError when there is no such file and none is waited for, or when it cannot be read at all.
    """

    def __init__(
        self,
        settings: FileSettings,
        name: str = "file",
        *,
        standard_input: int = 0,
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._settings = settings
        self._partition = Partition(name, 0)
        self._assignment = Assignment(1, frozenset({self._partition}))
        self._clock_ms = clock_ms
        self._feed: Feed = (
            Pipe(standard_input)
            if settings.path == "-"
            else TailedFile(settings.path, start=settings.start, follow=settings.follow)
        )
        self._lines = Lines(0, settings.max_line_bytes)
        self._sought: tuple[int | None, str] | None = (None, "")
        self._broken: tuple[Interruption, ...] = ()
        self._ended = False
        self._paused = False
        self._closed = False

    @property
    def exhausted(self) -> bool:
        """Whether the file has ended for good and every record of it was handed over."""
        return self._ended and not self._lines.ready and self._sought is None

    def poll(self, wait_s: float) -> Polled:
        """At most `MAX_RECORDS` records and about `MAX_BYTES` of them; empty after `wait_s` seconds, or at once when the file ends.

        Raises SourceUnavailable when it cannot be read at present, SourceError when it never will be.
        """
        if self._closed:
            raise SourceUnavailable("the source is closed")
        deadline_s = time.monotonic() + wait_s
        ended_before = self.exhausted
        while True:
            polled = Polled() if self._paused else self._look()
            left_s = deadline_s - time.monotonic()
            if polled.records or polled.interruptions or left_s <= 0 or (self.exhausted and not ended_before):
                return polled
            self._wait(left_s)

    def assignment(self) -> Assignment:
        """The one partition, always ours."""
        return self._assignment

    def partitions(self) -> frozenset[Partition]:
        """The one partition."""
        return self._assignment.partitions

    def identity(self, partition: Partition) -> str:
        """The length and hash of the file's beginning; "" of a pipe, and of a file that nothing was read from."""
        del partition
        return self._feed.identity()

    def seek(self, partition: Partition, offset: int | None, identity: str) -> None:
        """Goes on at `offset` with the next poll.

        A pipe goes on where it is. Unread, it numbers its bytes from `offset` on; afterwards `EXPIRED` tells what is gone.
        """
        del partition
        if self._feed.spent:
            here = self._lines.taken_offset
            gone = offset is not None and offset != here
            self._broken = (Interruption(self._partition, InterruptionKind.EXPIRED, offset or 0, here),) if gone else ()
            return
        self._sought = (offset, identity)
        self._broken = ()
        self._ended = False

    def positions(self) -> Mapping[Partition, int]:
        """As `Source.positions`: the end of the last record handed over."""
        return {} if self._sought is not None else {self._partition: self._lines.taken_offset}

    def end_offsets(self) -> Mapping[Partition, int]:
        """The end of the file; where only blank lines or the beginning of a line are left, the end of the last record."""
        if not self._land():
            return {self._partition: (self._sought or (0, ""))[0] or 0}
        end = self._feed.end()
        unread = self._lines.ready or end > self._lines.fed_offset
        return {self._partition: max(end, self._lines.fed_offset) if unread else self._lines.taken_offset}

    def hint(self, positions: Mapping[Partition, int]) -> None:
        """A file keeps no positions."""

    def pause(self) -> None:
        """As `Source.pause`."""
        self._paused = True

    def resume(self) -> None:
        """As `Source.resume`."""
        self._paused = False

    def close(self) -> None:
        """As `Source.close`."""
        self._closed = True
        self._feed.close()

    def _wait(self, wait_s: float) -> None:
        if self._paused or self._ended:
            time.sleep(min(wait_s, LOOK_AGAIN_S))
        else:
            self._feed.wait(min(wait_s, LOOK_AGAIN_S))

    def _look(self) -> Polled:
        if not self._land():
            return Polled()
        if not self._ended:
            self._fill()
        now_ms = self._clock_ms()
        records = tuple(self._record(line, now_ms) for line in self._lines.take(MAX_RECORDS, MAX_BYTES))
        broken, self._broken = self._broken, ()
        return Polled(records, broken)

    def _land(self) -> bool:
        """Goes to the position last asked for; False while there is no file to go to."""
        if self._sought is None:
            return True
        offset, identity = self._sought
        landing = self._feed.go_to(offset, identity)
        if landing is None:
            return False
        self._sought = None
        self._lines = Lines(landing.offset, self._settings.max_line_bytes)
        if landing.broken is not None and offset is not None:
            self._broken = (Interruption(self._partition, landing.broken, offset, landing.offset),)
        return True

    def _fill(self) -> None:
        """Reads until there is a line, or nothing more to read at present."""
        while not self._lines.ready:
            read = self._feed.read()
            if isinstance(read, InterruptionKind):
                if read is InterruptionKind.ROTATED and self._lines.finish():
                    return
                self._break(read)
            elif read:
                self._lines.feed(read)
            else:
                self._ended = read is None
                if self._ended:
                    self._lines.finish()
                return

    def _break(self, kind: InterruptionKind) -> None:
        expected_offset = self._lines.taken_offset
        self._feed.restart(kind)
        self._lines = Lines(0, self._settings.max_line_bytes)
        self._broken = (*self._broken, Interruption(self._partition, kind, expected_offset, 0))

    def _record(self, line: Line, now_ms: int) -> Record:
        time_ms = now_ms
        if self._settings.timestamps == "document":
            named_ms = document_time_ms(line.content)
            time_ms = NO_TIME if named_ms is None else named_ms
        return Record(self._partition, line.offset, line.next_offset, time_ms, line.content)
