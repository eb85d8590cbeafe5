from __future__ import annotations

import pytest

from monitor.types import ALL_SERIES, MINUTE_MS, Bucket, Count, Partition, Reading, Series, SeriesKind
from monitor.windows import Windows

LEFT, RIGHT = Partition("news", 0), Partition("news", 1)
HALDEN = Series(SeriesKind.ENTITY, "halden")
NORVIK = Series(SeriesKind.ENTITY, "norvik")
HOUR_MS = 60 * MINUTE_MS


class FiveSources:
    def __init__(self):
        self.asked = []

    def sources(self, series, window_ms, until_ms):
        self.asked.append((series, window_ms, until_ms))
        return 5


def windows(capacity_ms=HOUR_MS):
    return Windows(capacity_ms, FiveSources())


def bucket(minute, series=HALDEN, negative=1, partition=LEFT):
    return Bucket(partition, minute * MINUTE_MS, series, Count((negative, 0, 0, 0), (0, 1, 0, 0), -50 * negative))


def negatives(read, first_minute, until_minute, series=HALDEN):
    return read.reading(series, (until_minute - first_minute) * MINUTE_MS, until_minute * MINUTE_MS).count.stories[0]


def test_a_window_takes_its_first_minute_and_leaves_the_minute_that_it_ends_with():
    # minute   5   6   7   8
    # stories  1   2   4   8
    read = windows()
    read.add([bucket(5, negative=1), bucket(6, negative=2), bucket(7, negative=4), bucket(8, negative=8)])
    assert negatives(read, 5, 8) == 7
    assert negatives(read, 6, 9) == 14
    assert negatives(read, 9, 20) == 0
    assert negatives(read, 0, 5) == 0
    assert negatives(read, 6, 7) == 2


def test_a_reading_says_what_it_read():
    read = windows()
    read.add([bucket(5, negative=3)])
    until_ms = 6 * MINUTE_MS
    expected = Count((3, 0, 0, 0), (0, 1, 0, 0), -150)
    assert read.reading(HALDEN, HOUR_MS, until_ms) == Reading(HALDEN, until_ms - HOUR_MS, until_ms, expected)
    assert read.reading(NORVIK, HOUR_MS, until_ms).count == Count()
    assert all(type(number) is int for number in read.reading(HALDEN, HOUR_MS, until_ms).count.stories)


def test_partitions_add_up_in_any_order():
    read = windows()
    read.add([bucket(7, partition=RIGHT), bucket(5, partition=LEFT)])
    read.add([bucket(7, partition=LEFT), bucket(6, partition=RIGHT)])
    assert negatives(read, 5, 8) == 4
    assert negatives(read, 6, 8) == 3


def test_counts_ahead_of_the_moment_that_is_read_do_not_show():
    read = windows()
    read.add([bucket(5), bucket(500)])
    assert negatives(read, 0, 10) == 1


def test_a_window_longer_than_the_capacity_is_refused():
    read = windows(capacity_ms=10 * MINUTE_MS)
    assert negatives(read, 0, 10) == 0
    with pytest.raises(ValueError, match="longer than"):
        read.reading(HALDEN, 11 * MINUTE_MS, 20 * MINUTE_MS)
    with pytest.raises(ValueError, match="longer than"):
        read.counted(SeriesKind.ENTITY, 11 * MINUTE_MS, 20 * MINUTE_MS)


def test_the_series_that_count_in_a_window_come_sorted_and_by_kind():
    read = windows()
    read.add([bucket(6, NORVIK), bucket(5, HALDEN), bucket(5, ALL_SERIES), bucket(7, Series(SeriesKind.TOPIC, "fraud"))])
    assert read.counted(SeriesKind.ENTITY, 5 * MINUTE_MS, 7 * MINUTE_MS) == [HALDEN, NORVIK]
    assert read.counted(SeriesKind.ENTITY, MINUTE_MS, 7 * MINUTE_MS) == [NORVIK]
    assert read.counted(SeriesKind.ALL, 5 * MINUTE_MS, 7 * MINUTE_MS) == [ALL_SERIES]
    assert read.counted(SeriesKind.TOPIC, 5 * MINUTE_MS, 7 * MINUTE_MS) == []


def test_sources_are_asked_of_the_store():
    store = FiveSources()
    assert Windows(HOUR_MS, store).sources(HALDEN, HOUR_MS, 2 * HOUR_MS) == 5
    assert store.asked == [(HALDEN, HOUR_MS, 2 * HOUR_MS)]


def test_silent_time_can_be_skipped():
    read = windows()
    assert read.next_counted_minute(0) is None
    read.add([bucket(900, NORVIK), bucket(5), bucket(5, NORVIK)])
    assert read.next_counted_minute(-1) == 5 * MINUTE_MS
    assert read.next_counted_minute(5 * MINUTE_MS) == 900 * MINUTE_MS
    assert read.next_counted_minute(5 * MINUTE_MS - 1) == 5 * MINUTE_MS
    assert read.next_counted_minute(900 * MINUTE_MS) is None


def test_forgotten_minutes_are_neither_read_nor_taken():
    read = windows()
    read.add([bucket(5), bucket(6), bucket(7)])
    read.forget_before(6 * MINUTE_MS)
    assert negatives(read, 0, 8) == 2
    read.add([bucket(5), bucket(6)])
    assert negatives(read, 0, 8) == 3
    read.forget_before(4 * MINUTE_MS)
    assert negatives(read, 0, 8) == 3
    read.forget_before(7 * MINUTE_MS)
    assert negatives(read, 0, 8) == 1
    assert read.counted(SeriesKind.ENTITY, HOUR_MS, 7 * MINUTE_MS) == []


def test_memory_of_what_was_forgotten_is_given_back():
    read = windows(capacity_ms=80 * MINUTE_MS)
    for minute in range(2_000):
        read.add([bucket(minute, HALDEN if minute < 1_000 else NORVIK)])
        read.forget_before((minute - 80) * MINUTE_MS)
    kept = read._totals[SeriesKind.ENTITY]
    assert set(kept) == {NORVIK}
    assert len(kept[NORVIK]._minutes) <= 92
    assert len(kept[NORVIK]._rows) <= 256
    assert len(read._minutes) <= 92
    assert read.next_counted_minute(0) == (2_000 - len(read._minutes)) * MINUTE_MS
