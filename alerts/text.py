"""Text from anywhere to text that is safe to show on one line: no control or direction characters, a bounded length."""

from __future__ import annotations

import json
import unicodedata
from datetime import UTC, datetime
from typing import Final

_SPACES: Final = frozenset("\t\n\v\f\r\x85\u2028\u2029")
_INVISIBLE: Final = frozenset("\u061c\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff")
"""What turns the direction of text or hides in it. The joiners U+200C and U+200D stay: some scripts are wrong without them."""


def plain_text(text: str, limit: int) -> str:
    """`text` on one line of at most `limit` characters (an ellipsis marks the cut).

    Line ends become spaces; other control characters, direction marks, invisible spaces and lone surrogates are dropped.
    """
    kept = "".join(" " if character in _SPACES else character for character in text if _is_kept(character)).strip()
    return kept if len(kept) <= limit else kept[: limit - 1].rstrip() + "…"


def _is_kept(character: str) -> bool:
    if character in _SPACES:
        return True
    return character not in _INVISIBLE and unicodedata.category(character) not in {"Cc", "Cs"}


def number_text(number: int, one: str, several: str) -> str:
    """A number with what it counts: "1 story", "3 stories"."""
    return f"{number} {one if number == 1 else several}"


def time_text(time_ms: int) -> str:
    """A moment as RFC 3339 in UTC with milliseconds: "2026-11-25T05:14:00.000Z"."""
    moment = datetime.fromtimestamp(time_ms // 1_000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1_000:03d}Z"


def duration_text(duration_ms: int) -> str:
    """A duration in its largest whole unit, hours or minutes: "1 h", "90 min"."""
    minutes = duration_ms // 60_000
    return f"{minutes // 60} h" if minutes and minutes % 60 == 0 else f"{minutes} min"


def json_bytes(content: object) -> bytes:
    """`content` as JSON without spaces, in UTF-8: the same content gives the same bytes."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode()
