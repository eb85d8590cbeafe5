"""Family 22: the clock of the machine jumps. Stream time does not; no minute is judged twice; what was decided is still told."""

import threading
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

import monitor.daemon
from alerts.types import DeliveryStatus
from monitor.sources.times import wall_clock_ms
from monitor.store.engine import open_engine
from monitor.store.outbox import SqlOutbox
from tests.alerts.building import a_delivery
from tests.alerts.server import Server, answer
from tests.alerts.test_deliver import Clock, running
from tests.contracts.test_outbox import fill
from tests.end_to_end.processes import until
from tests.end_to_end.stream import stream
from tests.faults.oracles import alert_truth, told
from tests.faults.tailing import append, conservation, until_placed
from tests.faults.test_10_database import RECORDS, calm, watching
from tests.faults.test_20_endpoint import channel
from tests.receiver import SECRET

__all__ = ["calm"]

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
TEN_YEARS_MS = 10 * 365 * 24 * HOUR_MS
LAST_MS = max(line.time_ms for line in stream(RECORDS))


def read_through_a_jump(folder, monkeypatch, jump_ms):
    """Reads the stream with a clock that jumps in its middle; the engine of what came of it, and how many minutes were judged."""
    clock = Clock(LAST_MS)
    monkeypatch.setattr(monitor.daemon, "wall_clock_ms", clock)
    lines = [line.value for line in stream(RECORDS)]
    engine = open_engine(f"sqlite:///{folder / 'store.db'}")
    append(folder, lines[: RECORDS // 2])
    with watching(folder, engine) as daemon:
        until_placed(engine, RECORDS // 2)
        clock.now_ms += jump_ms
        append(folder, lines[RECORDS // 2 :])
        until_placed(engine, RECORDS)
        judged = daemon.registry.get_sample_value("bellwether_evaluations_total")
    return engine, judged


@pytest.mark.parametrize("jump_ms", [0, HOUR_MS, TEN_YEARS_MS], ids=["frozen", "an hour ahead", "ten years ahead"])
def test_a_clock_that_stands_still_or_runs_ahead_changes_no_incident(tmp_path, monkeypatch, calm, jump_ms):
    engine, _ = read_through_a_jump(tmp_path, monkeypatch, jump_ms)
    assert conservation(engine, tmp_path, list(stream(RECORDS))) == []
    assert alert_truth(calm, told(engine)) == []
    engine.dispose()


def test_a_clock_that_is_set_back_loses_nothing_and_no_minute_is_judged_twice(tmp_path, monkeypatch):
    engine, judged = read_through_a_jump(tmp_path, monkeypatch, -6 * HOUR_MS)
    assert conservation(engine, tmp_path, list(stream(RECORDS))) == []
    found = told(engine)
    engine.dispose()
    first_ms = min(line.time_ms for line in stream(RECORDS)) // MINUTE_MS * MINUTE_MS
    assert judged <= (LAST_MS - first_ms) / MINUTE_MS + 1
    changes = Counter(row[:2] for row in found.changes)
    assert set(changes.values()) <= {1}
    assert {name for name, _ in changes} == {row[0] for row in found.incidents}


@pytest.fixture
def outbox_of(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")

    def make(*deliveries):
        fill(engine, deliveries)
        return SqlOutbox(engine)

    yield make
    engine.dispose()


def test_what_a_clock_ten_years_ahead_put_off_is_sent_when_the_clock_is_right_again(outbox_of):
    now_ms = wall_clock_ms()
    clock = Clock(now_ms + TEN_YEARS_MS)
    outbox = outbox_of(replace(a_delivery("a", due_at_ms=now_ms), created_at_ms=now_ms))
    with Server(answer(500)) as server:
        with running(outbox, {"desk": channel(server, retry_for_ms=2 * TEN_YEARS_MS)}, wall_ms=clock):
            until(lambda: outbox.rows()[0].delivery.attempts == 1, 30, "the attempt that failed")
        assert outbox.next_due_at_ms() > now_ms + TEN_YEARS_MS
        clock.now_ms = now_ms
        server.behaviour = answer(200)
        with running(outbox, {"desk": channel(server)}, wall_ms=clock):
            until(lambda: outbox.waiting() == 0, 30, "the delivery")
    assert outbox.rows()[0].status is DeliveryStatus.DELIVERED
    assert len({request.headers["webhook-id"] for request in server.received}) == 1


def test_a_pause_that_a_receiver_asked_for_is_no_clock_that_ran_ahead(outbox_of):
    now_ms = wall_clock_ms()
    clock = Clock(now_ms)
    outbox = outbox_of(replace(a_delivery("a", due_at_ms=now_ms), created_at_ms=now_ms))
    with (
        Server(answer(429, {"Retry-After": "86400"})) as server,
        running(outbox, {"desk": channel(server)}, wall_ms=clock) as sender,
    ):
        until(lambda: outbox.rows()[0].delivery.attempts == 1, 30, "the first attempt")
        clock.now_ms += 23 * HOUR_MS
        for _ in range(20):
            sender.notify()
            threading.Event().wait(0.02)
        assert len(server.received) == 1


class Strict:
    """A receiver that verifies signatures, and so refuses a time that is far from its own."""

    def __init__(self, server):
        self.server = server

    def __call__(self, connection, closing):
        request = self.server.received[-1]
        try:
            Webhook(SECRET).verify(request.body, request.headers)
        except WebhookVerificationError:
            answer(400)(connection, closing)
        else:
            answer(204, body=b"")(connection, closing)


@pytest.mark.parametrize("ahead_ms", [HOUR_MS, -HOUR_MS], ids=["an hour ahead", "an hour behind"])
def test_what_a_receiver_refuses_for_the_wrong_time_arrives_once_the_clock_is_right(outbox_of, ahead_ms):
    now_ms = wall_clock_ms()
    clock = Clock(now_ms + ahead_ms)
    outbox = outbox_of(a_delivery("a", due_at_ms=now_ms - 2 * HOUR_MS))
    with Server() as server:
        server.behaviour = Strict(server)
        with running(outbox, {"desk": channel(server, retry_for_ms=TEN_YEARS_MS * 10)}, wall_ms=clock) as sender:
            until(lambda: outbox.rows()[0].last_status_code == 400, 30, "the refusal")
            # Right again, and later than the pause that the wrong clock chose.
            clock.now_ms = max(wall_clock_ms(), outbox.next_due_at_ms())
            if ahead_ms < 0:
                sender.notify()
                until(lambda: outbox.waiting() == 0, 30, "the delivery")
    told_at = datetime.fromtimestamp(int(server.received[0].headers["webhook-timestamp"]), UTC)
    assert abs(told_at.timestamp() * 1_000 - now_ms - ahead_ms) < 1_000
