"""What a receiver answered to what it means: one table for all kinds of receivers.

    200-299     delivered
    300-399     redirected      redirects are not followed
    410         gone            the receiver is disabled until a person enables it
    429, 503    throttled       not before `Retry-After`, where it says so
    the rest    refused         tried again with growing pauses

Feishu, DingTalk and WeCom answer 200 to everything and say in the body what became of it: a number that is 0 where the message was
taken. There, a 2xx without that 0 is refused; or throttled, where the number says so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from types import MappingProxyType
from typing import Final

from alerts.types import AttemptResult

NO_CODES: Final[Mapping[int, float]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answer:
    """What a receiver answered: its status, how long it wants to be left alone, and the beginning of its body."""

    status_code: int
    retry_after_s: float | None = None
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an answer means, a sentence about it that quotes nothing, and the pause that was asked for."""

    result: AttemptResult
    detail: str
    retry_after_s: float | None = None


def judge_status(answer: Answer) -> Meaning:
    """What the status of an answer means."""
    said = f"the receiver answered {answer.status_code}"
    match answer.status_code:
        case status if 200 <= status < 300:
            return Meaning(AttemptResult.DELIVERED, said)
        case status if 300 <= status < 400:
            return Meaning(AttemptResult.REDIRECTED, f"{said}, and redirects are not followed")
        case 410:
            return Meaning(AttemptResult.GONE, f"{said}: it wants no more messages")
        case 429 | 503:
            return Meaning(AttemptResult.THROTTLED, f"{said}: it wants to be left alone for a while", answer.retry_after_s)
        case _:
            return Meaning(AttemptResult.REFUSED, said)


def judge_code(answer: Answer, field: str, throttling: Mapping[int, float] = NO_CODES) -> Meaning:
    """What an answer means whose body says in the number `field` what became of the message.

    `throttling` are the numbers that mean "too many", each with the pause in seconds that the platform then lays down.
    """
    meaning = judge_status(answer)
    if meaning.result is not AttemptResult.DELIVERED:
        return meaning
    code = _number(answer.body, field)
    if code == 0:
        return meaning
    if code is None:
        return replace(meaning, result=AttemptResult.REFUSED, detail=f"{meaning.detail} without saying that it took the message")
    said = f"{meaning.detail}, and in its body {field} {code}"
    if code in throttling:
        return Meaning(AttemptResult.THROTTLED, f"{said}: it wants to be left alone for a while", throttling[code])
    return Meaning(AttemptResult.REFUSED, said)


def _number(body: bytes, field: str) -> int | None:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return None
    code = content.get(field) if isinstance(content, dict) else None
    return code if type(code) is int else None


def retry_after_s(headers: Iterable[tuple[bytes, bytes]], now_ms: int) -> float | None:
    """`Retry-After` in seconds from now, at least 0, from seconds or an HTTP date; None when it is missing or neither."""
    for name, value in headers:
        if name.lower() == b"retry-after":
            return _parse_retry_after(value.decode("latin-1").strip(), now_ms)
    return None


def _parse_retry_after(text: str, now_ms: int) -> float | None:
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now_ms / 1_000)
    except (ValueError, TypeError, OverflowError):
        return None
