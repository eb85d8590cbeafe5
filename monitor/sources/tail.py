"""A growing file, or a pipe, in; its bytes in order, and what broke their order, out."""

from __future__ import annotations

import errno
import hashlib
import os
import select
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, Protocol

from monitor.errors import SourceError, SourceUnavailable
from monitor.sources.protocol import InterruptionKind

HEAD_BYTES: Final = 1_024
"""So much of a file's beginning tells it from another."""

CHUNK_BYTES: Final = 262_144
LOOK_AGAIN_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a search for a position ended: reading goes on at `offset`; `broken` says why that is not where it was to go on."""

    offset: int
    broken: InterruptionKind | None = None


class Feed(Protocol):
    """A stream of bytes with positions."""

    def go_to(self, offset: int | None, identity: str) -> Landing | None:
        """Goes on at `offset` of the stream that had this identity (None: where the stream is to begin); None: not there yet."""

    def read(self) -> bytes | InterruptionKind | None:
        """The next bytes, empty when there are none at present; what broke the stream, again and again until `restart`;
        None when it has ended for good. Raises SourceUnavailable, SourceError.
        """

    def restart(self, broken: InterruptionKind) -> None:
        """Goes on behind the break that `read` told of, at offset 0."""

    def wait(self, wait_s: float) -> None:
        """Returns when there may be more to read, after `wait_s` seconds at most."""

    def end(self) -> int:
        """The offset behind the last byte that is there now."""

    def identity(self) -> str:
        """What tells this stream from another, as far as it has been read; "" when nothing does."""

    @property
    def spent(self) -> bool:
        """Whether bytes were read that cannot be read again."""

    def close(self) -> None:
        """Frees what is open. Safe to call twice."""


class TailedFile:
    """A file that others append to, rename, cut off or replace. With `follow` its end is only the end so far."""

    def __init__(self, path: str, *, start: Literal["earliest", "latest"], follow: bool) -> None:
        self._path = Path(path)
        self._start = start
        self._follow = follow
        self._file: int | None = None
        self._offset = 0
        self._head = b""
        try:
            found = self._open()
        except OSError as error:
            raise self._translated(error) from error
        if not found and not follow:
            raise SourceError(f"{path}: no such file")

    def go_to(self, offset: int | None, identity: str) -> Landing | None:
        """As `Feed.go_to`; the file in hand is kept where it still is the right one, although its name may have moved on."""
        try:
            landing = self._land(offset, identity)
        except OSError as error:
            raise self._translated(error) from error
        if landing is None:
            # What begins later than this moment is new as a whole, also for one who asked for the latest only.
            self._start = "earliest"
            return None
        self._offset = landing.offset
        self._head = b""
        self._remember_head()
        return landing

    def read(self) -> bytes | InterruptionKind | None:
        """As `Feed.read`. A rotated file is read to its end before the new one is opened."""
        try:
            if self._file is None and not self._open():
                return b""
            assert self._file is not None
            if self._was_cut_off(self._file):
                return InterruptionKind.TRUNCATED
            piece = os.pread(self._file, CHUNK_BYTES, self._offset)
            if not piece and not self._follow:
                return None
            if not piece and self._was_rotated(self._file):
                # Looked at once more, because the writer may have added its last lines between our read and our look at the name.
                piece = os.pread(self._file, CHUNK_BYTES, self._offset)
                if not piece:
                    return InterruptionKind.ROTATED
            self._offset += len(piece)
            self._remember_head()
        except OSError as error:
            raise self._translated(error) from error
        return piece

    def restart(self, broken: InterruptionKind) -> None:
        """As `Feed.restart`: a file that was cut off is the same file, a rotated one is done with."""
        if broken is InterruptionKind.ROTATED:
            self.close()
        self._offset = 0
        self._head = b""

    def wait(self, wait_s: float) -> None:
        """As `Feed.wait`: looking again soon is cheap, and works on every file system."""
        time.sleep(min(wait_s, LOOK_AGAIN_S))

    def end(self) -> int:
        """As `Feed.end`."""
        if self._file is None:
            return self._offset
        try:
            return os.fstat(self._file).st_size
        except OSError as error:
            raise self._translated(error) from error

    def identity(self) -> str:
        """The length and the hash of the file's beginning, up to `HEAD_BYTES` of it, as far as it has been read."""
        return f"{len(self._head)}:{_digest(self._head)}" if self._head else ""

    @property
    def spent(self) -> bool:
        """A file can be read again."""
        return False

    def close(self) -> None:
        """As `Feed.close`."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _land(self, offset: int | None, identity: str) -> Landing | None:
        if offset is not None and self._file is not None and _holds(self._file, offset, identity):
            return Landing(offset)
        if not self._open() or self._file is None:
            return None
        if offset is None:
            return Landing(0 if self._start == "earliest" else _last_line_end(self._file))
        if not _begins_as(self._file, identity):
            return Landing(0, InterruptionKind.REPLACED)
        if os.fstat(self._file).st_size < offset:
            return Landing(0, InterruptionKind.TRUNCATED)
        return Landing(offset)

    def _open(self) -> bool:
        """Opens the file that bears the name now; whether there is one."""
        try:
            # Without O_NONBLOCK the opening of a named pipe would wait for its writer.
            opened = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            return False
        if not stat.S_ISREG(os.fstat(opened).st_mode):
            os.close(opened)
            raise SourceError(f'{self._path}: not a regular file; a pipe is read as "-"')
        self.close()
        self._file = opened
        return True

    def _remember_head(self) -> None:
        wanted = min(HEAD_BYTES, self._offset)
        if self._file is not None and len(self._head) < wanted:
            self._head = os.pread(self._file, wanted, 0)

    def _was_cut_off(self, file: int) -> bool:
        # The beginning is compared too: a file that was cut off may have grown beyond our position since.
        return os.fstat(file).st_size < self._offset or os.pread(file, len(self._head), 0) != self._head

    def _was_rotated(self, file: int) -> bool:
        try:
            named = self._path.stat()
        except FileNotFoundError:
            return False
        ours = os.fstat(file)
        # While the new file is empty, its writer may still be at work on the old one.
        return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino) and named.st_size > 0

    def _translated(self, error: OSError) -> SourceError:
        kind = SourceError if error.errno in {errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR} else SourceUnavailable
        return kind(f"{self._path}: {error.strerror or type(error).__name__}")


class Pipe:
    """Standard input: bytes that come once. Positions go on from the saved one, because nothing else can be known."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._offset = 0
        self._spent = False

    def go_to(self, offset: int | None, identity: str) -> Landing | None:
        """Begins where the pipe is, and calls that `offset`."""
        del identity
        if offset is not None:
            self._offset = offset
        return Landing(self._offset)

    def read(self) -> bytes | InterruptionKind | None:
        """As `Feed.read`; it has ended when the writer is gone."""
        try:
            if not select.select([self._file], [], [], 0)[0]:
                return b""
            piece = os.read(self._file, CHUNK_BYTES)
        except (OSError, ValueError) as error:
            raise SourceUnavailable(f"standard input cannot be read: {error}") from error
        self._spent = True
        self._offset += len(piece)
        return piece or None

    def restart(self, broken: InterruptionKind) -> None:
        """A pipe does not break."""

    def wait(self, wait_s: float) -> None:
        """As `Feed.wait`."""
        select.select([self._file], [], [], wait_s)

    def end(self) -> int:
        """What was read so far: nobody knows what stands behind it."""
        return self._offset

    def identity(self) -> str:
        """Nothing tells one pipe from another."""
        return ""

    @property
    def spent(self) -> bool:
        """Whether anything was read: it cannot be read again."""
        return self._spent

    def close(self) -> None:
        """Leaves the descriptor open: it is the process's, not ours."""


def _digest(head: bytes) -> str:
    return hashlib.sha256(head).hexdigest()[:32]


def _holds(file: int, offset: int, identity: str) -> bool:
    return _begins_as(file, identity) and offset <= os.fstat(file).st_size


def _begins_as(file: int, identity: str) -> bool:
    """Whether the file still begins with the bytes that the identity was made from; it may have grown since."""
    if not identity:
        return True
    length, _, digest = identity.partition(":")
    if not length.isdecimal() or int(length) > HEAD_BYTES:
        return False
    head = os.pread(file, int(length), 0)
    return len(head) == int(length) and _digest(head) == digest


def _last_line_end(file: int) -> int:
    """The offset behind the file's last complete line."""
    end = os.fstat(file).st_size
    while end > 0:
        begin = max(0, end - CHUNK_BYTES)
        found = os.pread(file, end - begin, begin).rfind(b"\n")
        if found >= 0:
            return begin + found + 1
        end = begin
    return 0
