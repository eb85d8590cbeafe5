"""Family 21: a thousand alerts at once. Each arrives once, in order, and a receiver that throttles is left alone."""

import itertools
import socket
import threading
import time
from collections import Counter
from dataclasses import replace

from monitor.sources.times import wall_clock_ms
from monitor.store.engine import open_engine
from monitor.store.outbox import SqlOutbox
from tests.alerts.building import a_delivery
from tests.alerts.server import Server, answer
from tests.alerts.test_deliver import running
from tests.contracts.test_outbox import fill
from tests.end_to_end.processes import until
from tests.faults.tailing import desk
from tests.faults.test_10_database import each_connection

INCIDENTS = 500
THROTTLED = range(20, 40)
BODY = b"x" * 2_000


class Throttling:
    """Answers 429 to some of its requests, and remembers to which it did, and how many it had at once."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.most_at_once = 0
        self._numbers = itertools.count()
        self._at_once = 0
        self._lock = threading.Lock()

    def __call__(self, connection: socket.socket, closing: threading.Event) -> None:
        with self._lock:
            status = 429 if next(self._numbers) in THROTTLED else 204
            self.answers.append(status)
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        with self._lock:
            # Before the answer: the next request may be on its way as soon as that is read.
            self._at_once -= 1
        answer(status, {"Retry-After": "1"} if status == 429 else None, body=b"")(connection, closing)


def fresh(name, **place):
    return replace(a_delivery(name, body=BODY, **place), created_at_ms=wall_clock_ms())


def test_a_thousand_messages_to_two_receivers_arrive_once_each_and_in_order(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    # What is tested is the order and number of messages: no power is cut, so no commit waits for the disk.
    each_connection(engine, "synchronous=OFF")
    fill(engine, [fresh(f"i{number}", sequence=change) for number in range(INCIDENTS) for change in (1, 2)])
    fill(engine, [fresh("alone", receiver="siem")])
    outbox, throttling = SqlOutbox(engine), Throttling()
    with Server(throttling) as busy, Server(answer(204, body=b"")) as siem:
        ports = {"desk": busy.port, "siem": siem.port}
        channels = {name: desk(f"http://127.0.0.1:{port}/", name).channel() for name, port in ports.items()}
        began_s = time.monotonic()
        with running(outbox, channels, wall_ms=wall_clock_ms, chance=lambda: 0.0):
            until(lambda: siem.received, 10, "the other receiver does not wait behind a thousand")
            waited_s = time.monotonic() - began_s
            until(lambda: outbox.waiting() == 0, 500, "all delivered")
        took_s = time.monotonic() - began_s
    engine.dispose()
    print(f"{2 * INCIDENTS} messages in {took_s:.1f} s; the other receiver had its own after {waited_s:.2f} s")
    asked = [request.headers["webhook-id"] for request in busy.received]
    times = Counter(asked)
    assert len(times) == 2 * INCIDENTS
    assert sum(times.values()) == 2 * INCIDENTS + len(THROTTLED)
    arrived = [name for name, status in zip(asked, throttling.answers, strict=True) if status == 204]
    assert len(arrived) == len(set(arrived)) == 2 * INCIDENTS
    places = {name: place for place, name in enumerate(arrived)}
    assert all(places[f"msg_i{number}_1_desk"] < places[f"msg_i{number}_2_desk"] for number in range(INCIDENTS))
    assert throttling.most_at_once == 1
