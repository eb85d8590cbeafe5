"""The outbox in SQL keeps the contract of every outbox, and what a person may do with it besides."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.types import Attempt, AttemptResult, Delivery, DeliveryStatus, Evaluation
from monitor.store.engine import open_engine
from monitor.store.incidents import Incidents
from monitor.store.lease import Lease
from monitor.store.outbox import SqlOutbox
from tests.contracts.outbox_contract import *  # noqa: F403 (the contract's tests run here with the outbox in SQL)

FAILED = Attempt(AttemptResult.REFUSED, 500, "the receiver answered 500", 0.1)
DONE = Attempt(AttemptResult.DELIVERED, 204, "accepted", 0.1)


def delivery(name, incident="i", sequence=1, receiver="desk", due_at_ms=0):
    return Delivery(f"msg_{name}", receiver, incident, sequence, b"{}", 0, due_at_ms)


def fill(engine, deliveries):
    """Puts deliveries where judging puts them."""
    lease = Lease(engine, "me")
    assert lease.acquire()
    Incidents(engine).save([Evaluation(0, {}, ())], deliveries, 0, lease)
    lease.release()


@pytest.fixture
def outbox_of(database):
    """Makes an outbox that holds these deliveries, and those of earlier calls."""
    engine = open_engine(database)

    def make(*deliveries):
        fill(engine, deliveries)
        return SqlOutbox(engine)

    yield make
    engine.dispose()


@pytest.fixture
def make_outbox(make_database):
    """As the contract wants it: a fresh outbox for each call."""
    engines = []

    def make(deliveries):
        engine = open_engine(make_database())
        engines.append(engine)
        fill(engine, deliveries)
        return SqlOutbox(engine)

    yield make
    for engine in engines:
        engine.dispose()


def names(deliveries):
    return [item.delivery_id for item in deliveries]


def test_what_is_due_comes_the_longest_due_first_and_what_is_not_stays(outbox_of):
    outbox = outbox_of(
        delivery("b", incident="b", due_at_ms=20),
        delivery("a", incident="a", due_at_ms=10),
        delivery("c", incident="c", due_at_ms=30),
    )
    assert names(outbox.due(20, 10)) == ["msg_a", "msg_b"]
    assert names(outbox.due(20, 1)) == ["msg_a"]
    assert outbox.next_due_at_ms() == 10


def test_a_later_message_about_an_incident_waits_for_the_earlier_one_of_its_receiver(outbox_of):
    outbox = outbox_of(delivery("1"), delivery("2", sequence=2), delivery("other", sequence=2, receiver="other"))
    assert names(outbox.due(0, 10)) == ["msg_1", "msg_other"]
    outbox.record("msg_1", DONE, DeliveryStatus.DELIVERED, None, 5)
    assert names(outbox.due(0, 10)) == ["msg_2", "msg_other"]


def test_an_attempt_is_written_down_and_the_next_one_is_later(outbox_of):
    outbox = outbox_of(delivery("1"))
    outbox.record("msg_1", FAILED, DeliveryStatus.DUE, 50, 5)
    assert outbox.due(49, 10) == []
    (again,) = outbox.due(50, 10)
    assert again.attempts == 1
    assert outbox.next_due_at_ms() == 50
    (row,) = outbox.rows()
    assert (row.last_result, row.last_status_code, row.last_detail) == ("refused", 500, "the receiver answered 500")


def test_a_disabled_receiver_gets_nothing_and_its_waiting_messages_say_why(outbox_of):
    outbox = outbox_of(delivery("1"), delivery("2", receiver="other"))
    outbox.disable("desk", "it is gone", 5)
    assert names(outbox.due(0, 10)) == ["msg_2"]
    (row,) = outbox.rows(DeliveryStatus.ABANDONED)
    assert (row.delivery.delivery_id, row.last_detail) == ("msg_1", "it is gone")
    assert outbox.enable("desk")
    assert not outbox.enable("desk")
    assert outbox.retry("msg_1", 9)
    assert not outbox.retry("msg_1", 9)
    assert names(outbox.due(9, 10)) == ["msg_2", "msg_1"]


def test_nothing_waits_in_an_empty_or_finished_outbox(outbox_of):
    outbox = outbox_of(delivery("1"))
    assert outbox.waiting() == 1
    outbox.record("msg_1", DONE, DeliveryStatus.DELIVERED, None, 5)
    assert (outbox.next_due_at_ms(), outbox.waiting(), outbox.due(10**15, 10)) == (None, 0, [])


def test_a_delivery_is_never_made_twice(outbox_of):
    outbox_of(delivery("1"))
    with pytest.raises(Exception, match=r"(?i)unique"):
        outbox_of(delivery("1"))


attempts = st.lists(st.tuples(st.integers(0, 5), st.sampled_from(["fail", "deliver", "abandon"])), max_size=12)


@given(attempts)
@settings(max_examples=40, deadline=None)
def test_per_incident_and_receiver_messages_finish_in_their_order(make_database, acts):
    engine = open_engine(make_database())
    rows = [delivery(f"{incident}{sequence}", incident, sequence) for incident in "ab" for sequence in (1, 2, 3)]
    fill(engine, rows)
    outbox, finished = SqlOutbox(engine), []
    for now_ms, (place, act) in enumerate(acts, start=1):
        due = outbox.due(now_ms, 10)
        open_first = [
            min(
                (row for row in rows if row.incident_id == name and row.delivery_id not in finished),
                default=None,
                key=lambda row: row.sequence,
            )
            for name in "ab"
        ]
        assert sorted(names(due)) == sorted(row.delivery_id for row in open_first if row is not None)
        if not due:
            break
        chosen = due[place % len(due)].delivery_id
        match act:
            case "fail":
                outbox.record(chosen, FAILED, DeliveryStatus.DUE, now_ms, now_ms)
            case "deliver":
                outbox.record(chosen, DONE, DeliveryStatus.DELIVERED, None, now_ms)
                finished.append(chosen)
            case "abandon":
                outbox.record(chosen, FAILED, DeliveryStatus.ABANDONED, None, now_ms)
                finished.append(chosen)
    assert outbox.waiting() == len(rows) - len(finished)
    engine.dispose()


def test_of_many_senders_that_want_one_delivery_exactly_one_has_it(outbox_of):
    rows = [delivery(str(number), incident=str(number)) for number in range(20)]
    outbox = outbox_of(*rows)
    with ThreadPoolExecutor(4) as pool:
        held = [pool.submit(outbox.hold, row, 100) for row in rows for _ in range(4)]
    assert [sum(one.result() for one in held[start : start + 4]) for start in range(0, 80, 4)] == [1] * 20
