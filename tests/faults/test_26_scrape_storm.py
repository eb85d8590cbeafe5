"""Family 26: many scrape at once, and some read a kilobyte a second or say nothing. The news goes on, and probes are answered."""

import http.client
import socket
import threading
import time
from collections import deque
from contextlib import ExitStack, contextmanager
from datetime import timedelta

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from monitor.store.engine import open_engine
from monitor.watchlist import Entity, WatchList
from tests.end_to_end.processes import until
from tests.end_to_end.stream import BEGIN, stream
from tests.faults.tailing import append, news, running, until_placed

SCRAPERS = 50
SLOW = 40
SILENT = 300
MOST_CONNECTIONS = 200
ENTITIES = WatchList([Entity(f"bank-{number}", f"Bank{number} Holdings") for number in range(250)])
GET = b"GET /metrics HTTP/1.1\r\nHost: bellwether\r\n\r\n"


def ask(daemon, path, timeout_s=30):
    """Status and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=timeout_s)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@contextmanager
def slow_readers(daemon, number, request):
    """Connections that ask and then take a kilobyte a second between them all, as long as the block lasts."""
    with ExitStack() as stack:
        done = threading.Event()
        connections = []
        for _ in range(number):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
            connection.connect(("127.0.0.1", daemon.port))
            connection.sendall(request)
            connections.append(stack.enter_context(connection))

        def read():
            while not done.wait(1.0 / number):
                connections[0].recv(1_024 // number)
                connections.append(connections.pop(0))

        thread = threading.Thread(target=read)
        if request:
            thread.start()
        try:
            yield
        finally:
            done.set()
            if request:
                thread.join()


@pytest.fixture
def daemon(tmp_path):
    """A daemon with two hundred and fifty entities in its metrics."""
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    lines = [news(f"bank:{number}", f"Bank{number} Holdings in the news", received_at=BEGIN) for number in range(250)]
    append(tmp_path, [*lines, news("later", "Nothing of note", received_at=BEGIN + timedelta(minutes=5))])
    with running(tmp_path, engine, watchlist=ENTITIES, refresh=timedelta(seconds=1)) as daemon:
        until_placed(engine, 251)
        until(lambda: ask(daemon, "/metrics")[1].count(b"bellwether_window_stories{") > 1_000, 60, "all series shown")
        yield daemon
    engine.dispose()


def test_fifty_scrapes_at_once_and_slow_readers_hold_up_neither_the_news_nor_a_probe(daemon, tmp_path):
    lines = list(stream(1_000))
    before = daemon.metrics.balance.consumed
    process, stop = psutil.Process(), threading.Event()
    statuses, bodies = [], deque(maxlen=5)

    def scrape():
        while not stop.is_set():
            status, body = ask(daemon, "/metrics", timeout_s=120)
            statuses.append(status)
            bodies.append(body)

    began_bytes = process.memory_info().rss
    with slow_readers(daemon, SLOW, GET):
        threads = [threading.Thread(target=scrape) for _ in range(SCRAPERS - SLOW)]
        for thread in threads:
            thread.start()
        append(tmp_path, [line.value for line in lines])
        until(lambda: daemon.metrics.balance.consumed == before + len(lines), 60, "the news counted during the storm")
        began_s = time.monotonic()
        status, _ = ask(daemon, "/livez")
        probe_s = time.monotonic() - began_s
        stop.set()
        for thread in threads:
            thread.join()
    grown_bytes = process.memory_info().rss - began_bytes
    print(f"{len(statuses)} scrapes; a probe took {probe_s:.2f} s; memory grew by {grown_bytes / 2**20:.0f} MiB")
    assert status == 200
    assert probe_s < 10
    assert set(statuses) == {200}
    for body in bodies:
        assert len({family.name for family in text_string_to_metric_families(body.decode())}) > 20
    assert grown_bytes < 100 * 2**20


def test_connections_are_limited_and_those_that_say_nothing_are_put_out(daemon):
    files = psutil.Process().num_fds()
    with slow_readers(daemon, SILENT, b""):
        until(lambda: psutil.Process().num_fds() - files - SILENT >= MOST_CONNECTIONS - 4, 30, "as many taken as are allowed")
        began_s = time.monotonic()
        status, _ = ask(daemon, "/livez", timeout_s=60)
        print(f"a probe behind {SILENT} connections that say nothing took {time.monotonic() - began_s:.1f} s")
        assert status == 200
        assert psutil.Process().num_fds() - files - SILENT <= MOST_CONNECTIONS + 2
    until(lambda: psutil.Process().num_fds() <= files + 4, 60, "all connections closed")
