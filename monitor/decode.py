"""Bytes of the log to documents: a `news.raw` record, version 1, becomes one `Document`, or one `Rejected` that says why not.

The wire format is published as `monitor/schemas/news.raw.v1.json`. Unknown fields are ignored; a known field of another type, an
explicit `null` included, rejects the record: what a producer spells out must be what the schema promises.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, TypeVar

import msgspec

from monitor.config import DocumentSettings
from monitor.types import Document, PublicationStatus, Record, Rejected, RejectReason

SCHEMA_VERSION: Final = 1
MAX_DEPTH: Final = 64
MAX_URI_CHARACTERS: Final = 2_048
MAX_SOURCE_CHARACTERS: Final = 200
MAX_LANGUAGE_CHARACTERS: Final = 35
MAX_VERSION_CHARACTERS: Final = 100
MAX_VERSION_NUMBER: Final = 2**63 - 1

DEFAULT_VERSION: Final = "1"
UNKNOWN_SOURCE: Final = "unknown"
UNDETERMINED_LANGUAGE: Final = "und"  # BCP 47

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)

_CONTROL: Final = re.compile(r"[\x00-\x1f]")
_CONTROL_IN_TEXT: Final = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
# C1 controls, soft hyphen, zero-width and bidirectional controls, interlinear marks: seen in scraped text, invisible to a reader.
_INVISIBLE: Final = re.compile(r"[\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]")
_TIME: Final = re.compile(
    r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"
    r"(?:[Tt ](?:[01]\d|2[0-3]):[0-5]\d(?::(?:[0-5]\d|60)(?:\.\d{1,9})?)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):?[0-5]\d)?)?",
    re.ASCII,
)
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
_STRING_OR_BRACKET: Final = re.compile(rb'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)
_FAULT_PATH: Final = re.compile(r" - at `\$\.(\w+)`$")
_FAULT_BYTE: Final = re.compile(r"\(byte (\d+)\)")

_EXPECTED: Final = {
    "version": f"a string or a whole number from 0 to {MAX_VERSION_NUMBER}",
    "pubstatus": "one of " + ", ".join(PublicationStatus),
}

_Decoded = TypeVar("_Decoded")


class Undecodable(Exception):
    """Carries a fault from where it is found to where it becomes a value. `detail` names a field, never its content."""

    def __init__(self, reason: RejectReason, detail: str) -> None:
        self.reason = reason
        self.detail = detail
        super().__init__(f"{reason}: {detail}")


class News(msgspec.Struct, frozen=True, gc=False):
    """A `news.raw` record as it stands on the wire, with the field names of IPTC ninjs and our own `received_at`."""

    schema_version: Literal[1] = 1
    uri: str = ""
    version: str | int = DEFAULT_VERSION
    versioncreated: str | msgspec.UnsetType = msgspec.UNSET
    firstcreated: str | msgspec.UnsetType = msgspec.UNSET
    received_at: str | msgspec.UnsetType = msgspec.UNSET
    headline: str = ""
    body_text: str = ""
    language: str = ""
    source: str = ""
    pubstatus: PublicationStatus = PublicationStatus.USABLE


class _Versioned(msgspec.Struct, frozen=True, gc=False):
    schema_version: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_NEWS: Final = msgspec.json.Decoder(News)
_VERSIONED: Final = msgspec.json.Decoder(_Versioned)


class Decoder:
    """Decodes records under fixed limits. It has no state: any thread may use it, and one record never touches another."""

    def __init__(self, settings: DocumentSettings) -> None:
        self._max_bytes = settings.max_bytes
        self._max_age_ms = round(settings.max_age.total_seconds() * 1000)
        self._max_ahead_ms = round(settings.max_ahead.total_seconds() * 1000)
        self._excerpt_bytes = settings.dead_letter_bytes

    def decode(self, record: Record, received_ms: int) -> Document | Rejected:
        """The document that a record holds, or why it holds none. Raises nothing, whatever the bytes.

        `received_ms` is the record's time as `received_time_ms` gives it. The document names no entities yet.
        """
        try:
            return self._document(record, received_ms)
        except Undecodable as fault:
            value = record.value or b""
            return Rejected(
                partition=record.partition,
                offset=record.offset,
                next_offset=record.next_offset,
                received_ms=received_ms,
                reason=fault.reason,
                detail=fault.detail,
                excerpt=value[: self._excerpt_bytes],
                size=len(value),
            )

    def _document(self, record: Record, received_ms: int) -> Document:
        if record.value is None:
            raise Undecodable(RejectReason.TOMBSTONE, "the record has no value")
        news = parse_object(record.value, _NEWS, self._max_bytes)
        uri = clean_line("uri", news.uri, MAX_URI_CHARACTERS)
        if not uri:
            raise Undecodable(RejectReason.MISSING_ID, "uri is missing or blank")
        headline, body = clean_text("headline", news.headline), clean_text("body_text", news.body_text)
        if not headline and not body:
            raise Undecodable(RejectReason.MISSING_TEXT, "headline and body_text are both missing or blank")
        published_ms, stale, clamped = self._gate(_claimed_ms(news), received_ms)
        return Document(
            partition=record.partition,
            offset=record.offset,
            next_offset=record.next_offset,
            received_ms=received_ms,
            uri=uri,
            version=_version(news.version),
            headline=headline,
            body=body,
            language=clean_line("language", news.language, MAX_LANGUAGE_CHARACTERS) or UNDETERMINED_LANGUAGE,
            source=clean_line("source", news.source, MAX_SOURCE_CHARACTERS) or UNKNOWN_SOURCE,
            status=news.pubstatus,
            published_ms=published_ms,
            stale=stale,
            clamped=clamped,
        )

    def _gate(self, claimed_ms: int | None, received_ms: int) -> tuple[int | None, bool, bool]:
        """The publication time, and whether it is stale, and whether it was clamped.

        A claim slightly ahead (at most `max_ahead`) is a clock that runs fast: lowered to the received time without a mark.
        """
        if claimed_ms is None:
            return None, False, False
        stale = received_ms - claimed_ms > self._max_age_ms
        clamped = claimed_ms - received_ms > self._max_ahead_ms
        return min(claimed_ms, received_ms), stale, clamped


def received_time_ms(record_time_ms: int, previous_ms: int | None, now_ms: int, max_ahead_ms: int) -> tuple[int, bool]:
    """The received time of a record, in milliseconds, and whether the log's own timestamp had to be clamped.

    It never goes back within a partition: at least `previous_ms`, the received time of the record before (None: there was none).
    A timestamp more than `max_ahead_ms` past the wall clock `now_ms` is clamped to the wall clock. A record without a time has that
    of the record before it: a line that nobody can read must not throw a replay of old news into the present.
    """
    if record_time_ms < 0:
        return (now_ms if previous_ms is None else previous_ms), False
    clamped = record_time_ms > now_ms + max_ahead_ms
    time_ms = now_ms if clamped else record_time_ms
    return (time_ms if previous_ms is None else max(time_ms, previous_ms)), clamped


def parse_time_ms(text: str) -> int | None:
    """Milliseconds since the epoch of a date and time in RFC 3339 form; None where `text` is none, or no day of the calendar.

    Also taken: a space for the T, no seconds, no colon in the zone, a date alone (its midnight). Without a zone it is UTC. A leap
    second is the second after :59.
    """
    if _TIME.fullmatch(text) is None:
        return None
    leap = text[17:19] == "60"
    try:
        moment = datetime.fromisoformat((f"{text[:17]}59{text[19:]}" if leap else text).upper())
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // _MILLISECOND + 1000 * leap


def parse_object(value: bytes, decoder: msgspec.json.Decoder[_Decoded], max_bytes: int) -> _Decoded:
    """What `decoder` makes of one JSON object. Raises Undecodable for anything else, on any bytes.

    In order: no more than `max_bytes`, strict UTF-8 (a byte order mark is skipped), no more than `MAX_DEPTH` levels, JSON, types.
    Half a surrogate pair is read as NUL, so that it rejects the field it stands in, not a record that merely carries it along.
    """
    if len(value) > max_bytes:
        raise Undecodable(RejectReason.TOO_LARGE, f"the record has {len(value)} bytes, more than {max_bytes}")
    decode_utf8(value)
    value = value.removeprefix(_BYTE_ORDER_MARK)
    if _is_too_deep(value):
        raise Undecodable(RejectReason.TOO_DEEP, f"the record nests more than {MAX_DEPTH} levels")
    try:
        return _decode(value, decoder)
    except msgspec.ValidationError as error:
        raise _type_fault(value, str(error)) from None
    except msgspec.DecodeError as error:
        raise _syntax_fault(value, str(error)) from None


def decode_utf8(value: bytes) -> str:
    """The text of strict UTF-8. Raises Undecodable."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Undecodable(RejectReason.NOT_UTF8, f"the record is not UTF-8: at byte {error.start}") from None


def clean_text(field: str, text: str) -> str:
    """`text` without invisible characters and surrounding white space.

    Raises Undecodable on NUL and the other C0 controls, tabs and line ends excepted.
    """
    return _clean(field, text, _CONTROL_IN_TEXT)


def clean_line(field: str, text: str, max_characters: int) -> str:
    """As `clean_text`, for a name of one line: no tab, no line end, no more than `max_characters` as it came."""
    if len(text) > max_characters:
        raise Undecodable(RejectReason.TOO_LARGE, f"{field} has more than {max_characters} characters")
    return _clean(field, text, _CONTROL)


def _clean(field: str, text: str, forbidden: re.Pattern[str]) -> str:
    # One pass in C settles nearly every text; each of the searches below takes twice as long.
    if text.isprintable() or (forbidden is _CONTROL_IN_TEXT and text.replace("\n", " ").isprintable()):
        return text.strip()
    if forbidden.search(text):
        raise Undecodable(RejectReason.FORBIDDEN_CHARACTER, f"{field} holds a control character or half of a surrogate pair")
    return _INVISIBLE.sub("", text).strip()


def _version(version: str | int) -> str:
    if isinstance(version, str):
        return clean_line("version", version, MAX_VERSION_CHARACTERS) or DEFAULT_VERSION
    if not 0 <= version <= MAX_VERSION_NUMBER:
        raise _wrong_type("version")
    return str(version)


def _claimed_ms(news: News) -> int | None:
    """When the publisher says that this version appeared. Every time in the record is checked, also one that is not used."""
    _time_ms("received_at", news.received_at)
    first_ms = _time_ms("firstcreated", news.firstcreated)
    version_ms = _time_ms("versioncreated", news.versioncreated)
    return first_ms if version_ms is None else version_ms


def _time_ms(field: str, text: str | msgspec.UnsetType) -> int | None:
    if text is msgspec.UNSET:
        return None
    time_ms = parse_time_ms(text)
    if time_ms is None:
        raise Undecodable(RejectReason.BAD_TIME, f"{field} is no date and time like 2026-01-31T09:30:00Z")
    return time_ms


def _decode(value: bytes, decoder: msgspec.json.Decoder[_Decoded]) -> _Decoded:
    try:
        return decoder.decode(value)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        repaired = _ESCAPE.sub(lambda escape: rb"\u0000" if escape[1] else escape[0], value)
        if repaired == value:
            raise
        return decoder.decode(repaired)


def _type_fault(value: bytes, message: str) -> Undecodable:
    """What a fault of type means. A record of another version is judged by that alone: its fields may mean anything."""
    path = _FAULT_PATH.search(message)
    if path is None:
        return Undecodable(RejectReason.NOT_AN_OBJECT, "the record is no JSON object")
    try:
        version = _decode(value, _VERSIONED).schema_version
    except msgspec.DecodeError as error:
        # The first reading stopped at the wrong type and never saw the rest.
        return _syntax_fault(value, str(error))
    if version is not msgspec.UNSET and bytes(version) != b"%d" % SCHEMA_VERSION:
        return Undecodable(RejectReason.UNSUPPORTED_VERSION, f"schema_version is not {SCHEMA_VERSION}")
    return _wrong_type(path[1])


def _syntax_fault(value: bytes, message: str) -> Undecodable:
    if not value.strip():
        return Undecodable(RejectReason.NOT_JSON, "the record is empty")
    place = _FAULT_BYTE.search(message)
    where = f"at byte {place[1]}" if place else "it ends too early"
    return Undecodable(RejectReason.NOT_JSON, f"the record is not JSON: {where}")


def _wrong_type(field: str) -> Undecodable:
    return Undecodable(RejectReason.WRONG_TYPE, f"{field} must be {_EXPECTED.get(field, 'a string')}")


def _is_too_deep(value: bytes) -> bool:
    # The parser itself would stop at Python's recursion limit, which depends on the caller: a replay could decide otherwise.
    if not (_holds_more_than(MAX_DEPTH // 2, b"{", value) or _holds_more_than(MAX_DEPTH // 2, b"[", value)):
        return False
    depth = 0
    for token in _STRING_OR_BRACKET.finditer(value):
        if token[0] in (b"{", b"["):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif token[0] in (b"}", b"]"):
            depth -= 1
    return False


def _holds_more_than(number: int, byte: bytes, value: bytes) -> bool:
    # `find` skips at memory speed and stops early; `count` and `split` look at every byte and cost ten times as much.
    position = -1
    for _ in range(number + 1):
        position = value.find(byte, position + 1)
        if position < 0:
            return False
    return True
