"""What every channel owes: one attempt, one outcome, in time, whatever the other end does. The other end is a real server."""

import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from standardwebhooks import Webhook

from alerts.signature import Secret
from alerts.types import AttemptResult, Delivery
from alerts.webhook import MOST_ANSWER_BYTES, Receiver, WebhookChannel
from monitor.errors import ConfigurationError
from tests.receiver import SECRET

OTHER_SECRET = "whsec_" + "b3RoZXIgc2VjcmV0LCBhbHNvIG5vIHNlY3JldCEh"
DELIVERY = Delivery("msg_1", "desk", "incident", 1, b'{"type":"incident.opened"}', 0, 0)
TIMEOUT_S = 1.5


@contextmanager
def server(answer):
    """A TCP server that reads a request and lets `answer(connection)` say the rest; yields its port and the requests it read."""
    listener = socket.create_server(("127.0.0.1", 0))
    requests, open_connections = [], []

    def serve():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            open_connections.append(connection)
            threading.Thread(target=talk, args=(connection,), daemon=True).start()

    def talk(connection):
        try:
            head, body = b"", b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(65_536)
            head, _, body = head.partition(b"\r\n\r\n")
            headers = dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])
            headers = {name.decode().lower(): value.decode() for name, value in headers.items()}
            while len(body) < int(headers["content-length"]):
                body += connection.recv(65_536)
            requests.append((headers, body))
            answer(connection)
        except OSError:
            pass

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1], requests
    finally:
        listener.close()
        for connection in open_connections:
            connection.close()


def says(text):
    def answer(connection):
        connection.sendall(text.encode())
        connection.close()

    return answer


def status(code, *headers):
    return says("".join([f"HTTP/1.1 {code} Whatever\r\n", *(f"{header}\r\n" for header in headers), "Content-Length: 0\r\n\r\n"]))


def channel(port, host="127.0.0.1", resolver=None, **changes):
    options = {"allow_private_addresses": True, "allow_http": True, "timeout_s": TIMEOUT_S, "secrets": (Secret(SECRET),)}
    receiver = Receiver("desk", Secret(f"http://{host}:{port}/path?token=hidden"), **(options | changes))
    return WebhookChannel(receiver) if resolver is None else WebhookChannel(receiver, resolver)


@pytest.mark.parametrize(
    ("code", "result"),
    [
        (200, AttemptResult.DELIVERED),
        (202, AttemptResult.DELIVERED),
        (204, AttemptResult.DELIVERED),
        (299, AttemptResult.DELIVERED),
        (301, AttemptResult.REDIRECTED),
        (302, AttemptResult.REDIRECTED),
        (307, AttemptResult.REDIRECTED),
        (400, AttemptResult.REFUSED),
        (401, AttemptResult.REFUSED),
        (404, AttemptResult.REFUSED),
        (410, AttemptResult.GONE),
        (429, AttemptResult.THROTTLED),
        (500, AttemptResult.REFUSED),
        (502, AttemptResult.REFUSED),
        (503, AttemptResult.THROTTLED),
    ],
)
def test_a_status_code_has_one_meaning(code, result):
    with server(status(code, "Location: http://169.254.169.254/latest")) as (port, requests):
        attempt = channel(port).send(DELIVERY, 0)
        assert (attempt.result, attempt.status_code) == (result, code)
        assert len(requests) == 1


def test_the_signature_is_one_that_the_reference_library_accepts_under_either_secret():
    now_ms = round(time.time() * 1000)
    with server(status(204)) as (port, requests):
        channel(port, secrets=(Secret(SECRET), Secret(OTHER_SECRET))).send(DELIVERY, now_ms)
        headers, body = requests[0]
    assert body == DELIVERY.body
    assert headers["webhook-id"] == DELIVERY.delivery_id
    for secret in (SECRET, OTHER_SECRET):
        Webhook(secret).verify(body, headers)


@pytest.mark.parametrize(("header", "wanted"), [("120", 120), ("", None), ("soon", None), ("-5", None)])
def test_retry_after_in_seconds_is_passed_on(header, wanted):
    with server(status(429, f"Retry-After: {header}")) as (port, _):
        found = channel(port).send(DELIVERY, 0).retry_after_s
    assert found == wanted or (wanted is None and found in (None, 0.0))


def test_retry_after_as_a_date_is_passed_on_as_seconds():
    now = datetime(2026, 11, 25, 12, tzinfo=UTC)
    header = format_datetime(now + timedelta(minutes=5), usegmt=True)
    with server(status(503, f"Retry-After: {header}")) as (port, _):
        assert channel(port).send(DELIVERY, round(now.timestamp() * 1000)).retry_after_s == pytest.approx(300, abs=1)


def drip(text, pause_s=0.2):
    """One byte after the other: every single wait is short, the whole is not."""

    def answer(connection):
        for byte in text.encode():
            connection.sendall(bytes([byte]))
            time.sleep(pause_s)

    return answer


def endless(connection):
    connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        connection.sendall(b"1000\r\n" + b"x" * 4_096 + b"\r\n")


@pytest.mark.parametrize(
    ("answer", "results"),
    [
        (lambda connection: time.sleep(30), {AttemptResult.TIMED_OUT}),
        (drip("HTTP/1.1 200 OK\r\nX: " + "y" * 100), {AttemptResult.TIMED_OUT}),
        (lambda connection: connection.close(), {AttemptResult.UNREACHABLE, AttemptResult.REFUSED}),
        (says("this is no HTTP\r\n\r\n"), {AttemptResult.UNREACHABLE, AttemptResult.REFUSED}),
        (endless, {AttemptResult.DELIVERED}),
        (drip("HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n" + "z" * 90, 0.015), {AttemptResult.DELIVERED}),
    ],
    ids=["hangs", "drips its head", "hangs up", "talks nonsense", "never ends", "drips its body"],
)
def test_whatever_the_other_end_does_the_attempt_ends_in_time(answer, results):
    with server(answer) as (port, _):
        begun_s = time.monotonic()
        attempt = channel(port).send(DELIVERY, 0)
        assert time.monotonic() - begun_s < TIMEOUT_S + 1
        assert attempt.result in results, attempt
    assert MOST_ANSWER_BYTES <= 65_536


def test_nobody_there_is_unreachable_and_nothing_secret_is_said():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        attempt = channel(free.getsockname()[1]).send(DELIVERY, 0)
    assert attempt.result is AttemptResult.UNREACHABLE
    assert "hidden" not in repr(attempt)
    assert "path" not in attempt.detail


FORBIDDEN = [
    "127.0.0.1",
    "127.1.2.3",
    "0.0.0.0",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "168.63.129.16",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::1",
    "::",
    "fe80::1",
    "fc00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "64:ff9b:1::a9fe:a9fe",
    "2001:0:7f00:1::",
]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_inside_is_never_connected_to(address):
    with server(status(200)) as (port, requests):
        guarded = channel(port, host="hooks.example.org", resolver=lambda host, port: [address], allow_private_addresses=False)
        assert guarded.send(DELIVERY, 0).result is AttemptResult.FORBIDDEN_ADDRESS
        assert not requests


def test_one_forbidden_address_among_good_ones_is_enough():
    guarded = channel(
        9, host="hooks.example.org", resolver=lambda host, port: ["93.184.216.34", "127.0.0.1"], allow_private_addresses=False
    )
    assert guarded.send(DELIVERY, 0).result is AttemptResult.FORBIDDEN_ADDRESS


def test_a_name_is_resolved_once_so_that_it_cannot_answer_differently_the_second_time():
    asked = []

    def resolver(host, port):
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["203.0.113.9"]

    with server(status(200)) as (port, _):
        assert channel(port, host="rebinding.example.org", resolver=resolver).send(DELIVERY, 0).result is AttemptResult.DELIVERED
    assert len(asked) == 1


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with server(status(200)) as (port, _):
        assert channel(port).send(DELIVERY, 0).result is AttemptResult.DELIVERED


@pytest.mark.parametrize(
    ("url", "secret", "says_what"),
    [
        ("http://h.example/", SECRET, "http"),
        ("ftp://h.example/", SECRET, "url"),
        ("https://", SECRET, "url"),
        ("https://user:pw@h.example/", SECRET, "url"),
        ("https://h.example/", "nonsense", "whsec_"),
        ("https://h.example/", "whsec_dG9vIHNob3J0", "bytes"),
    ],
)
def test_a_receiver_that_cannot_work_is_refused_without_its_secrets(url, secret, says_what):
    with pytest.raises(ConfigurationError) as caught:
        Receiver("desk", Secret(url), (Secret(secret),))
    text = str(caught.value)
    assert says_what in text
    assert "pw" not in text
    assert "dG9vIHNob3J0" not in text


def test_a_receiver_shows_nothing_secret():
    shown = repr(Receiver("desk", Secret("https://h.example/token"), (Secret(SECRET),)))
    assert "token" not in shown
    assert SECRET not in shown
