"""Family 14: times that are late, early, wrong or missing. Windows run on reception, and every record has one place in it."""

from collections import Counter
from datetime import timedelta

import pytest
from sqlalchemy import select

from monitor.store.engine import open_engine, reading
from monitor.store.ledger import Ledger
from monitor.store.schema import dead_letter, document
from monitor.types import ALL_SERIES, MINUTE_MS
from tests.end_to_end.stream import BEGIN
from tests.faults.tailing import append, news, running, until_placed

MINUTE = timedelta(minutes=1)
BEGIN_MS = int(BEGIN.timestamp() * 1_000)
WORDS = ("anchor", "birch", "cedar", "delta", "ember", "fjord", "grove", "harbor", "inlet", "jetty", "kelp", "lagoon")


def headline(number):
    """A headline that is no copy of another."""
    return " ".join(f"{WORDS[(number * 7 + place * place) % len(WORDS)]}{number}" for place in range(8))


@pytest.fixture
def read(tmp_path):
    """Reads lines to the end; the engine of what came of them, and the daemon's metrics."""
    engines = []

    def reading_lines(lines):
        engines.append(engine := open_engine(f"sqlite:///{tmp_path / 'store.db'}"))
        append(tmp_path, lines)
        with running(tmp_path, engine) as daemon:
            until_placed(engine, len(lines))
            clamped = daemon.registry.get_sample_value("bellwether_documents_clamped_total")
        return engine, clamped

    yield reading_lines
    for engine in engines:
        engine.dispose()


def documents(engine):
    with reading(engine) as connection:
        return {row.uri: row for row in connection.execute(select(document))}


def counted_minutes(engine):
    found = Counter()
    for bucket in Ledger(engine).buckets(0):
        if bucket.series == ALL_SERIES:
            found[bucket.minute_ms] += sum(bucket.count.stories) + sum(bucket.count.copies)
    return found


def test_news_that_was_published_long_before_it_was_received_counts_when_it_is_received_or_not_at_all(read):
    day = timedelta(days=1)
    fresh = {"now": timedelta(0), "5 min": 5 * MINUTE, "6 h": timedelta(hours=6), "24 h": day}
    stale = {"24 h and a second": day + timedelta(seconds=1), "30 d": 30 * day, "1,900 y": 1_900 * 365 * day}
    lines = [
        news(name, headline(number), received_at=BEGIN, versioncreated=BEGIN - age)
        for number, (name, age) in enumerate((fresh | stale).items())
    ]
    engine, _ = read(lines)
    standings = {uri: row.standing for uri, row in documents(engine).items()}
    assert standings == dict.fromkeys(fresh, "story") | dict.fromkeys(stale, "stale")
    assert counted_minutes(engine) == {BEGIN_MS: len(fresh)}


def test_news_from_the_future_is_clamped_counted_and_told(read):
    claims = {
        "a clock that is fast": (BEGIN + 4 * MINUTE, False),
        "tomorrow": (BEGIN + timedelta(days=1), True),
        "the year 9999": (BEGIN.replace(year=9999), True),
    }
    lines = [
        news(name, headline(number), received_at=BEGIN, versioncreated=moment)
        for number, (name, (moment, _)) in enumerate(claims.items())
    ]
    engine, clamped = read(lines)
    assert {row.published_ms for row in documents(engine).values()} == {BEGIN_MS}
    assert clamped == sum(told for _, told in claims.values())
    assert counted_minutes(engine) == {BEGIN_MS: len(claims)}


def test_times_that_are_none_cost_their_record_and_no_neighbour(read):
    times = ("", "0", "-1", "NaN", "1e999", "next Monday", "2026-02-30T00:00:00Z", "2026-03-02T25:00:00Z", "10000-01-01T00:00:00Z")
    lines = []
    for number, written in enumerate(times):
        lines.append(news(f"good:{number}", headline(number), received_at=BEGIN + number * MINUTE))
        lines.append(news(f"bad:{number}", headline(100 + number), received_at=BEGIN + number * MINUTE, versioncreated=written))
    engine, _ = read(lines)
    with reading(engine) as connection:
        letters = Counter(connection.scalars(select(dead_letter.c.reason)))
    assert letters == {"bad_time": len(times)}
    assert documents(engine).keys() == {f"good:{number}" for number in range(len(times))}
    assert counted_minutes(engine) == {BEGIN_MS + number * MINUTE_MS: 1 for number in range(len(times))}


def test_every_way_to_write_one_moment_is_that_moment(read):
    # The changes to and from summer time in London, and a leap second.
    same = {
        "2026-03-29T01:30:00Z": ("2026-03-29T02:30:00+01:00", "2026-03-29 01:30:00Z", "2026-03-29t01:30:00z", "2026-03-29T01:30"),
        "2026-10-25T00:30:00Z": ("2026-10-25T01:30:00+01:00", "2026-10-25T00:30:00+00:00", "2026-10-24T20:30:00-0400"),
        "2017-01-01T00:00:00Z": ("2016-12-31T23:59:60Z", "2017-01-01"),
    }
    pairs = [(moment, written) for moment, forms in same.items() for written in (moment, *forms)]
    lines = [
        news(f"{number}", headline(number), received_at="2026-10-26T00:00:00Z", versioncreated=written)
        for number, (_, written) in enumerate(pairs)
    ]
    engine, _ = read(lines)
    found = documents(engine)
    by_moment = {
        moment: {found[str(number)].published_ms for number, (own, _) in enumerate(pairs) if own == moment} for moment in same
    }
    assert {moment: len(times) for moment, times in by_moment.items()} == dict.fromkeys(same, 1)


def test_a_log_out_of_order_counts_each_record_once_and_time_never_goes_back(read):
    offsets = (0, 5, 3, 4, 1, 9, 2, 8)
    lines = [news(f"{place}", headline(place), received_at=BEGIN + minute * MINUTE) for place, minute in enumerate(offsets)]
    engine, _ = read(lines)
    found = documents(engine)
    received = [found[str(place)].received_ms for place in range(len(offsets))]
    assert received == sorted(received)
    assert received == [BEGIN_MS + max(offsets[: place + 1]) * MINUTE_MS for place in range(len(offsets))]
    assert sum(counted_minutes(engine).values()) == len(offsets)
