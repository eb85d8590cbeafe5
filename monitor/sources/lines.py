"""Pieces of a byte stream in, its lines with their byte ranges out, in bounded memory however long a line is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple


class Line(NamedTuple):
    """A line without its end: it, and blank lines before it, fill the bytes [offset, next_offset) of the stream."""

    offset: int
    next_offset: int
    content: bytes


@dataclass(slots=True)
class Lines:
    """Collects what `feed` brings, gives complete lines from `take`. A blank line is no line of its own.

    `taken_offset` is where the next line begins, `fed_offset` where the next byte is expected. Of a line longer than
    `max_line_bytes` only so many bytes are kept.
    """

    taken_offset: int
    max_line_bytes: int
    fed_offset: int = field(init=False)
    _complete: deque[tuple[bytes, int]] = field(default_factory=deque)
    _pieces: list[bytes] = field(default_factory=list)
    _kept_bytes: int = 0

    def __post_init__(self) -> None:
        self.fed_offset = self.taken_offset

    @property
    def ready(self) -> bool:
        """Whether `take` would give a line."""
        return bool(self._complete)

    def feed(self, piece: bytes) -> None:
        """Takes the next bytes of the stream."""
        first, *others = piece.split(b"\n")
        self._extend(first)
        for part in others:
            self.fed_offset += 1
            self._close()
            self._extend(part)

    def finish(self) -> bool:
        """Ends a last line that has no end of its own; whether there was one."""
        before = len(self._complete)
        self._close()
        return len(self._complete) > before

    def take(self, count: int, size: int) -> list[Line]:
        """At most `count` lines, and no more once they hold `size` bytes."""
        taken: list[Line] = []
        while self._complete and len(taken) < count and size > 0:
            content, next_offset = self._complete.popleft()
            taken.append(Line(self.taken_offset, next_offset, content))
            self.taken_offset = next_offset
            size -= len(content)
        return taken

    def _extend(self, part: bytes) -> None:
        self.fed_offset += len(part)
        kept = part[: self.max_line_bytes - self._kept_bytes]
        if kept:
            self._pieces.append(kept)
            self._kept_bytes += len(kept)

    def _close(self) -> None:
        content = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._kept_bytes = 0
        if content and not content.isspace():
            self._complete.append((content, self.fed_offset))
