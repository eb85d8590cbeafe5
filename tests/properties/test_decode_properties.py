"""Decoding over everything that a log may hold, against the published schema, and received time over whole histories."""

import json
from datetime import UTC, datetime, timedelta, timezone
from importlib.resources import files

import jsonschema
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.config import DocumentSettings
from monitor.decode import Decoder, parse_time_ms, received_time_ms
from monitor.types import Document, Partition, Record, Rejected, RejectReason

NOW_MS = 1_790_000_000_000
DAY_MS = 24 * 3_600_000
AHEAD_MS = 5 * 60_000
EXCERPT_BYTES = 100
PARTITION = Partition("news.raw", 0)
DECODER = Decoder(DocumentSettings(max_bytes=4_096, dead_letter_bytes=EXCERPT_BYTES))
VALIDATOR = jsonschema.Draft202012Validator(
    json.loads((files("monitor") / "schemas" / "news.raw.v1.json").read_text(encoding="utf-8"))
)
ONE_LINE = ("uri", "version", "language", "source")


def decode(value: bytes | None, received_ms: int = NOW_MS) -> Document | Rejected:
    return DECODER.decode(Record(PARTITION, 5, 9, 0, value), received_ms)


def check(value: bytes | None) -> Document | Rejected:
    """What decoding gave, after everything that holds for any bytes was found to hold."""
    outcome = decode(value)
    assert (outcome.partition, outcome.offset, outcome.next_offset, outcome.received_ms) == (PARTITION, 5, 9, NOW_MS)
    if isinstance(outcome, Rejected):
        assert outcome.reason in RejectReason
        assert outcome.detail.isascii()
        assert outcome.detail.isprintable()
        assert outcome.excerpt == (value or b"")[:EXCERPT_BYTES]
        assert outcome.size == len(value or b"")
        return outcome
    assert value is not None
    assert outcome.uri
    assert outcome.headline or outcome.body
    assert outcome.published_ms is None or outcome.published_ms <= NOW_MS
    for text in (outcome.uri, outcome.version, outcome.language, outcome.source, outcome.headline, outcome.body):
        assert text == text.strip()
        text.encode()
        assert not any(character < " " and character not in "\t\n\r" for character in text)
        assert not any(mark in text for mark in "\u200b\u202e\u2066\ufeff\u00ad\x7f\x85")
    assert not any(control in getattr(outcome, name) for name in ONE_LINE for control in "\t\n\r")
    assert 1 <= len(outcome.uri) <= 2_048
    assert len(outcome.source) <= 200
    return outcome


# --- any bytes ---------------------------------------------------------------------------------


@given(st.one_of(st.none(), st.binary(max_size=200), st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass"))))
@settings(max_examples=100)
def test_no_bytes_make_the_decoder_raise(value):
    check(value)


PIECES = st.sampled_from(
    [
        b"",
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"null",
        b"1e999",
        b"-",
        b"9" * 400,
        b"NaN",
        b"\\ud800",
        b"\\udfff",
        b"\\u0000",
        b"\\u202e",
        b"\\u00",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
        b"[" * 70,
        b'{"a":' * 70,
        b'"uri":5,',
        b'"schema_version":2,',
        b'"headline":"\\n",',
    ]
)
WIRE = json.dumps(
    {
        "schema_version": 1,
        "uri": "urn:a",
        "version": 2,
        "versioncreated": "2026-01-31T10:00:00Z",
        "headline": "Halden Bank loses \\ud800 \U0001f600",
        "body_text": 'Shares "fell".\n',
        "pubstatus": "usable",
        "more": [{"a": None}],
    }
).encode()


@given(st.lists(st.tuples(st.integers(0, len(WIRE)), st.integers(0, 12), PIECES), min_size=1, max_size=4))
@settings(max_examples=200)
@example([(0, len(WIRE), b'{"uri":5,"headline":"x"')])
def test_no_damage_to_a_good_record_makes_the_decoder_raise(cuts):
    value = WIRE
    for position, length, piece in cuts:
        value = value[:position] + piece + value[position + length :]
    check(value)


SECRET = "Zweibrücken"


@given(
    st.dictionaries(
        st.sampled_from(["uri", "version", "versioncreated", "headline", "source", "pubstatus", "schema_version", SECRET]),
        st.one_of(st.sampled_from([SECRET, SECRET + "\x00", [SECRET], {SECRET: SECRET}, SECRET * 300]), st.none(), st.integers()),
    )
)
@settings(max_examples=100)
def test_no_detail_repeats_the_text(fields):
    outcome = check(json.dumps(fields, ensure_ascii=False).encode())
    if isinstance(outcome, Rejected):
        assert "Zweib" not in outcome.detail


# --- the schema and the decoder ----------------------------------------------------------------

CHARACTERS = st.characters(codec="utf-8") | st.sampled_from(
    " \t\n\r\x00\x1f\x7f\x85\u00a0\u00ad\u180e\u200b\u2028\u202e\u2065\ufeff\ufffb"
)
SHORT = st.text(CHARACTERS, max_size=6)
WRONG = st.sampled_from([None, True, 1.5, -1, 0, 1, 2, 2**63 - 1, 2**63, [], ["x"], {}, {"a": "b"}])
CLOCKS = st.sampled_from(
    [
        "T10:00:00Z",
        " 10:00",
        "t23:59:60.5z",
        "T00:00:00+01:00",
        "T09:30:00-0930",
        "",
        "T24:00:00Z",
        "T10:00:00+24:00",
        "T10",
        "Z",
        "\n",
    ]
)
DAYS = st.sampled_from(
    ["2026-01-31", "2024-02-29", "2026-02-29", "2026-04-31", "0000-12-31", "9999-12-31", "2026-13-01", "20260131"]
)
VALUES = {
    "schema_version": st.sampled_from([1, 2, "1", None, True]),
    "uri": SHORT | st.integers(2_047, 2_050).map("u".__mul__) | WRONG,
    "version": SHORT | st.integers(-2, 2**64) | st.integers(99, 102).map("v".__mul__) | WRONG,
    "versioncreated": st.tuples(DAYS, CLOCKS).map("".join) | SHORT | WRONG,
    "firstcreated": st.tuples(DAYS, CLOCKS).map("".join) | WRONG,
    "received_at": st.tuples(DAYS, CLOCKS).map("".join) | WRONG,
    "headline": SHORT | WRONG,
    "body_text": SHORT | WRONG,
    "language": SHORT | st.integers(34, 37).map("l".__mul__) | WRONG,
    "source": SHORT | st.integers(199, 202).map("s".__mul__) | WRONG,
    "pubstatus": st.sampled_from(["usable", "withheld", "canceled", "Usable", "embargoed", "", None, 1]),
}
SOUND = {"uri": "urn:a", "headline": "Halden Bank loses"}


@st.composite
def records(draw):
    """Sound records in which one to three fields are drawn anew or left out, so that either verdict is common."""
    fields = dict(SOUND)
    for name in draw(st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=3, unique=True)):
        if draw(st.integers(0, 5)) == 0:
            fields.pop(name, None)
        else:
            fields[name] = draw(VALUES[name])
    return fields


def has_a_day_of_no_calendar(fields: dict[str, object]) -> bool:
    times = [fields.get(name) for name in ("versioncreated", "firstcreated", "received_at")]
    return any(isinstance(time, str) and time[:10] in {"2026-02-29", "2026-04-31", "0000-12-31"} for time in times)


@given(records())
@settings(max_examples=400)
def test_a_record_can_be_decoded_just_when_the_schema_says_so(fields):
    outcome = check(json.dumps(fields).encode())
    valid = VALIDATOR.is_valid(fields)
    if valid and has_a_day_of_no_calendar(fields):
        assert isinstance(outcome, Rejected)
        assert outcome.reason is RejectReason.BAD_TIME
    else:
        assert isinstance(outcome, Document) == valid, outcome


# --- times -------------------------------------------------------------------------------------

ZONES = st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=ZONES), st.sampled_from(["T", " ", "t"]))
@settings(max_examples=100)
def test_every_moment_with_its_zone_is_read_to_the_millisecond(moment, separator):
    assert parse_time_ms(moment.isoformat(separator)) == (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    naive = moment.replace(tzinfo=None)
    assert parse_time_ms(naive.isoformat(separator)) == parse_time_ms(naive.replace(tzinfo=UTC).isoformat())


BOUNDARIES = st.sampled_from(
    [-AHEAD_MS - 1, -AHEAD_MS, -1, 0, 1, AHEAD_MS - 1, AHEAD_MS, AHEAD_MS + 1, DAY_MS, -DAY_MS, -DAY_MS - 1]
)


@given(BOUNDARIES | st.integers(-2 * DAY_MS, 2 * DAY_MS), st.booleans())
@settings(max_examples=100)
def test_a_publisher_s_claim_is_gated_by_the_received_time(ahead_ms, first):
    text = datetime.fromtimestamp((NOW_MS + ahead_ms) / 1000, UTC).isoformat(timespec="milliseconds")
    outcome = check(json.dumps({**SOUND, "firstcreated" if first else "versioncreated": text}).encode())
    assert isinstance(outcome, Document)
    assert outcome.published_ms == NOW_MS + min(ahead_ms, 0)
    assert outcome.stale == (ahead_ms < -DAY_MS)
    assert outcome.clamped == (ahead_ms > AHEAD_MS)


STEPS = st.tuples(
    st.sampled_from([-1, 0, NOW_MS, NOW_MS + AHEAD_MS, NOW_MS + AHEAD_MS + 1, NOW_MS + DAY_MS])
    | st.integers(NOW_MS - 2 * AHEAD_MS, NOW_MS + 2 * AHEAD_MS),
    st.sampled_from([0, 1, AHEAD_MS]) | st.integers(-AHEAD_MS, AHEAD_MS),
)


@given(st.lists(STEPS, max_size=20), st.none() | st.integers(NOW_MS - AHEAD_MS, NOW_MS + AHEAD_MS))
@settings(max_examples=100)
def test_received_time_is_the_running_maximum_of_the_times_that_can_be_believed(history, start_ms):
    """Oracle: believe the log unless it is silent or too far ahead of the wall clock; then take the maximum of all so far."""
    previous_ms, believed = start_ms, [] if start_ms is None else [start_ms]
    for record_ms, wall_step_ms in history:
        now_ms = NOW_MS + wall_step_ms
        received_ms, clamped = received_time_ms(record_ms, previous_ms, now_ms, AHEAD_MS)
        too_far = record_ms - now_ms > AHEAD_MS
        if too_far or (record_ms < 0 and not believed):
            believed.append(now_ms)
        elif record_ms >= 0:
            believed.append(record_ms)
        assert (received_ms, clamped) == (max(believed), too_far)
        assert previous_ms is None or received_ms >= previous_ms
        previous_ms = received_ms


@given(st.lists(st.integers(0, NOW_MS + AHEAD_MS), max_size=20).map(sorted))
@settings(max_examples=50)
def test_a_sound_log_keeps_its_times(times_ms):
    previous_ms = None
    for time_ms in times_ms:
        previous_ms, clamped = received_time_ms(time_ms, previous_ms, NOW_MS, AHEAD_MS)
        assert (previous_ms, clamped) == (time_ms, False)
