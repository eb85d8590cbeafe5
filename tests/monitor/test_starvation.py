"""A client that has stopped fetching is noticed, and nothing else is taken for one."""

from itertools import takewhile

from hypothesis import given
from hypothesis import strategies as st

from monitor.starvation import Starvation
from monitor.types import Partition

A, B = Partition("news", 0), Partition("news", 1)


def polled(starvation, number):
    for _ in range(number):
        starvation.polled(empty=True)


def test_records_that_do_not_come_are_noticed_after_a_while():
    starvation = Starvation(after_s=60, after_polls=3)
    assert not starvation.starves(A, 5, 9, 0.0)
    polled(starvation, 3)
    assert not starvation.starves(A, 5, 9, 59.9)
    assert starvation.starves(A, 5, 10, 60.0)


def test_a_partition_that_moves_or_has_no_more_does_not_starve():
    starvation = Starvation(after_s=60, after_polls=3)
    polled(starvation, 100)
    assert not starvation.starves(A, 5, 9, 0.0)
    assert not starvation.starves(A, 6, 9, 100.0)
    assert not starvation.starves(A, 9, 9, 200.0)
    assert not starvation.starves(A, 9, 12, 300.0)
    assert not starvation.starves(B, 1, 12, 300.0)
    assert starvation.starves(A, 9, 12, 360.0)


def test_a_process_that_did_not_poll_does_not_starve():
    starvation = Starvation(after_s=60, after_polls=3)
    starvation.starves(A, 5, 9, 0.0)
    polled(starvation, 2)
    assert not starvation.starves(A, 5, 9, 600.0)
    starvation.polled(empty=False)
    polled(starvation, 2)
    assert not starvation.starves(A, 5, 9, 1_200.0)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 90), st.booleans()), max_size=30))
def test_it_starves_exactly_when_it_stood_still_with_more_to_come_for_all_that_time(history):
    starvation, past, now_s, polls = Starvation(after_s=60, after_polls=2), [], 0, 0
    for position, more, wait_s, empty in history:
        now_s += wait_s
        starvation.polled(empty=empty)
        polls = polls + 1 if empty else 0
        found = starvation.starves(A, position, position + more, float(now_s))
        past.append((now_s, position, more))
        standing = list(takewhile(lambda seen, position=position: seen[1] == position and seen[2] > 0, reversed(past)))
        assert found == (len(standing) > 1 and now_s - standing[-1][0] >= 60 and polls >= 2)
