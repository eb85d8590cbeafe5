"""Family 20: the receiver fails for an hour or a month, or its answer is lost. Each message arrives once or says why not."""

from collections import Counter

import pytest

from alerts.types import DeliveryStatus
from monitor.store.engine import open_engine
from monitor.store.outbox import SqlOutbox
from tests.alerts.building import a_delivery
from tests.alerts.server import Server, answer, reset_after
from tests.alerts.test_deliver import Clock, running
from tests.contracts.test_outbox import fill
from tests.end_to_end.processes import until
from tests.faults.tailing import desk

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
INCIDENTS = 4


@pytest.fixture
def outbox(tmp_path):
    """An outbox in which several incidents were opened and resolved."""
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    fill(engine, [a_delivery(f"incident-{number}", sequence=change) for number in range(INCIDENTS) for change in (1, 2)])
    yield SqlOutbox(engine)
    engine.dispose()


def channel(server, **changes):
    return desk(f"http://127.0.0.1:{server.port}/", **changes).channel()


def attempts(outbox):
    return sum(row.delivery.attempts for row in outbox.rows())


def go_on(outbox, clock, sender, until_ms):
    """Lets the clock jump from one due time to the next, up to a moment; how often something was tried."""
    before = attempts(outbox)
    while (due_ms := outbox.next_due_at_ms()) is not None and due_ms <= until_ms:
        clock.now_ms, tried = max(clock.now_ms, due_ms), attempts(outbox)
        sender.notify()
        until(lambda tried=tried: attempts(outbox) > tried, 30, "another attempt")
    clock.now_ms = max(clock.now_ms, until_ms)
    sender.notify()
    return attempts(outbox) - before


@pytest.mark.soak
def test_after_an_hour_of_500_every_message_arrives_once_and_in_order(outbox):
    clock = Clock()
    with Server(answer(500)) as server, running(outbox, {"desk": channel(server)}, wall_ms=clock) as sender:
        tried = go_on(outbox, clock, sender, HOUR_MS)
        refused = len(server.received)
        server.behaviour = answer(204, body=b"")
        go_on(outbox, clock, sender, 2 * HOUR_MS)
        until(lambda: outbox.waiting() == 0, 30, "all delivered")
    assert tried <= 10 * INCIDENTS, "a receiver that is down is not hammered"
    arrived = [request.headers["webhook-id"] for request in server.received[refused:]]
    assert Counter(arrived) == {f"msg_incident-{number}_{change}_desk": 1 for number in range(INCIDENTS) for change in (1, 2)}
    for number in range(INCIDENTS):
        assert arrived.index(f"msg_incident-{number}_1_desk") < arrived.index(f"msg_incident-{number}_2_desk")


def test_after_a_month_of_silence_every_message_stands_with_its_reason_and_can_be_sent_under_its_id(outbox):
    clock = Clock()
    with Server(answer(502)) as server, running(outbox, {"desk": channel(server)}, wall_ms=clock) as sender:
        go_on(outbox, clock, sender, 30 * DAY_MS)
        until(lambda: outbox.waiting() == 0, 30, "nothing is tried any more")
        given_up = outbox.rows(DeliveryStatus.ABANDONED)
        assert len(given_up) == 2 * INCIDENTS
        assert {row.last_detail for row in given_up} == {"the receiver answered 502"}
        refused = len(server.received)
        server.behaviour = answer(200)
        assert all(outbox.retry(row.delivery.delivery_id, clock.now_ms) for row in given_up)
        sender.notify()
        until(lambda: outbox.waiting() == 0, 30, "all delivered")
    assert {row.status for row in outbox.rows()} == {DeliveryStatus.DELIVERED}
    assert Counter(request.headers["webhook-id"] for request in server.received[refused:]) == {
        row.delivery.delivery_id: 1 for row in given_up
    }


def test_a_message_whose_answer_was_lost_comes_again_with_the_same_id_and_body(outbox):
    clock = Clock()
    with Server(reset_after(b"")) as server, running(outbox, {"desk": channel(server)}, wall_ms=clock) as sender:
        until(lambda: attempts(outbox) == INCIDENTS, 30, "every first change tried")
        server.behaviour = answer(200)
        go_on(outbox, clock, sender, HOUR_MS)
        until(lambda: outbox.waiting() == 0, 30, "all delivered")
    times = Counter(request.headers["webhook-id"] for request in server.received)
    assert times == {f"msg_incident-{number}_{change}_desk": 3 - change for number in range(INCIDENTS) for change in (1, 2)}
    assert {request.body for request in server.received} == {b"{}"}
