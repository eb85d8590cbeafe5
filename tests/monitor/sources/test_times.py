"""The time that a document names for itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.sources.times import document_time_ms


@pytest.mark.parametrize(
    ("line", "time_ms"),
    [
        (b'{"received_at": "1970-01-01T00:00:01Z"}', 1_000),
        (b'{"received_at": "1970-01-01T00:00:00Z"}', 0),
        (b'{"versioncreated": "1970-01-01T01:00:00.250+01:00"}', 250),
        (b'{"firstcreated": "1970-01-01T00:00:00.0019Z", "body": [1, {"received_at": "2000-01-01T00:00:00Z"}]}', 1),
        (b'{"firstcreated": "1970-01-01T00:00:03Z", "versioncreated": "1970-01-01T00:00:02Z"}', 2_000),
        (b'{"versioncreated": "1970-01-01T00:00:02Z", "received_at": "1970-01-01T00:00:01Z"}', 1_000),
        (b'{"received_at": "soon", "versioncreated": 7, "firstcreated": "1970-01-01T00:00:03Z"}', 3_000),
        (b'{"received_at": "9999-12-31T23:59:59.999Z"}', 253_402_300_799_999),
    ],
)
def test_the_first_usable_time_counts(line: bytes, time_ms: int) -> None:
    assert document_time_ms(line) == time_ms


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"not json",
        b'{"received_at": "2026-01-01T00:00:00"}',
        b'{"received_at": "1969-12-31T23:59:59.999Z"}',
        b'{"received_at": "0001-01-01T00:00:00+14:00"}',
        b'{"received_at": "2026-02-30T00:00:00Z"}',
        b'{"received_at": 1e999}',
        b'{"received_at": "\xff"}',
        b'{"received_at": null, "versioncreated": {}, "firstcreated": []}',
        b'{"a": ' + b"[" * 100_000,
    ],
)
def test_without_a_usable_time_there_is_none(line: bytes) -> None:
    assert document_time_ms(line) is None


@given(
    moment=st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 30)),  # noqa: DTZ001 (the zone is drawn beside it)
    minutes=st.integers(-14 * 60, 14 * 60),
)
def test_every_moment_is_exact_to_the_millisecond(moment: datetime, minutes: int) -> None:
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    line = msgspec.json.encode({"received_at": zoned.isoformat()})
    assert document_time_ms(line) == (zoned - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
