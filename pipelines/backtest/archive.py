"""Files of old news in, the records of one log out, in the order of their times, as a daemon would have read them."""

from __future__ import annotations

import csv
import heapq
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Final

import zstandard

from monitor.decode import parse_time_ms
from monitor.errors import PipelineError
from monitor.score import read_lines
from monitor.sources.times import document_time_ms
from monitor.types import NO_TIME, Partition, Record

ARCHIVE: Final = Partition("archive", 0)
MAX_LINE_BYTES: Final = 16_777_216
FORMATS: Final = (".tsv", ".csv", ".jsonl")

_PACKED: Final = ".zst"
_COLUMNS: Final = {
    "time": ("ts_utc", "received_at", "versioncreated"),
    "headline": ("title", "headline"),
    "body_text": ("description", "body_text"),
    "source": ("source",),
    "language": ("language",),
}
"""What a column of a table may be called, by what it is on the wire."""


@dataclass(slots=True)
class Bad:
    """Rows of one file that are none: how many for each reason, and the line of the first of each."""

    rows: Counter[str] = field(default_factory=Counter)
    first_line: dict[str, int] = field(default_factory=dict)

    def count(self, reason: str, line: int) -> None:
        """One more row of the file that cannot be read."""
        self.rows[reason] += 1
        self.first_line.setdefault(reason, line)


@dataclass(slots=True)
class ArchiveFile:
    """One file of news: what in it could not be read, and how many of its packed bytes were read so far."""

    path: Path
    source: str
    bad: Bad = field(default_factory=Bad)
    size_bytes: int = 0
    read_bytes: int = 0

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """(time in milliseconds or `NO_TIME`, wire record) of each row, in its order. Raises PipelineError."""
        with ExitStack() as stack:
            try:
                raw = stack.enter_context(self.path.open("rb"))
                stream = stack.enter_context(_unpacked(raw)) if self.path.suffix == _PACKED else raw
                for line in self._read(stream):
                    # A file that was read to its end is closed before its last rows are handed over.
                    self.read_bytes = self.size_bytes if raw.closed else raw.tell()
                    yield line
            except (OSError, csv.Error, zstandard.ZstdError) as error:
                raise PipelineError(f"{self.path} cannot be read: {error}") from error
        self.read_bytes = self.size_bytes

    def _read(self, stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
        match _format(self.path):
            case ".jsonl":
                for line in read_lines(stream, MAX_LINE_BYTES):
                    value = line.rstrip(b"\r\n")
                    if value.strip():
                        time_ms = document_time_ms(value)
                        yield NO_TIME if time_ms is None else time_ms, value
            case ".tsv":
                with io.TextIOWrapper(stream, encoding="utf-8", errors="replace", newline="\n") as text:
                    # A quotation mark means nothing here, and a line is a row.
                    yield from self._table(line.rstrip("\r\n").split("\t") for line in text)
            case _:
                with io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="") as text:
                    yield from self._table(csv.reader(text))

    def _table(self, rows: Iterable[list[str]]) -> Iterator[tuple[int, bytes]]:
        numbered = enumerate(rows, start=1)
        _, header = next(numbered, (1, []))
        places = _places(self.path, header)
        for number, row in numbered:
            if len(row) != len(header):
                self.bad.count(f"not {len(header)} columns", number)
                continue
            fields = {name: row[place] for name, place in places.items()}
            time_ms = parse_time_ms(fields["time"])
            if time_ms is None or time_ms < 0:
                self.bad.count("no time", number)
                continue
            yield time_ms, self._record(number, fields)

    def _record(self, number: int, fields: dict[str, str]) -> bytes:
        news = {
            "uri": f"{self.path.name}:{number}",
            "headline": fields["headline"],
            "body_text": fields.get("body_text", ""),
            "source": fields.get("source", "") or self.source,
            "language": fields.get("language", ""),
            "received_at": fields["time"],
            "versioncreated": fields["time"],
        }
        return json.dumps(news, ensure_ascii=False).encode("utf-8", "replace")


def open_archive(paths: Sequence[Path], source: str | None = None) -> list[ArchiveFile]:
    """The files, looked at and not yet read.

    A table (`.tsv` without any quoting, `.csv` with) has a header with the columns `ts_utc` and `title`, and may have `source`,
    `description` and `language`; a `.jsonl` holds wire records. Each may be packed as `.zst`. A row without a source has `source`,
    else the beginning of the file's name ("reuters" of "reuters_headlines_2008.tsv.zst"). Raises PipelineError.
    """
    files, problems = [], []
    for path in paths:
        if _format(path) not in FORMATS:
            problems.append(f"{path} is none of {', '.join(FORMATS)} (or one of them with {_PACKED})")
        elif not path.is_file():
            problems.append(f"{path} is no file")
        else:
            own = source or path.name.split(".", 1)[0].split("_", 1)[0]
            files.append(ArchiveFile(path, own, size_bytes=path.stat().st_size))
    if problems:
        raise PipelineError("; ".join(problems))
    return files


def merged(files: Sequence[ArchiveFile], from_ms: int | None = None, until_ms: int | None = None) -> Iterator[Record]:
    """The records of all files as those of one log, in the order of their times, from `from_ms` up to and without `until_ms`.

    At one time the earlier file comes first. A row that is older than the row before it in its file stands where it stands; as in
    the daemon it then counts at the time of that row. Raises PipelineError.
    """
    rows = heapq.merge(*(_in_order(file.lines()) for file in files), key=itemgetter(0))
    for offset, (at_ms, time_ms, value) in enumerate(rows):
        if until_ms is not None and at_ms >= until_ms:
            return
        if from_ms is None or at_ms >= from_ms:
            yield Record(ARCHIVE, offset, offset + 1, time_ms, value)


def _in_order(lines: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, int, bytes]]:
    """Each line with the newest time of its file so far, which is what it is ordered by."""
    newest_ms = NO_TIME
    for time_ms, value in lines:
        newest_ms = max(newest_ms, time_ms)
        yield newest_ms, time_ms, value


def _format(path: Path) -> str:
    return Path(path.stem).suffix if path.suffix == _PACKED else path.suffix


def _places(path: Path, header: Sequence[str]) -> dict[str, int]:
    """Where in a row each field of the wire stands."""
    places = {
        name: header.index(column)
        for name, columns in _COLUMNS.items()
        if (column := next((column for column in columns if column in header), None)) is not None
    }
    missing = [_COLUMNS[name][0] for name in ("time", "headline") if name not in places]
    if missing:
        raise PipelineError(f"{path} has no column {' and no column '.join(missing)}; its first row must name the columns")
    return places


def _unpacked(raw: BinaryIO) -> BinaryIO:
    reader: BinaryIO = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    return io.BufferedReader(reader, 1 << 20)  # type: ignore[type-var]
