"""What every outbox keeps, whatever it is made of.

A test module imports these tests and provides the fixture `make_outbox`: a function from deliveries to an outbox that holds them.
"""

from dataclasses import replace

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alerts.types import AttemptResult, DeliveryStatus
from tests.alerts.building import MemoryOutbox, a_delivery, an_attempt

DUE, DELIVERED, ABANDONED = DeliveryStatus.DUE, DeliveryStatus.DELIVERED, DeliveryStatus.ABANDONED


def ids(deliveries):
    return [delivery.delivery_id for delivery in deliveries]


def test_an_outbox_begins_empty(make_outbox):
    outbox = make_outbox([])
    assert outbox.due(10**15, 10) == []
    assert outbox.next_due_at_ms() is None


def test_a_delivery_comes_out_as_it_went_in(make_outbox):
    delivery = a_delivery(body=b"\x00\xff{}", due_at_ms=5)
    assert make_outbox([delivery]).due(5, 10) == [delivery]


def test_a_delivery_is_due_from_its_time_on(make_outbox):
    outbox = make_outbox([a_delivery(due_at_ms=1_000)])
    assert outbox.due(999, 10) == []
    assert len(outbox.due(1_000, 10)) == 1
    assert outbox.next_due_at_ms() == 1_000


def test_the_longest_due_comes_first_and_no_more_than_asked_for(make_outbox):
    rows = [a_delivery(name, due_at_ms=due_at_ms) for name, due_at_ms in (("a", 30), ("b", 10), ("c", 20))]
    outbox = make_outbox(rows)
    assert ids(outbox.due(100, 10)) == ids([rows[1], rows[2], rows[0]])
    assert ids(outbox.due(100, 2)) == ids([rows[1], rows[2]])
    assert outbox.next_due_at_ms() == 10


def test_asking_changes_nothing(make_outbox):
    outbox = make_outbox([a_delivery()])
    assert outbox.due(0, 10) == outbox.due(0, 10)


def test_what_a_sender_holds_is_not_due_for_others_until_it_lets_go(make_outbox):
    delivery = a_delivery(due_at_ms=5)
    outbox = make_outbox([delivery])
    assert outbox.hold(delivery, 100)
    assert outbox.due(99, 10) == []
    assert not outbox.hold(delivery, 200)
    (again,) = outbox.due(100, 10)
    assert again == replace(delivery, due_at_ms=100)
    assert outbox.hold(again, 200)


def test_what_is_finished_cannot_be_held(make_outbox):
    delivery = a_delivery()
    outbox = make_outbox([delivery])
    outbox.record(delivery.delivery_id, an_attempt(), DELIVERED, None, 1)
    assert not outbox.hold(delivery, 100)


def test_a_later_change_of_an_incident_waits_for_the_earlier_one(make_outbox):
    first, second = a_delivery(sequence=1, due_at_ms=50), a_delivery(sequence=2, due_at_ms=10)
    outbox = make_outbox([first, second])
    assert outbox.due(20, 10) == []
    assert outbox.next_due_at_ms() == 50
    assert outbox.due(50, 10) == [first]
    outbox.record(first.delivery_id, an_attempt(AttemptResult.TIMED_OUT), DUE, 60, 50)
    assert outbox.due(59, 10) == []
    outbox.record(first.delivery_id, an_attempt(), DELIVERED, None, 60)
    assert outbox.due(60, 10) == [second]


def test_an_abandoned_change_no_longer_holds_the_later_one_back(make_outbox):
    first, second = a_delivery(sequence=1), a_delivery(sequence=2)
    outbox = make_outbox([first, second])
    outbox.record(first.delivery_id, an_attempt(AttemptResult.REFUSED), ABANDONED, None, 1)
    assert outbox.due(1, 10) == [second]


def test_other_incidents_and_other_receivers_do_not_wait(make_outbox):
    rows = [a_delivery("a", sequence=1, due_at_ms=99), a_delivery("b", sequence=2), a_delivery("a", sequence=2, receiver="siem")]
    assert set(ids(make_outbox(rows).due(0, 10))) == set(ids(rows[1:]))


def test_a_failed_attempt_is_counted_and_moves_the_due_time(make_outbox):
    delivery = a_delivery()
    outbox = make_outbox([delivery])
    outbox.record(delivery.delivery_id, an_attempt(AttemptResult.REFUSED, status_code=500), DUE, 70, 1)
    outbox.record(delivery.delivery_id, an_attempt(AttemptResult.UNREACHABLE), DUE, 90, 71)
    assert outbox.due(89, 10) == []
    assert outbox.due(90, 10) == [replace(delivery, attempts=2, due_at_ms=90)]
    assert outbox.next_due_at_ms() == 90


def test_what_is_finished_is_never_due_again(make_outbox):
    rows = [a_delivery("a"), a_delivery("b")]
    outbox = make_outbox(rows)
    outbox.record(rows[0].delivery_id, an_attempt(), DELIVERED, None, 1)
    outbox.record(rows[1].delivery_id, an_attempt(AttemptResult.REFUSED), ABANDONED, None, 1)
    assert outbox.due(10**15, 10) == []
    assert outbox.next_due_at_ms() is None


def test_a_disabled_receiver_is_sent_nothing_and_the_others_are(make_outbox):
    rows = [a_delivery("a"), a_delivery("a", receiver="siem"), a_delivery("b", due_at_ms=50)]
    outbox = make_outbox(rows)
    outbox.disable("desk", "it answered 410", 1)
    outbox.disable("desk", "it answered 410 again", 2)
    assert outbox.due(100, 10) == [rows[1]]
    assert outbox.next_due_at_ms() == 0


def test_what_is_finished_stays_finished_when_its_receiver_is_disabled(make_outbox):
    delivery = a_delivery()
    outbox = make_outbox([delivery])
    outbox.record(delivery.delivery_id, an_attempt(), DELIVERED, None, 1)
    outbox.disable("desk", "it answered 410", 2)
    assert outbox.due(10, 10) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_history_of_attempts_is_remembered_as_a_dictionary_would(make_outbox, data):
    """The oracle is the outbox in memory; the real one is asked the same after every step."""
    rows = [
        a_delivery(name, receiver=receiver, sequence=sequence, due_at_ms=data.draw(st.sampled_from([0, 10, 20])))
        for name in "ab"
        for receiver in ("desk", "siem")
        for sequence in (1, 2)
    ]
    outbox, oracle = make_outbox(rows), MemoryOutbox()
    oracle.add(rows)
    now_ms = 0
    for _ in range(data.draw(st.integers(0, 12))):
        now_ms += data.draw(st.sampled_from([0, 1, 10]))
        due = oracle.due(now_ms, 100)
        assert set(ids(outbox.due(now_ms, 100))) == set(ids(due))
        assert outbox.next_due_at_ms() == oracle.next_due_at_ms()
        if data.draw(st.sampled_from([False] * 9 + [True])):
            step = ("disable", "siem", "gone", now_ms)
        elif due:
            status = data.draw(st.sampled_from([DUE, DUE, DELIVERED, ABANDONED]))
            due_at_ms = now_ms + data.draw(st.sampled_from([0, 1, 10])) if status is DUE else None
            step = ("record", data.draw(st.sampled_from(due)).delivery_id, an_attempt(), status, due_at_ms, now_ms)
        else:
            continue
        for one in (outbox, oracle):
            getattr(one, step[0])(*step[1:])
    assert outbox.due(10**15, 100) or not oracle.due(10**15, 100)
