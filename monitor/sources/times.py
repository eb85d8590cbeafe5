"""The clock, or the bytes of a document, in; the time that a log without times of its own gives to a record out."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


class _Times(msgspec.Struct, frozen=True):
    """The three fields that may hold the time; whatever type they are, the document is judged elsewhere."""

    received_at: Any = None
    versioncreated: Any = None
    firstcreated: Any = None


_decoder: Final = msgspec.json.Decoder(_Times)


def wall_clock_ms() -> int:
    """Now, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def document_time_ms(line: bytes) -> int | None:
    """Milliseconds since the epoch of the first of `received_at`, `versioncreated`, `firstcreated` that is an RFC 3339 time.

    None when the line is no JSON object, or none of the three is a time with its offset from UTC, 1970 or later.
    """
    try:
        times = _decoder.decode(line)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    for value in (times.received_at, times.versioncreated, times.firstcreated):
        if isinstance(value, str) and (time_ms := _milliseconds(value)) is not None:
            return time_ms
    return None


def _milliseconds(text: str) -> int | None:
    try:
        moment = msgspec.convert(text, datetime)
        if moment.tzinfo is None:
            return None
        # Integers throughout: a float of seconds loses milliseconds.
        time_ms = (moment - _EPOCH) // _MILLISECOND
    except (msgspec.ValidationError, OverflowError):
        return None
    return time_ms if time_ms >= 0 else None
