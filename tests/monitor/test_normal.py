"""What is normal, renewed every hour of stream time from counts and past surges alone."""

import numpy as np
import pytest
from sqlalchemy import insert

from monitor.normal import Normal, watched
from monitor.store.engine import open_engine, writing
from monitor.store.ledger import Ledger
from monitor.store.rows import insert_rows
from monitor.store.schema import bucket, document, mention
from monitor.types import ALL_SERIES, HOUR_MS, MINUTE_MS, Bucket, Count, Partition, Series, SeriesKind

BANK = Series(SeriesKind.ENTITY, "bank")
ROSTER = watched(["bank", "other"], ["Markets"])
BEGIN_MS = 1_772_431_200_000 // HOUR_MS * HOUR_MS


def buckets(days):
    """A story an hour about everything, and a bad one about the bank every fourth, over two partitions."""
    for hour in range(days * 24):
        for series, every in ((ALL_SERIES, 1), (BANK, 4)):
            if hour % every == 0:
                count = Count((int(series == BANK), 1, 0, 0), (2, 0, 0, 0), -7)
                yield Bucket(Partition("news", hour % 2), BEGIN_MS + hour * HOUR_MS + 7 * MINUTE_MS, series, count)


def rate(normal, at_ms, surges=None):
    baseline = normal.baseline(at_ms, surges or {})
    return baseline.negative.rate[baseline.roster.rows[BANK]]


def test_every_series_that_can_be_counted_is_watched():
    assert ROSTER.series == (ALL_SERIES, BANK, Series(SeriesKind.ENTITY, "other"), Series(SeriesKind.TOPIC, "Markets"))


def test_the_baseline_is_made_once_an_hour_and_does_not_look_into_its_own_hour():
    normal = Normal(ROSTER)
    normal.add(buckets(20))
    at_ms = BEGIN_MS + 20 * 24 * HOUR_MS
    first = normal.baseline(at_ms + MINUTE_MS, {})
    normal.add([Bucket(Partition("news", 0), at_ms, BANK, Count((90, 0, 0, 0), (0, 0, 0, 0), -900))])
    assert normal.baseline(at_ms + 59 * MINUTE_MS, {}) is first
    again = Normal(ROSTER)
    again.add(buckets(20))
    again.add([Bucket(Partition("news", 0), at_ms, BANK, Count((90, 0, 0, 0), (0, 0, 0, 0), -900))])
    assert rate(again, at_ms + 30 * MINUTE_MS) == first.negative.rate[first.roster.rows[BANK]]
    assert normal.baseline(at_ms + HOUR_MS, {}) is not first


def test_what_happens_to_a_surge_in_the_hour_itself_changes_nothing_after_a_restart():
    at_ms = BEGIN_MS + 20 * 24 * HOUR_MS
    rates = set()
    for span in (None, (at_ms + MINUTE_MS, None), (at_ms + MINUTE_MS, at_ms + 9 * MINUTE_MS)):
        surges = {} if span is None else {BANK: {"surge": span}}
        normal = Normal(ROSTER)
        normal.add(buckets(20))
        rates.add(rate(normal, at_ms + 30 * MINUTE_MS, surges))
    assert len(rates) == 1


def test_a_past_surge_is_left_out_of_its_own_baseline():
    at_ms, day_ms = BEGIN_MS + 20 * 24 * HOUR_MS, 24 * HOUR_MS
    burst = [Bucket(Partition("news", 0), at_ms - 5 * day_ms, BANK, Count((90, 0, 0, 0), (0, 0, 0, 0), -900))]
    rates = []
    for surges in ({}, {BANK: {"surge": (at_ms - 5 * day_ms, at_ms - 5 * day_ms + HOUR_MS)}}):
        normal = Normal(ROSTER)
        normal.add([*buckets(20), *burst])
        rates.append(rate(normal, at_ms, surges))
    assert rates[1] < rates[0]


def test_after_clear_nothing_is_known():
    normal, fresh = Normal(ROSTER), Normal(ROSTER)
    normal.add(buckets(20))
    normal.baseline(BEGIN_MS + 20 * 24 * HOUR_MS, {})
    normal.clear()
    assert rate(normal, BEGIN_MS + 20 * 24 * HOUR_MS) == rate(fresh, BEGIN_MS + 20 * 24 * HOUR_MS)


@pytest.fixture
def engine(database):
    engine = open_engine(database)
    yield engine
    engine.dispose()


def test_the_hours_of_the_store_give_the_baseline_of_the_minutes(engine):
    rows = [
        dict(
            zip(
                (column.name for column in bucket.columns if not column.primary_key),
                (*one.count.stories, *one.count.copies, one.count.score_units),
                strict=True,
            )
        )
        | {
            "minute_ms": one.minute_ms,
            "kind": str(one.series.kind),
            "name": one.series.name,
            "topic": one.partition.topic,
            "number": one.partition.number,
        }
        for one in buckets(20)
    ]
    with writing(engine) as connection:
        insert_rows(connection, bucket, rows)
    live, restored, at_ms = Normal(ROSTER), Normal(ROSTER), BEGIN_MS + 20 * 24 * HOUR_MS
    live.add(buckets(20))
    restored.add(Ledger(engine).hours(BEGIN_MS))
    one, other = live.baseline(at_ms, {}), restored.baseline(at_ms, {})
    for name in ("rate", "certainty", "dispersion"):
        assert np.array_equal(getattr(one.negative, name), getattr(other.negative, name))
        assert np.array_equal(getattr(one.stories, name), getattr(other.stories, name))


def a_document(key, at_ms, story_id, source, *, tone="negative", standing="story", label="Markets"):
    return {
        "document_key": key, "place": key, "topic": "news", "number": 0, "offset": key, "received_ms": at_ms, "published_ms": None,
        "uri": f"u{key}", "version": "1", "source": source, "language": "en", "status": "usable", "headline": f"headline {key}",
        "entities": "{}", "standing": standing, "story_id": story_id, "label": label, "tone": tone, "score_units": 0, "model": "m1",
        "events": "[]",
    }  # fmt: skip


def test_the_stories_of_a_window_are_told_bad_ones_first_then_the_most_copied(engine):
    documents = [
        a_document(1, BEGIN_MS, 1, "wire", tone="neutral"),
        a_document(2, BEGIN_MS + 1, 2, "wire"),
        a_document(3, BEGIN_MS + 2, 3, "paper"),
        a_document(4, BEGIN_MS + 3, 3, "blog", standing="copy"),
        a_document(5, BEGIN_MS + 4, 3, "paper", standing="copy"),
        a_document(6, BEGIN_MS + 5, None, "wire", standing="stale"),
        a_document(7, BEGIN_MS + HOUR_MS, 7, "wire"),
        a_document(8, BEGIN_MS + 6, 8, "wire", label="Other"),
    ]
    with writing(engine) as connection:
        connection.execute(insert(document), documents)
        connection.execute(
            insert(mention),
            [{"entity": "bank", "received_ms": BEGIN_MS, "document_key": 1, "tone": "negative", "score_units": 0}],
        )
    views = Ledger(engine).story_views(Series(SeriesKind.TOPIC, "Markets"), HOUR_MS, BEGIN_MS + HOUR_MS)
    assert [(view.story_id, view.tone, view.sources, view.copies) for view in views] == [
        (3, "negative", ("paper", "blog"), 2), (2, "negative", ("wire",), 0), (1, "neutral", ("wire",), 0),
    ]  # fmt: skip
    assert [view.document_key for view in views] == [3, 2, 1]
    # What is said of the bank is its own tone, not the document's.
    (view,) = Ledger(engine).story_views(BANK, HOUR_MS, BEGIN_MS + HOUR_MS)
    assert (view.story_id, view.tone, view.model) == (1, "negative", "m1")
    assert len(Ledger(engine).story_views(ALL_SERIES, HOUR_MS, BEGIN_MS + HOUR_MS)) == 4
