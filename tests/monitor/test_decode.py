"""The wire: what is taken, what becomes a dead letter and why, and the published schema beside the decoder."""

import json
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files

import jsonschema
import msgspec
import pytest

from monitor.config import DocumentSettings
from monitor.decode import MAX_DEPTH, Decoder, News, parse_time_ms, received_time_ms
from monitor.types import Document, Partition, PublicationStatus, Record, Rejected, RejectReason

NOW_MS = 1_790_000_000_000
MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
PARTITION = Partition("news.raw", 3)
SCHEMA = json.loads((files("monitor") / "schemas" / "news.raw.v1.json").read_text(encoding="utf-8"))
DECODER = Decoder(DocumentSettings())


def decode(value: bytes | None, settings: DocumentSettings | None = None) -> Document | Rejected:
    decoder = DECODER if settings is None else Decoder(settings)
    return decoder.decode(Record(PARTITION, 7, 8, NOW_MS - 5, value), NOW_MS)


def wire(**fields) -> bytes:
    return json.dumps({"uri": "urn:a", "headline": "Halden Bank loses", **fields}).encode()


def raw(fields: bytes) -> bytes:
    return b'{"uri":"urn:a","headline":"Halden Bank loses",' + fields + b"}"


def accepted(value: bytes) -> Document:
    document = decode(value)
    assert isinstance(document, Document), document
    return document


def refused(value: bytes | None) -> tuple[RejectReason, str]:
    rejected = decode(value)
    assert isinstance(rejected, Rejected), rejected
    return rejected.reason, rejected.detail


def at(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, UTC).isoformat()


# --- what is taken -----------------------------------------------------------------------------


def test_a_full_record_becomes_a_document():
    value = wire(
        schema_version=1,
        version=3,
        versioncreated=at(NOW_MS - 60_000),
        firstcreated=at(NOW_MS - 120_000),
        received_at=at(NOW_MS - 1_000),
        body_text="Shares fell.\n\tMore follows.",
        language="en-GB",
        source="Example Wire",
        pubstatus="withheld",
        urgency=3,
        subject=[{"code": "04000000"}],
    )
    assert accepted(value) == Document(
        partition=PARTITION,
        offset=7,
        next_offset=8,
        received_ms=NOW_MS,
        uri="urn:a",
        version="3",
        headline="Halden Bank loses",
        body="Shares fell.\n\tMore follows.",
        language="en-GB",
        source="Example Wire",
        status=PublicationStatus.WITHHELD,
        published_ms=NOW_MS - 60_000,
    )


def test_an_id_and_a_text_are_enough():
    document = accepted(b'{"uri":"urn:a","body_text":"Shares fell."}')
    assert (document.version, document.language, document.source, document.status) == ("1", "und", "unknown", "usable")
    assert document.published_ms is None
    assert not document.stale
    assert not document.clamped
    assert (document.headline, document.body) == ("", "Shares fell.")


def test_blank_optional_fields_mean_their_defaults():
    document = accepted(wire(version=" ", language="", source="\u200b", body_text=" \n"))
    assert (document.version, document.language, document.source, document.body) == ("1", "und", "unknown", "")


def test_a_version_is_the_same_as_a_number_and_as_text():
    assert accepted(wire(version=12)).version == accepted(wire(version="12")).version == "12"
    assert accepted(wire(version=0)).version == "0"
    assert accepted(wire(version=2**63 - 1)).version == str(2**63 - 1)


def test_invisible_characters_are_stripped_and_white_space_is_trimmed():
    text = "\u200b \ufeffHal\u00adden\u200b Bank\u202e \u2066loses\u2069\u0085\u007f\u200d \n\u200e"
    document = accepted(wire(headline=text, body_text=text, source=" Example\u200e Wire ", uri=" urn:\u200ba "))
    assert document.headline == document.body == "Halden Bank loses"
    assert (document.source, document.uri) == ("Example Wire", "urn:a")


def test_text_stays_as_it_is_otherwise():
    text = "A &amp; B\r\n\t“quoted” \u00a0 包商银行 \U0001f600 e\u0301"
    assert accepted(wire(body_text=text)).body == text


def test_the_last_of_two_equal_keys_wins():
    assert accepted(raw(b'"source":"first","source":"last"')).source == "last"


def test_a_byte_order_mark_is_skipped():
    assert accepted(b"\xef\xbb\xbf" + wire()).headline == "Halden Bank loses"


def test_unknown_fields_may_hold_anything():
    for anything in (b"null", b"1e999", b"9" * 5_000, b'"\\ud800"', b'"\\u0000"', b"[[1],{}]", b'{"\\udc00":1}'):
        assert accepted(raw(b'"more":' + anything)).uri == "urn:a"


def test_as_many_levels_as_allowed_pass_and_one_more_does_not():
    inner = MAX_DEPTH - 1
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        leaf = b"1"
        assert accepted(raw(b'"more":' + opening * inner + leaf + closing * inner)).uri == "urn:a"
        assert refused(raw(b'"more":' + opening * (inner + 1) + leaf + closing * (inner + 1)))[0] is RejectReason.TOO_DEEP


def test_many_brackets_side_by_side_or_in_texts_are_not_deep():
    assert accepted(raw(b'"more":[' + b"[],{}," * 500 + b"1]")).uri == "urn:a"
    text = '[{"' * 500
    assert accepted(wire(body_text=text)).body == text
    assert accepted(wire(body_text="\\" + text + "\\")).body == "\\" + text + "\\"


# --- what becomes a dead letter ----------------------------------------------------------------

UNDECODABLE = {
    "a tombstone": (None, RejectReason.TOMBSTONE, "no value"),
    "nothing": (b"", RejectReason.NOT_JSON, "empty"),
    "white space": (b" \n", RejectReason.NOT_JSON, "empty"),
    "a mark alone": (b"\xef\xbb\xbf", RejectReason.NOT_JSON, "empty"),
    "plain text": (b"Halden Bank loses", RejectReason.NOT_JSON, "at byte 0"),
    "a registry's frame": (b"\x00\x00\x00\x00\x07" + wire(), RejectReason.NOT_JSON, "at byte 0"),
    "a cut record": (wire()[:-1], RejectReason.NOT_JSON, "ends too early"),
    "two records": (wire() + wire(), RejectReason.NOT_JSON, "at byte"),
    "UTF-16": (wire().decode().encode("utf-16"), RejectReason.NOT_UTF8, "at byte 0"),
    "Latin-1": ('{"uri":"urn:a","headline":"Crédit"}'.encode("latin-1"), RejectReason.NOT_UTF8, "at byte 29"),
    "bad bytes in an unknown field": (raw(b'"more":"\xff"'), RejectReason.NOT_UTF8, "at byte"),
    "a surrogate in UTF-8": (raw(b'"source":"\xed\xa0\x80"'), RejectReason.NOT_UTF8, "at byte"),
    "an overlong NUL": (raw(b'"source":"\xc0\x80"'), RejectReason.NOT_UTF8, "at byte"),
    "NaN": (raw(b'"more":NaN'), RejectReason.NOT_JSON, "at byte"),
    "Infinity": (raw(b'"version":Infinity'), RejectReason.NOT_JSON, "at byte"),
    "a raw NUL": (raw(b'"source":"\x00"'), RejectReason.NOT_JSON, "at byte"),
    "a raw line end": (raw(b'"source":"a\nb"'), RejectReason.NOT_JSON, "at byte"),
    "an array": (b"[" + wire() + b"]", RejectReason.NOT_AN_OBJECT, "object"),
    "a string": (b'"urn:a"', RejectReason.NOT_AN_OBJECT, "object"),
    "a number": (b"1", RejectReason.NOT_AN_OBJECT, "object"),
    "null": (b"null", RejectReason.NOT_AN_OBJECT, "object"),
    "true": (b"true", RejectReason.NOT_AN_OBJECT, "object"),
    "100,000 arrays": (raw(b'"more":' + b"[" * 100_000 + b"]" * 100_000), RejectReason.TOO_DEEP, "64 levels"),
    "100,000 objects": (b'{"a":' * 100_000, RejectReason.TOO_DEEP, "64 levels"),
    "100,000 brackets": (b"[" * 100_000, RejectReason.TOO_DEEP, "64 levels"),
    "no id": (b'{"headline":"Halden Bank loses"}', RejectReason.MISSING_ID, "uri"),
    "an empty object": (b"{}", RejectReason.MISSING_ID, "uri"),
    "a blank id": (wire(uri=" \u200b"), RejectReason.MISSING_ID, "uri"),
    "no text": (b'{"uri":"urn:a"}', RejectReason.MISSING_TEXT, "headline and body_text"),
    "a blank text": (wire(headline=" \n\u200b", body_text="\u202e"), RejectReason.MISSING_TEXT, "headline and body_text"),
    "a null id": (wire(uri=None), RejectReason.WRONG_TYPE, "uri must be a string"),
    "a number as id": (wire(uri=5), RejectReason.WRONG_TYPE, "uri must be a string"),
    "a null headline": (wire(headline=None, body_text="x"), RejectReason.WRONG_TYPE, "headline must be a string"),
    "a null in an optional field": (wire(source=None), RejectReason.WRONG_TYPE, "source must be a string"),
    "a list as body": (wire(body_text=["a"]), RejectReason.WRONG_TYPE, "body_text must be a string"),
    "an object as language": (wire(language={"a": 1}), RejectReason.WRONG_TYPE, "language must be a string"),
    "an unknown status": (
        wire(pubstatus="embargoed"),
        RejectReason.WRONG_TYPE,
        "pubstatus must be one of usable, withheld, canceled",
    ),
    "a status that points elsewhere": (wire(pubstatus="x - at `$.uri`"), RejectReason.WRONG_TYPE, "pubstatus must be"),
    "a null status": (wire(pubstatus=None), RejectReason.WRONG_TYPE, "pubstatus must be"),
    "a negative version": (wire(version=-1), RejectReason.WRONG_TYPE, "version must be"),
    "a version beyond 63 bits": (wire(version=2**63), RejectReason.WRONG_TYPE, "version must be"),
    "a version with a fraction": (wire(version=1.5), RejectReason.WRONG_TYPE, "version must be"),
    "a version as truth": (wire(version=True), RejectReason.WRONG_TYPE, "version must be"),
    "a version of 5,000 digits": (raw(b'"version":' + b"9" * 5_000), RejectReason.WRONG_TYPE, "version must be"),
    "a version past all numbers": (raw(b'"version":1e999'), RejectReason.WRONG_TYPE, "version must be"),
    "a number as time": (wire(versioncreated=1_790_000_000), RejectReason.WRONG_TYPE, "versioncreated must be a string"),
    "a null time": (wire(firstcreated=None), RejectReason.WRONG_TYPE, "firstcreated must be a string"),
    "a time past all numbers": (raw(b'"received_at":1e999'), RejectReason.WRONG_TYPE, "received_at must be a string"),
    "NaN as time": (wire(versioncreated="NaN"), RejectReason.BAD_TIME, "versioncreated"),
    "an empty time": (wire(versioncreated=""), RejectReason.BAD_TIME, "versioncreated"),
    "a bad time that is not used": (
        wire(versioncreated="2026-01-31T00:00:00Z", firstcreated="31 Jan"),
        RejectReason.BAD_TIME,
        "firstcreated",
    ),
    "a bad collector's time": (wire(received_at="yesterday"), RejectReason.BAD_TIME, "received_at"),
    "NUL": (wire(headline="a\x00b"), RejectReason.FORBIDDEN_CHARACTER, "headline"),
    "an escape sequence": (wire(body_text="\x1b[31mred"), RejectReason.FORBIDDEN_CHARACTER, "body_text"),
    "a form feed beside bidi": (wire(body_text="a\u202e\x0cb"), RejectReason.FORBIDDEN_CHARACTER, "body_text"),
    "half of a pair": (raw(b'"body_text":"\\ud83d"'), RejectReason.FORBIDDEN_CHARACTER, "body_text"),
    "the other half": (raw(b'"body_text":"\\uDE00 x"'), RejectReason.FORBIDDEN_CHARACTER, "body_text"),
    "two first halves": (raw(b'"body_text":"\\ud83d\\ud83d"'), RejectReason.FORBIDDEN_CHARACTER, "body_text"),
    "half of a pair behind a backslash": (raw(b'"body_text":"\\\\\\ud83d"'), RejectReason.FORBIDDEN_CHARACTER, "body_text"),
    "a line end in an id": (wire(uri="urn:a\nb"), RejectReason.FORBIDDEN_CHARACTER, "uri"),
    "a tab in a source": (wire(source="a\tb"), RejectReason.FORBIDDEN_CHARACTER, "source"),
    "a line end after a version": (wire(version="1\n"), RejectReason.FORBIDDEN_CHARACTER, "version"),
    "a carriage return in a language": (wire(language="en\r"), RejectReason.FORBIDDEN_CHARACTER, "language"),
    "a long id": (wire(uri="u" * 2_049), RejectReason.TOO_LARGE, "uri has more than 2048"),
    "a long source": (wire(source="s" * 201), RejectReason.TOO_LARGE, "source has more than 200"),
    "a long language": (wire(language="l" * 36), RejectReason.TOO_LARGE, "language has more than 35"),
    "a long version": (wire(version="v" * 101), RejectReason.TOO_LARGE, "version has more than 100"),
    "10 MB": (wire(body_text="a" * 10_000_000), RejectReason.TOO_LARGE, "more than 1048576"),
    "another version": (wire(schema_version=2), RejectReason.UNSUPPORTED_VERSION, "schema_version is not 1"),
    "another version with other types": (wire(headline={}, schema_version=2), RejectReason.UNSUPPORTED_VERSION, "schema_version"),
    "a version as text": (wire(schema_version="1"), RejectReason.UNSUPPORTED_VERSION, "schema_version"),
    "a null version of the format": (wire(schema_version=None), RejectReason.UNSUPPORTED_VERSION, "schema_version"),
    "wrong type, then no JSON": (b'{"uri":5,"headline":oops}', RejectReason.NOT_JSON, "at byte"),
    "wrong type, then the end": (b'{"uri":5,"headl', RejectReason.NOT_JSON, "ends too early"),
    "wrong type, then half a pair": (raw(b'"source":5,"more":"\\ud800"'), RejectReason.WRONG_TYPE, "source must be a string"),
}


@pytest.mark.parametrize("case", UNDECODABLE)
def test_what_cannot_be_decoded_is_one_dead_letter_with_its_reason(case):
    value, reason, words = UNDECODABLE[case]
    found, detail = refused(value)
    assert found is reason
    assert words in detail
    assert "\n" not in detail


def test_every_reason_has_a_record_that_earns_it():
    assert {reason for _, reason, _ in UNDECODABLE.values()} == set(RejectReason)


def test_a_dead_letter_keeps_its_position_its_size_and_a_bounded_beginning():
    value = b"x" * 3_000
    rejected = decode(value, DocumentSettings(dead_letter_bytes=1_000, max_bytes=1_024))
    assert isinstance(rejected, Rejected)
    assert (rejected.partition, rejected.offset, rejected.next_offset, rejected.received_ms) == (PARTITION, 7, 8, NOW_MS)
    assert (rejected.size, rejected.excerpt) == (3_000, b"x" * 1_000)
    tombstone = decode(None)
    assert isinstance(tombstone, Rejected)
    assert (tombstone.size, tombstone.excerpt) == (0, b"")


def test_a_record_of_just_the_allowed_size_passes():
    empty = len(wire(body_text=""))
    settings = DocumentSettings(max_bytes=2_000)
    assert isinstance(decode(wire(body_text="a" * (2_000 - empty)), settings), Document)
    assert isinstance(decode(wire(body_text="a" * (2_001 - empty)), settings), Rejected)


def test_names_of_just_the_allowed_length_pass():
    document = accepted(wire(uri="u" * 2_048, source="s" * 200, language="l" * 35, version="v" * 100))
    assert (len(document.uri), len(document.source), len(document.language), len(document.version)) == (2_048, 200, 35, 100)


def test_a_deep_caller_changes_no_decision():
    def deep(levels: int, value: bytes) -> Document | Rejected:
        return deep(levels - 1, value) if levels else decode(value)

    value = raw(b'"more":' + b"[" * 63 + b"]" * 63)
    assert isinstance(deep(600, value), Document)


# --- times -------------------------------------------------------------------------------------

TIMES = {
    "1970-01-01T00:00:00Z": 0,
    "1970-01-01": 0,
    "1970-01-01 00:01": 60_000,
    "1970-01-01t00:00:01z": 1_000,
    "1970-01-01T00:00:00.0019": 1,
    "1970-01-01T00:00:00.123456789Z": 123,
    "1969-12-31T23:59:59.999Z": -1,
    "1970-01-01T01:00:00+01:00": 0,
    "1970-01-01T01:00:00+0100": 0,
    "1969-12-31T23:30:00-00:30": 0,
    "2016-12-31T23:59:60Z": 1_483_228_800_000,
    "2016-12-31T23:59:60.5Z": 1_483_228_800_500,
    "2024-02-29T00:00:00Z": 1_709_164_800_000,
    "0001-01-01T00:00:00+23:59": -62_135_683_140_000,
    "9999-12-31T23:59:60-23:59": 253_402_387_140_000,
}
NO_TIMES = (
    "",
    "NaN",
    "1790000000",
    "20260131",
    "2026-W05-6",
    "2026-1-31",
    "2026-00-10",
    "2026-13-10",
    "2026-01-32",
    "2026-02-29",
    "0000-01-01",
    "2026-01-31T",
    "2026-01-31T24:00:00Z",
    "2026-01-31T23:60:00Z",
    "2026-01-31T23:59:61Z",
    "2026-01-31T10:00:00+24:00",
    "2026-01-31T10:00:00+01",
    "2026-01-31T10:00:00 Z",
    "2026-01-31T10:00:00.Z",
    "2026-01-31T10:00:00,5Z",
    "2026-01-31T10:00:00Z\n",
    " 2026-01-31T10:00:00Z",
    "Sat, 31 Jan 2026 10:00:00 GMT",
    "٢٠٢٦-٠١-٣١",
    "1e999",
)


@pytest.mark.parametrize("text", TIMES)
def test_a_time_is_read_to_the_millisecond(text):
    assert parse_time_ms(text) == TIMES[text]


@pytest.mark.parametrize("text", NO_TIMES)
def test_what_is_no_time_is_none(text):
    assert parse_time_ms(text) is None


def test_a_change_to_summer_time_is_the_zone_s_own_affair():
    before = datetime(2026, 3, 29, 1, 59, 59, tzinfo=timezone(timedelta(hours=1)))
    after = datetime(2026, 3, 29, 3, 0, 0, tzinfo=timezone(timedelta(hours=2)))
    first, second = parse_time_ms(before.isoformat()), parse_time_ms(after.isoformat())
    assert first is not None
    assert second == first + 1_000


def test_the_version_s_time_goes_before_the_first_version_s():
    first, version = at(NOW_MS - HOUR_MS), at(NOW_MS - MINUTE_MS)
    assert accepted(wire(versioncreated=version, firstcreated=first)).published_ms == NOW_MS - MINUTE_MS
    assert accepted(wire(firstcreated=first)).published_ms == NOW_MS - HOUR_MS
    assert accepted(wire(received_at=first)).published_ms is None


@pytest.mark.parametrize(
    ("ahead_ms", "published_ms", "stale", "clamped"),
    [
        (-24 * HOUR_MS - 1, NOW_MS - 24 * HOUR_MS - 1, True, False),
        (-24 * HOUR_MS, NOW_MS - 24 * HOUR_MS, False, False),
        (-1, NOW_MS - 1, False, False),
        (0, NOW_MS, False, False),
        (1, NOW_MS, False, False),
        (5 * MINUTE_MS, NOW_MS, False, False),
        (5 * MINUTE_MS + 1, NOW_MS, False, True),
        (24 * HOUR_MS, NOW_MS, False, True),
    ],
)
def test_a_claim_is_stale_when_too_old_and_clamped_when_too_new(ahead_ms, published_ms, stale, clamped):
    document = accepted(wire(versioncreated=at(NOW_MS + ahead_ms)))
    assert (document.published_ms, document.stale, document.clamped) == (published_ms, stale, clamped)


def test_the_year_9999_is_clamped_and_the_year_1_is_stale():
    assert accepted(wire(versioncreated="9999-12-31T23:59:59Z")).clamped
    assert accepted(wire(versioncreated="0001-01-01")).stale


@pytest.mark.parametrize(
    ("record_ms", "previous_ms", "expected"),
    [
        (100, None, (100, False)),
        (100, 90, (100, False)),
        (90, 100, (100, False)),
        (0, None, (0, False)),
        (-1, None, (1_000, False)),
        (-1, 900, (900, False)),
        (-1, 1_200, (1_200, False)),
        (1_300, None, (1_300, False)),
        (1_301, None, (1_000, True)),
        (1_301, 1_200, (1_200, True)),
    ],
)
def test_received_time_is_the_log_s_unless_it_goes_back_is_missing_or_is_far_ahead(record_ms, previous_ms, expected):
    assert received_time_ms(record_ms, previous_ms, now_ms=1_000, max_ahead_ms=300) == expected


# --- the published schema ----------------------------------------------------------------------


def test_the_schema_is_a_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_schema_names_the_fields_that_the_decoder_knows():
    assert set(SCHEMA["properties"]) == {field.encode_name for field in msgspec.structs.fields(News)}
    assert SCHEMA["required"] == ["uri"]
    assert all("description" in field for field in SCHEMA["properties"].values())


def test_the_schema_s_defaults_are_what_a_bare_record_gets():
    document = accepted(b'{"uri":"urn:a","headline":"x"}')
    defaults = {name: field["default"] for name, field in SCHEMA["properties"].items() if "default" in field}
    got = (document.version, document.language, document.source, document.status)
    assert defaults == dict(zip(("version", "language", "source", "pubstatus"), got, strict=True), schema_version=1)


@pytest.mark.parametrize("example", SCHEMA["examples"], ids=lambda example: example["uri"])
def test_the_schema_s_examples_are_valid_and_can_be_decoded(example):
    jsonschema.validate(example, SCHEMA)
    assert accepted(json.dumps(example).encode()).uri == example["uri"]


@pytest.mark.parametrize(
    "case",
    [
        case
        for case, (_, reason, _) in UNDECODABLE.items()
        if reason
        in {
            RejectReason.MISSING_ID,
            RejectReason.MISSING_TEXT,
            RejectReason.WRONG_TYPE,
            RejectReason.BAD_TIME,
            RejectReason.UNSUPPORTED_VERSION,
            RejectReason.NOT_AN_OBJECT,
        }
        and case != "a version of 5,000 digits"  # Python's own json cannot read it
    ],
)
def test_the_schema_refuses_what_the_decoder_refuses(case):
    assert not jsonschema.Draft202012Validator(SCHEMA).is_valid(json.loads(UNDECODABLE[case][0]))
