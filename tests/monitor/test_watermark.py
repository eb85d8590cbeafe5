"""Silence as its owner sees it, and the mark as the leader knows it."""

import pytest

from monitor.types import Partition
from monitor.watermark import Progress, Quiet, Silence, mark

A, B = Partition("news", 0), Partition("news", 1)
IDLE_S, IDLE_MS = 10.0, 10_000


def talking(time_ms, next_offset=5, reported_at_ms=0):
    return Progress(time_ms, next_offset, Quiet(), reported_at_ms)


def silent(time_ms, quiet_ms, complete_ms, reported_at_ms=0, next_offset=5):
    return Progress(time_ms, next_offset, Quiet(quiet_ms, complete_ms), reported_at_ms)


# --- silence -------------------------------------------------------------------------------------


def of_two():
    silence = Silence(IDLE_S)
    silence.assign([A, B])
    return silence


def test_nothing_is_silent_before_the_log_has_said_so():
    silence = of_two()
    assert silence.candidates(0.0) == {A, B}
    assert silence.reports() == {A: Quiet(), B: Quiet()}


def test_silence_lasts_from_the_last_record_to_the_last_word_of_the_log():
    silence = of_two()
    silence.observe(A, 100.0)
    assert silence.candidates(109.9) == {B}
    assert silence.candidates(110.0) == {A, B}
    silence.confirm_end(A, 110.5, 7_000)
    assert silence.reports() == {A: Quiet(10_500, 5_000), B: Quiet()}
    assert silence.candidates(111.4) == {B}
    assert silence.candidates(111.5) == {A, B}
    silence.confirm_end(A, 112.0, 9_000)
    assert silence.reports()[A] == Quiet(12_000, 7_000)


def test_a_partition_without_a_record_is_silent_from_the_first_word_on():
    silence = of_two()
    silence.confirm_end(B, 50.0, None)
    assert silence.reports()[B] == Quiet(0, None)
    assert silence.candidates(59.9) == {A}
    silence.confirm_end(B, 60.0, None)
    assert silence.reports()[B] == Quiet(10_000, None)


def test_a_record_ends_the_silence():
    silence = of_two()
    silence.confirm_end(A, 0.0, 1)
    silence.observe(A, 0.0)
    assert silence.reports()[A] == Quiet()


def test_a_new_assignment_voids_what_was_confirmed_and_others_change_nothing():
    silence = of_two()
    silence.confirm_end(A, 0.0, 1)
    silence.confirm_end(A, 20.0, 1)
    silence.assign([A])
    silence.observe(B, 21.0)
    silence.confirm_end(B, 21.0, 1)
    assert silence.reports() == {A: Quiet()}
    assert silence.candidates(21.0) == {A}


# --- the mark ------------------------------------------------------------------------------------


def test_the_slowest_partition_holds_the_mark_at_its_newest_record():
    assert mark({A: talking(300), B: talking(200, next_offset=9)}, {A, B}, IDLE_MS) == (200, "news", 1, 9)
    assert mark({A: talking(200, next_offset=4), B: talking(200)}, {A, B}, IDLE_MS) == (200, "news", 0, 4)


@pytest.mark.parametrize("progress", [{}, {A: talking(300)}, {A: talking(300), B: talking(None)}])
def test_without_a_word_of_every_partition_there_is_no_mark(progress):
    assert mark(progress, {A, B}, IDLE_MS) is None


def test_without_partitions_there_is_no_mark():
    assert mark({A: talking(300)}, set(), IDLE_MS) is None


def test_partitions_that_the_log_no_longer_has_do_not_count():
    assert mark({A: talking(300), B: talking(5)}, {A}, IDLE_MS) == (300, "news", 0, 5)


def test_a_silent_partition_holds_the_mark_where_the_others_were_when_the_log_was_asked():
    assert mark({A: talking(90_000), B: silent(100, IDLE_MS, 88_000)}, {A, B}, IDLE_MS) == (88_000, "", -1, -1)
    assert mark({A: talking(90_000), B: silent(100, IDLE_MS, 95_000)}, {A, B}, IDLE_MS) == (90_000, "news", 0, 5)
    assert mark({A: talking(90_000), B: silent(None, IDLE_MS, 95_000)}, {A, B}, IDLE_MS) == (90_000, "news", 0, 5)


def test_one_that_is_not_silent_long_enough_holds_it_at_its_record():
    assert mark({A: talking(90_000), B: silent(100, IDLE_MS - 1, 88_000)}, {A, B}, IDLE_MS) == (100, "news", 1, 5)


@pytest.mark.parametrize(("age_ms", "held"), [(5_000, False), (5_001, True)])
def test_silence_that_is_not_confirmed_any_more_is_not_believed(age_ms, held):
    progress = {A: talking(90_000, reported_at_ms=age_ms), B: silent(100, IDLE_MS, 88_000, reported_at_ms=0)}
    assert mark(progress, {A, B}, IDLE_MS) == ((100, "news", 1, 5) if held else (88_000, "", -1, -1))


def test_when_all_are_silent_everything_saved_is_before_the_mark_and_time_goes_on():
    quiet = {A: silent(50_000, IDLE_MS, 40_000), B: silent(90_000, IDLE_MS, 88_000)}
    assert mark(quiet, {A, B}, IDLE_MS) == (90_001, "", -1, -1)
    later = {A: silent(50_000, 90_000, 88_000), B: silent(90_000, 30_000, 88_000)}
    assert mark(later, {A, B}, IDLE_MS) == (110_000, "", -1, -1)


def test_silence_without_any_record_ever_leaves_time_unknown():
    assert mark({A: silent(None, IDLE_MS, None), B: silent(None, IDLE_MS, None)}, {A, B}, IDLE_MS) is None
