"""Lines are found whatever the pieces they come in, and an endless line stays small."""

from __future__ import annotations

import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.sources.lines import Line, Lines

TEXT = st.lists(st.sampled_from([b"a", b"bc", b"\n", b"\r\n", b" ", b"\x00", b"\xff", b"x" * 7]), max_size=60).map(b"".join)


def pieces_of(text: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[begin:end] for begin, end in itertools.pairwise(edges)]


def expected_lines(text: bytes, begin: int, limit: int, *, ended: bool) -> list[Line]:
    """The oracle: the whole text at once, cut by Python's own split."""
    lines, at, offset = [], begin, begin
    parts = text.split(b"\n")
    for number, part in enumerate(parts):
        complete = number < len(parts) - 1
        at += len(part) + complete
        if (complete or ended) and part[:limit].strip():
            lines.append(Line(offset, at, part[:limit]))
            offset = at
    return lines


@given(text=TEXT, cuts=st.lists(st.integers(0, 400), max_size=12), begin=st.integers(0, 10**12), ended=st.booleans())
@settings(max_examples=200)
def test_any_pieces_give_the_lines_of_the_whole(text: bytes, cuts: list[int], begin: int, ended: bool) -> None:  # noqa: FBT001
    lines = Lines(begin, 1_024)
    taken: list[Line] = []
    for piece in pieces_of(text, cuts):
        lines.feed(piece)
        taken += lines.take(2, 10_000)
    if ended:
        lines.finish()
    while lines.ready:
        taken += lines.take(1, 1)
    assert taken == expected_lines(text, begin, 1_024, ended=ended)
    assert lines.fed_offset == begin + len(text)
    assert lines.taken_offset == (taken[-1].next_offset if taken else begin)


@given(text=TEXT, cuts=st.lists(st.integers(0, 400), max_size=12), limit=st.integers(1, 9))
@settings(max_examples=100)
def test_a_long_line_is_cut_and_its_range_is_not(text: bytes, cuts: list[int], limit: int) -> None:
    lines = Lines(0, limit)
    for piece in pieces_of(text, cuts):
        lines.feed(piece)
    assert lines.take(1_000, 1_000_000) == expected_lines(text, 0, limit, ended=False)


def test_an_endless_line_keeps_no_more_than_its_limit() -> None:
    lines = Lines(0, 1_000)
    for _ in range(1_000):
        lines.feed(b"x" * 10_000)
    assert sum(map(len, lines._pieces)) == 1_000
    lines.feed(b"\nnext\n")
    assert lines.take(9, 10_000) == [Line(0, 10_000_001, b"x" * 1_000), Line(10_000_001, 10_000_006, b"next")]


def test_taking_stops_once_the_size_is_reached() -> None:
    lines = Lines(0, 1_000)
    lines.feed(b"aaaa\nbbbb\ncccc\n")
    assert [line.content for line in lines.take(9, 5)] == [b"aaaa", b"bbbb"]
    assert [line.content for line in lines.take(9, 4)] == [b"cccc"]


def test_finishing_tells_whether_there_was_a_last_line() -> None:
    lines = Lines(0, 1_000)
    lines.feed(b"a\n  ")
    assert not lines.finish()
    lines.feed(b"b")
    assert lines.finish()
    assert not lines.finish()
