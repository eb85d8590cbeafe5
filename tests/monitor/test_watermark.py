from __future__ import annotations

import pytest

from monitor.types import Partition
from monitor.watermark import Watermark

A, B = Partition("news", 0), Partition("news", 1)
IDLE_S = 10.0


def two(floor_ms=None):
    mark = Watermark(IDLE_S, floor_ms)
    mark.assign({A: None, B: None})
    return mark


def test_nothing_is_known_before_the_first_record():
    assert Watermark(IDLE_S).value_ms() is None
    assert two().value_ms() is None
    assert not two().is_late(0)


def test_the_saved_mark_is_where_it_begins():
    mark = two(floor_ms=5_000)
    assert mark.value_ms() == 5_000
    assert mark.is_late(4_999)
    assert not mark.is_late(5_000)


def test_the_slowest_partition_holds_the_mark():
    # A  ----100--------300----
    # B  --------200-----------
    # W      ?   100    200
    mark = two()
    mark.observe(A, 100, 0.0)
    assert mark.value_ms() is None
    mark.observe(B, 200, 1.0)
    assert mark.value_ms() == 100
    mark.observe(A, 300, 2.0)
    assert mark.value_ms() == 200


def test_a_partition_whose_clock_goes_back_keeps_its_newest_time():
    mark = Watermark(IDLE_S)
    mark.assign({A: None})
    mark.observe(A, 500, 0.0)
    mark.observe(A, 400, 1.0)
    assert mark.value_ms() == 500


def test_a_backlog_is_not_silence():
    mark = two()
    mark.observe(A, 100, 0.0)
    mark.observe(B, 100, 0.0)
    mark.observe(A, 90_000, 3_600.0)
    assert mark.value_ms() == 100


@pytest.mark.parametrize(("confirmed_s", "expected_ms"), [(9.75, 100), (10.0, 90_000), (11.0, 90_000)])
def test_a_partition_confirmed_at_its_end_long_enough_after_its_last_record_is_left_behind(confirmed_s, expected_ms):
    mark = two()
    mark.observe(B, 100, 0.0)
    mark.observe(A, 90_000, 5.0)
    mark.confirm_end(B, confirmed_s)
    assert mark.value_ms() == expected_ms


def test_a_partition_that_talks_again_holds_the_mark_again():
    mark = two()
    mark.observe(B, 100, 0.0)
    mark.observe(A, 90_000, 5.0)
    mark.confirm_end(B, 10.0)
    mark.observe(B, 95_000, 11.0)
    mark.observe(A, 99_000, 11.0)
    assert mark.value_ms() == 95_000


def test_a_new_partition_without_records_holds_the_mark_until_it_is_confirmed_idle():
    mark = two()
    mark.observe(A, 90_000, 0.0)
    assert mark.quiet_candidates(0.0) == {B}
    mark.confirm_end(B, 1.0)
    assert mark.value_ms() is None
    assert mark.quiet_candidates(10.5) == {A}
    mark.observe(A, 91_000, 10.5)
    assert mark.quiet_candidates(11.0) == {B}
    mark.confirm_end(B, 11.0)
    assert mark.value_ms() == 91_000
    assert mark.quiet_candidates(12.0) == frozenset()


def test_a_new_partition_begins_at_its_saved_time():
    mark = Watermark(IDLE_S)
    mark.assign({A: 7_000, B: 5_000})
    assert mark.value_ms() == 5_000


def test_silence_moves_time_as_far_as_it_is_confirmed_and_the_idle_time_behind():
    mark = two()
    mark.observe(A, 100_000, 50.0)
    mark.observe(B, 120_000, 60.0)
    mark.confirm_end(A, 90.0)
    mark.confirm_end(B, 65.0)
    assert mark.value_ms() == 120_000
    mark.confirm_end(B, 90.0)
    assert mark.value_ms() == 120_000 + 20_000
    mark.confirm_end(B, 130.0)
    assert mark.value_ms() == 140_000
    mark.confirm_end(A, 125.5)
    assert mark.value_ms() == 120_000 + 55_500


def test_silence_is_confirmed_again_every_second():
    mark = Watermark(IDLE_S)
    mark.assign({A: 5_000})
    mark.confirm_end(A, 0.0)
    mark.confirm_end(A, 10.0)
    assert mark.quiet_candidates(10.75) == frozenset()
    assert mark.quiet_candidates(11.0) == {A}


def test_silence_after_a_restart_goes_on_from_the_saved_time_of_the_newest_partition():
    mark = Watermark(IDLE_S, floor_ms=60_000)
    mark.assign({A: 60_000, B: 90_000})
    for now_s in (100.0, 110.0, 130.0):
        mark.confirm_end(A, now_s)
        mark.confirm_end(B, now_s)
    assert mark.value_ms() == 90_000 + 20_000


def test_a_record_voids_the_confirmation_of_the_same_moment():
    mark = Watermark(0.0)
    mark.assign({A: None, B: None})
    mark.observe(B, 90_000, 0.0)
    mark.observe(A, 100, 0.0)
    mark.confirm_end(A, 0.0)
    assert mark.value_ms() == 90_000
    mark.observe(A, 200, 0.0)
    mark.observe(B, 95_000, 0.0)
    assert mark.value_ms() == 90_000


@pytest.mark.parametrize("last_ms", [40_000, 50_000])
def test_silence_runs_from_the_newest_record_not_from_the_last(last_ms):
    mark = Watermark(IDLE_S)
    mark.assign({A: None})
    mark.observe(A, 50_000, 0.0)
    mark.observe(A, last_ms, 5.0)
    mark.confirm_end(A, 15.0)
    assert mark.value_ms() == 55_000


def test_of_two_equally_new_records_the_first_seen_counts():
    mark = two()
    mark.observe(A, 50_000, 0.0)
    mark.observe(B, 50_000, 4.0)
    mark.confirm_end(A, 20.0)
    mark.confirm_end(B, 20.0)
    assert mark.value_ms() == 60_000


def test_the_mark_never_goes_back_over_a_new_assignment():
    mark = two()
    mark.observe(A, 90_000, 0.0)
    mark.observe(B, 90_000, 0.0)
    mark.assign({A: 10_000})
    assert mark.value_ms() == 90_000
    mark.observe(A, 20_000, 1.0)
    assert mark.value_ms() == 90_000


def test_a_new_assignment_voids_what_was_confirmed():
    mark = two()
    mark.observe(A, 90_000, 0.0)
    mark.observe(B, 100, 0.0)
    mark.confirm_end(B, 10.0)
    assert mark.value_ms() == 90_000
    mark.assign({A: 90_000, B: 100})
    mark.observe(A, 200_000, 11.0)
    assert mark.value_ms() == 90_000
    assert mark.quiet_candidates(11.0) == {B}


def test_partitions_that_are_not_ours_change_nothing():
    mark = Watermark(IDLE_S)
    mark.assign({A: 1_000})
    mark.observe(B, 5, 0.0)
    mark.confirm_end(B, 0.0)
    mark.confirm_end(B, 100.0)
    assert mark.value_ms() == 1_000
    assert mark.quiet_candidates(100.0) == {A}
    mark.assign({})
    assert mark.value_ms() == 1_000
    assert mark.quiet_candidates(100.0) == frozenset()


def test_silence_without_any_record_ever_leaves_time_unknown():
    mark = two()
    for now_s in (0.0, 10.0, 20.0):
        mark.confirm_end(A, now_s)
        mark.confirm_end(B, now_s)
    assert mark.value_ms() is None
