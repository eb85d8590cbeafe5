"""A tailed file, against what was written to it: every complete line once, whatever happens to the file."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.config import FileSettings
from monitor.errors import SourceError
from monitor.sources.file import MAX_BYTES, MAX_RECORDS, FileSource
from monitor.sources.protocol import Interruption, InterruptionKind, Polled
from monitor.sources.tail import CHUNK_BYTES, HEAD_BYTES
from monitor.types import NO_TIME, Partition, Record

FILE = Partition("file", 0)
ROTATED, TRUNCATED = InterruptionKind.ROTATED, InterruptionKind.TRUNCATED
REPLACED, EXPIRED = InterruptionKind.REPLACED, InterruptionKind.EXPIRED


def tail(path: Path, **settings_of_file: object) -> FileSource:
    return FileSource(FileSettings(path=str(path), **settings_of_file))  # type: ignore[arg-type]


def drain(source: FileSource) -> tuple[list[Record], list[Interruption]]:
    """Everything that is there now."""
    records: list[Record] = []
    interruptions: list[Interruption] = []
    while (polled := source.poll(0)) != Polled():
        records += polled.records
        interruptions += polled.interruptions
    return records, interruptions


def lines_of(source: FileSource) -> list[bytes | None]:
    return [record.value for record in drain(source)[0]]


# --- lines -------------------------------------------------------------------------------------


def test_only_a_complete_line_is_a_record_while_following(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"a\nb")
    source = tail(path)
    assert lines_of(source) == [b"a"]
    assert source.end_offsets() == {FILE: 2}
    assert not source.exhausted
    with path.open("ab") as file:
        file.write(b"c\n")
    assert lines_of(source) == [b"bc"]
    assert source.end_offsets() == {FILE: 5}
    source.close()


def test_the_last_line_needs_no_end_where_the_file_is_not_followed(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"a\n\nb")
    source = tail(path, follow=False)
    assert not source.exhausted
    records, _ = drain(source)
    assert [(record.offset, record.next_offset, record.value) for record in records] == [(0, 2, b"a"), (2, 4, b"b")]
    assert source.exhausted
    assert source.end_offsets() == {FILE: 4}
    source.seek(FILE, 2, source.identity(FILE))
    assert not source.exhausted
    assert lines_of(source) == [b"b"]
    assert source.exhausted
    source.close()


def test_an_exhausted_source_says_so_at_once_and_does_not_spin_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"")
    source = tail(path, follow=False)
    begun_s = time.monotonic()
    assert source.poll(5) == Polled()
    assert time.monotonic() - begun_s < 1
    assert source.exhausted
    begun_s = time.monotonic()
    source.poll(0.2)
    assert time.monotonic() - begun_s >= 0.2
    source.close()


def test_blank_lines_belong_to_the_record_behind_them(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"\n \r\na\r\n\n\t\nb\n\n\n")
    source = tail(path)
    records, _ = drain(source)
    assert [(record.offset, record.next_offset, record.value) for record in records] == [(0, 7, b"a\r"), (7, 12, b"b")]
    assert source.end_offsets() == {FILE: 12}
    source.close()


def test_an_over_long_line_is_cut_and_the_next_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "news"
    long = b"x" * (3 * CHUNK_BYTES)
    path.write_bytes(long + b"\nnext\n" + b"y" * 1_024 + b"\n")
    source = tail(path, max_line_bytes=1_024)
    records, _ = drain(source)
    assert [record.value for record in records] == [long[:1_024], b"next", b"y" * 1_024]
    assert records[0].next_offset == records[1].offset == len(long) + 1
    source.close()


def test_a_poll_is_bounded_in_records_and_in_bytes(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"a\n" * (MAX_RECORDS + 1))
    source = tail(path)
    assert len(source.poll(0).records) == MAX_RECORDS
    assert source.end_offsets() == {FILE: 2 * MAX_RECORDS + 2}
    assert len(source.poll(0).records) == 1
    source.close()
    path.write_bytes((b"b" * 999_999 + b"\n") * 12)
    source = tail(path)
    while polled := source.poll(0).records:
        assert sum(len(record.value or b"") for record in polled) <= MAX_BYTES + 1_000_000
    assert source.end_offsets() == {FILE: 12_000_000}
    source.close()


# --- times -------------------------------------------------------------------------------------


def test_a_record_has_the_time_of_arrival_or_of_the_document(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b'{"received_at": "1970-01-01T00:00:05Z"}\n{"received_at": "whenever"}\n')
    for timestamps, expected in (("arrival", [77, 77]), ("document", [5_000, NO_TIME])):
        source = FileSource(FileSettings(path=str(path), timestamps=timestamps), "wire", clock_ms=lambda: 77)  # type: ignore[arg-type]
        records, _ = drain(source)
        assert [record.time_ms for record in records] == expected
        assert records[0].partition == Partition("wire", 0)
        source.close()


# --- what happens to files ---------------------------------------------------------------------


def test_a_file_that_is_not_there_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "news"
    source = tail(path, start="latest")
    source.seek(FILE, None, "")
    assert source.poll(0.06) == Polled()
    assert source.end_offsets() == {FILE: 0}
    path.write_bytes(b"a\n")
    assert lines_of(source) == [b"a"]
    source.close()


def test_a_file_that_is_not_there_and_not_waited_for_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no such file"):
        tail(tmp_path / "news", follow=False)


def test_a_named_pipe_is_refused_without_hanging(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "news")
    with pytest.raises(SourceError, match="not a regular file"):
        tail(tmp_path / "news")


def test_a_path_through_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(SourceError, match="Not a directory"):
        tail(tmp_path / "file" / "news")


def test_the_latest_start_begins_behind_the_last_complete_line(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"old\n" + b"x" * (2 * CHUNK_BYTES))
    source = tail(path, start="latest")
    assert source.poll(0) == Polled()
    with path.open("ab") as file:
        file.write(b"!\nnew\n")
    assert [len(line or b"") for line in lines_of(source)] == [2 * CHUNK_BYTES + 1, 3]
    source.close()


def test_a_rotated_file_is_read_to_its_end_with_its_unfinished_line(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"a\n")
    source = tail(path)
    assert lines_of(source) == [b"a"]
    with path.open("ab") as old:
        path.rename(tmp_path / "news.1")
        assert source.poll(0) == Polled()
        path.write_bytes(b"")
        # The new file is empty: the writer may still be at work on the old one.
        old.write(b"b\nc")
        old.flush()
        assert lines_of(source) == [b"b"]
    path.write_bytes(b"d\n")
    identity = source.identity(FILE)
    polled = source.poll(0)
    assert [(record.offset, record.value) for record in polled.records] == [(4, b"c")]
    assert polled.interruptions == ()
    assert source.identity(FILE) == identity
    polled = source.poll(0)
    assert polled.interruptions == (Interruption(FILE, ROTATED, 5, 0),)
    assert [(record.offset, record.value) for record in polled.records] == [(0, b"d")]
    assert source.identity(FILE) != identity
    source.close()


def test_a_file_that_was_cut_off_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"first\nsecond\nunfin")
    source = tail(path)
    assert lines_of(source) == [b"first", b"second"]
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(b"x\n")
    records, interruptions = drain(source)
    assert [(record.offset, record.value) for record in records] == [(0, b"x")]
    assert interruptions == [Interruption(FILE, TRUNCATED, 13, 0)]
    source.close()


def test_a_file_that_was_cut_off_and_has_grown_beyond_our_position_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"a\n")
    source = tail(path)
    assert lines_of(source) == [b"a"]
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(b"longer than before\n")
    records, interruptions = drain(source)
    assert [record.value for record in records] == [b"longer than before"]
    assert interruptions == [Interruption(FILE, TRUNCATED, 2, 0)]
    source.close()


def test_a_vanished_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"a\n")
    source = tail(path)
    assert lines_of(source) == [b"a"]
    path.unlink()
    assert source.poll(0) == Polled()
    path.write_bytes(b"b\n")
    records, interruptions = drain(source)
    assert [record.value for record in records] == [b"b"]
    assert interruptions == [Interruption(FILE, ROTATED, 2, 0)]
    source.close()


# --- coming back to a saved position -----------------------------------------------------------


def resumed(path: Path, offset: int, identity: str) -> tuple[list[bytes | None], list[Interruption]]:
    source = tail(path)
    source.seek(FILE, offset, identity)
    records, interruptions = drain(source)
    source.close()
    return [record.value for record in records], interruptions


def saved_identity(path: Path) -> str:
    source = tail(path)
    drain(source)
    source.close()
    return source.identity(FILE)


@pytest.mark.parametrize("size", [1, 10, HEAD_BYTES - 2, HEAD_BYTES - 1, HEAD_BYTES, 3 * HEAD_BYTES])
def test_a_grown_file_is_the_same_file(tmp_path: Path, size: int) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"x" * size + b"\n")
    identity = saved_identity(path)
    with path.open("ab") as file:
        file.write(b"y" * 2_000 + b"\n")
    assert resumed(path, size + 1, identity) == ([b"y" * 2_000], [])


@pytest.mark.parametrize("changed_at", [0, 5, HEAD_BYTES - 1])
def test_a_file_with_another_beginning_is_another_file(tmp_path: Path, changed_at: int) -> None:
    path = tmp_path / "news"
    content = bytearray(b"x" * (2 * HEAD_BYTES) + b"\n")
    path.write_bytes(content)
    identity = saved_identity(path)
    content[changed_at : changed_at + 1] = b"z"
    path.write_bytes(content)
    assert resumed(path, len(content), identity) == ([bytes(content[:-1])], [Interruption(FILE, REPLACED, len(content), 0)])


def test_a_file_shorter_than_its_known_beginning_is_another_file(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"aaaa\n")
    identity = saved_identity(path)
    path.write_bytes(b"aaa\n")
    assert resumed(path, 5, identity) == ([b"aaa"], [Interruption(FILE, REPLACED, 5, 0)])


def test_the_same_file_that_ends_before_the_position_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"a\n" * HEAD_BYTES)
    identity = saved_identity(path)
    os.truncate(path, HEAD_BYTES)
    lines, interruptions = resumed(path, 2 * HEAD_BYTES, identity)
    assert len(lines) == HEAD_BYTES // 2
    assert interruptions == [Interruption(FILE, TRUNCATED, 2 * HEAD_BYTES, 0)]


@pytest.mark.parametrize("identity", ["8f14e45f-ceea-467f-a8d5-0123456789ab", "12", "-1:00", "9999:00", ":"])
def test_an_identity_of_another_kind_is_another_log(tmp_path: Path, identity: str) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"a\nb\n")
    assert resumed(path, 2, identity) == ([b"a", b"b"], [Interruption(FILE, REPLACED, 2, 0)])


def test_an_empty_file_has_no_identity(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"")
    assert saved_identity(path) == ""


def test_seeking_back_in_a_file_that_has_been_rotated_since_stays_in_it(tmp_path: Path) -> None:
    path = tmp_path / "news"
    path.write_bytes(b"a\nb\n")
    source = tail(path)
    assert lines_of(source) == [b"a", b"b"]
    identity = source.identity(FILE)
    path.rename(tmp_path / "news.1")
    path.write_bytes(b"c\n")
    source.seek(FILE, 2, identity)
    records, interruptions = drain(source)
    assert [record.value for record in records] == [b"b", b"c"]
    assert interruptions == [Interruption(FILE, ROTATED, 4, 0)]
    source.close()


# --- standard input ----------------------------------------------------------------------------


@dataclass
class Shell:
    """A process's standard input, held at both ends."""

    reading: int = -1
    writing: int = -1

    def __post_init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def source(self) -> FileSource:
        return FileSource(FileSettings(path="-"), standard_input=self.reading)

    def write(self, text: bytes) -> None:
        os.write(self.writing, text)

    def hang_up(self) -> None:
        os.close(self.writing)


@pytest.fixture
def shell():
    shell = Shell()
    yield shell
    os.close(shell.reading)


def test_standard_input_is_read_until_the_writer_hangs_up(shell: Shell) -> None:
    source = shell.source()
    assert source.poll(0.01) == Polled()
    shell.write(b"a\nb")
    assert lines_of(source) == [b"a"]
    assert source.end_offsets() == {FILE: 2}
    assert not source.exhausted
    shell.hang_up()
    assert lines_of(source) == [b"b"]
    assert source.exhausted
    assert source.identity(FILE) == ""
    source.close()


def test_standard_input_numbers_its_bytes_from_the_saved_position(shell: Shell) -> None:
    source = shell.source()
    source.seek(FILE, 500, "")
    shell.write(b"a\n")
    records, interruptions = drain(source)
    assert [(record.offset, record.next_offset) for record in records] == [(500, 502)]
    assert interruptions == []
    shell.hang_up()


def test_what_was_read_from_standard_input_cannot_be_had_again(shell: Shell) -> None:
    source = shell.source()
    shell.write(b"a\n" * (MAX_RECORDS + 1))
    assert len(source.poll(0).records) == MAX_RECORDS
    source.seek(FILE, 2 * MAX_RECORDS, "")
    records, interruptions = drain(source)
    assert [(record.offset, record.value) for record in records] == [(2 * MAX_RECORDS, b"a")]
    assert interruptions == []
    source.seek(FILE, 2, "")
    assert drain(source) == ([], [Interruption(FILE, EXPIRED, 2, 2 * MAX_RECORDS + 2)])
    source.seek(FILE, None, "")
    assert drain(source) == ([], [])
    shell.hang_up()


def test_a_line_on_standard_input_wakes_a_waiting_poll(shell: Shell) -> None:
    source = shell.source()
    writer = threading.Timer(0.1, shell.write, [b"a\n"])
    writer.start()
    begun_s = time.monotonic()
    assert [record.value for record in source.poll(20).records] == [b"a"]
    assert time.monotonic() - begun_s < 10
    writer.join()
    shell.hang_up()


# --- the whole history -------------------------------------------------------------------------


@dataclass
class Writer:
    """Writes, rotates and cuts off a file, and knows which lines a reader must see: those complete before the file is broken.

    A reader sees all that was complete when it last looked (`seen`), and of a rotated file also what came after, with the
    unfinished line. What a cut removes before the reader looked is lost.
    """

    path: Path
    expected: list[bytes] = field(default_factory=list)
    breaks: list[InterruptionKind] = field(default_factory=list)
    unfinished: bytes = b""
    number: int = 0

    def append(self, sizes: list[int]) -> None:
        with self.path.open("ab") as file:
            for size in sizes:
                self.number += 1
                piece = b"%d:" % self.number + b"x" * size
                piece += b"\n" if size % 3 else b""
                file.write(piece)
                file.flush()
                self.unfinished += piece
        *complete, self.unfinished = self.unfinished.split(b"\n")
        self.expected += [line for line in complete if line]

    def rotate(self) -> None:
        if self.path.stat().st_size == 0:
            return
        self.path.rename(self.path.with_name(f"old-{self.number}"))
        if self.unfinished:
            self.expected.append(self.unfinished)
        self._begin_again(ROTATED)
        self.append([1])

    def cut_off(self) -> None:
        if self.path.stat().st_size == 0:
            return
        with self.path.open("r+b") as file:
            file.truncate(0)
        self._begin_again(TRUNCATED)
        self.append([2])

    def _begin_again(self, kind: InterruptionKind) -> None:
        self.unfinished = b""
        self.breaks.append(kind)


STEPS = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"), st.lists(st.sampled_from([0, 1, 2, 3, 900, 1_023, 1_024, 1_025, 70_000]), min_size=1, max_size=6)
        ),
        st.tuples(st.sampled_from(["look", "rotate", "cut off", "reopen", "seek back"]), st.just([])),
    ),
    max_size=25,
)


@given(steps=STEPS)
@settings(max_examples=100, deadline=None)
def test_every_complete_line_comes_once_through_rotations_and_cuts(steps: list[tuple[str, list[int]]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        writer = Writer(Path(folder) / "news")
        writer.path.write_bytes(b"")
        source = tail(writer.path)
        seen: list[bytes | None] = []
        breaks: list[InterruptionKind] = []
        last: Record | None = None

        def look() -> None:
            nonlocal last
            while (polled := source.poll(0)) != Polled():
                if polled.interruptions:
                    last = None
                for record in polled.records:
                    assert record.offset == (last.next_offset if last else 0)
                    last = record
                    seen.append(record.value)
                breaks.extend(interruption.kind for interruption in polled.interruptions)

        for step, sizes in steps:
            match step:
                case "append":
                    writer.append(sizes)
                case "look":
                    look()
                case "rotate" | "cut off":
                    # One break between two looks is what a reader of a file can follow.
                    look()
                    writer.rotate() if step == "rotate" else writer.cut_off()
                    look()
                case "reopen":
                    look()
                    position, identity = (last.next_offset if last else 0), source.identity(FILE)
                    source.close()
                    source = tail(writer.path)
                    source.seek(FILE, position, identity)
                case _:
                    look()
                    if last is not None:
                        seen.pop()
                        source.seek(FILE, last.offset, source.identity(FILE))
                        last = None if last.offset == 0 else Record(FILE, 0, last.offset, 0, None)
        look()
        source.close()
        assert seen == writer.expected
        assert breaks == writer.breaks
