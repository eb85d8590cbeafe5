from __future__ import annotations

import numpy as np

from monitor.history import History
from monitor.types import ALL_SERIES, HOUR_MS, MINUTE_MS, Bucket, Count, Partition, Series, SeriesKind

LEFT, RIGHT = Partition("news", 0), Partition("news", 1)
HALDEN = Series(SeriesKind.ENTITY, "halden")
NORVIK = Series(SeriesKind.ENTITY, "norvik")


def bucket(hour, series=HALDEN, *, negative=1, others=2, copies=5, minute=0, partition=LEFT):
    return Bucket(partition, hour * HOUR_MS + minute * MINUTE_MS, series, Count((negative, others, 0, 0), (copies, copies, 0, 0)))


def counts(history, series, first, until):
    stories, negative = history.hours([series], first, until)
    return stories[0].tolist(), negative[0].tolist()


def test_an_hour_is_the_sum_of_its_minutes_and_partitions_and_copies_are_not_counted():
    history = History(10)
    history.add([bucket(100, minute=0), bucket(100, minute=59), bucket(100, partition=RIGHT), bucket(101, negative=3)])
    assert counts(history, HALDEN, 99, 103) == ([0, 9, 5, 0], [0, 3, 3, 0])


def test_copies_alone_are_no_story():
    history = History(10)
    history.add([bucket(100, negative=0, others=0)])
    assert counts(history, HALDEN, 95, 105) == ([0] * 10, [0] * 10)


def test_a_restart_adds_up_whole_hours():
    live, restored = History(10), History(10)
    live.add([bucket(100, minute=minute) for minute in range(60)])
    restored.add([bucket(100, negative=60, others=120)])
    assert counts(live, HALDEN, 95, 105) == counts(restored, HALDEN, 95, 105)


def test_series_are_given_in_the_order_asked_for_and_the_unknown_as_nothing():
    history = History(10)
    history.add([bucket(100), bucket(100, NORVIK, negative=4), bucket(100, ALL_SERIES, negative=9)])
    _, negative = history.hours([NORVIK, Series(SeriesKind.TOPIC, "fraud"), HALDEN], 100, 101)
    assert negative[:, 0].tolist() == [4, 0, 1]
    assert negative.dtype == np.int32


def test_the_ring_keeps_the_newest_hours_and_a_late_bucket_finds_its_hour():
    history = History(5)
    for hour in range(100, 112):
        history.add([bucket(hour, negative=hour)])
    history.add([bucket(109, negative=1), bucket(106, negative=1)])
    assert counts(history, HALDEN, 104, 114)[1] == [0, 0, 0, 107, 108, 110, 110, 111, 0, 0]


def test_a_leap_over_more_than_the_capacity_leaves_nothing_old_behind():
    history = History(5)
    history.add([bucket(100), bucket(103)])
    history.add([bucket(5_000)])
    assert counts(history, HALDEN, 4_995, 5_002)[1] == [0, 0, 0, 0, 0, 1, 0]


def test_forgotten_hours_are_neither_given_nor_taken():
    history = History(10)
    history.add([bucket(100), bucket(101), bucket(102)])
    history.forget_before(101 * HOUR_MS + 30 * MINUTE_MS)
    history.add([bucket(100), bucket(101)])
    assert counts(history, HALDEN, 100, 103)[1] == [0, 2, 1]
    history.forget_before(90 * HOUR_MS)
    assert counts(history, HALDEN, 100, 103)[1] == [0, 2, 1]


def test_clear_forgets_everything_even_what_was_forgotten():
    history = History(10)
    history.add([bucket(100)])
    history.forget_before(200 * HOUR_MS)
    history.clear()
    history.add([bucket(100)])
    assert counts(history, HALDEN, 100, 101)[1] == [1]


def test_memory_is_bounded_by_the_series_that_still_count():
    history = History(48)
    for hour in range(0, 48 * 40, 8):
        history.add(bucket(hour, Series(SeriesKind.ENTITY, f"{hour}-{number}")) for number in range(20))
        history.forget_before((hour - 47) * HOUR_MS)
    assert len(history._rows) <= (48 + 24 + 8) // 8 * 20
    assert history._counts.shape[1] <= 2 * len(history._rows)


def test_ten_thousand_series_take_what_the_docstring_says():
    history = History()
    history.add(bucket(100, Series(SeriesKind.ENTITY, str(number))) for number in range(10_000))
    assert 67e6 <= history._counts.nbytes <= 67.3e6 * 1.25
