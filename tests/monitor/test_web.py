"""The web server on a real socket: probes, metrics from memory, nothing but reading."""

import http.client
import threading

import pytest
from prometheus_client import CollectorRegistry, Counter

from monitor.config import WebSettings
from monitor.metrics import RenderedMetrics
from monitor.web import Health, WebApplication, WebServer


class Clock:
    def __init__(self):
        self.now_s = 0.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def registry():
    registry = CollectorRegistry()
    Counter("things", "Things.", registry=registry).inc()
    return registry


@pytest.fixture
def server(registry):
    health = {"live": Health(ok=True, checks={}), "ready": Health(ok=False, checks={"source": "closed"})}
    application = WebApplication(RenderedMetrics(registry, 60), lambda: health["live"], lambda: health["ready"])
    server = WebServer(application, WebSettings(port=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server
    server.close()
    thread.join(5)


def ask(server, method, path):
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request(method, path)
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    return answer, body


def test_probes_say_how_it_is(server):
    assert ask(server, "GET", "/livez")[0].status == 200
    answer, body = ask(server, "GET", "/readyz")
    assert answer.status == 503
    assert b'"source": "closed"' in body


def test_metrics_are_served_and_everything_else_is_refused(server):
    answer, body = ask(server, "GET", "/metrics")
    assert (answer.status, b"things_total 1.0" in body) == (200, True)
    assert answer.getheader("content-type").startswith("text/plain")
    assert answer.getheader("x-content-type-options") == "nosniff"
    assert ask(server, "POST", "/metrics")[0].status == 405
    assert ask(server, "GET", "/../etc/passwd")[0].status == 404


def test_metrics_are_rendered_once_in_a_while_however_many_ask(registry):
    clock = Clock()
    rendered = RenderedMetrics(registry, refresh_s=2.0, clock=clock)
    counter = Counter("later", "Later.", registry=registry)
    first, _ = rendered.render("")
    counter.inc()
    clock.now_s = 1.9
    assert rendered.render("")[0] == first
    clock.now_s = 2.0
    assert b"later_total 1.0" in rendered.render("")[0]
