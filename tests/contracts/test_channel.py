"""What every channel keeps: one table of answers, one deadline, and nothing secret in what it says about an attempt."""

import json
import re
import socket
import ssl
import subprocess
import time
from dataclasses import replace

import httpcore2
import pytest
from standardwebhooks import Webhook

from alerts.channel import Channel
from alerts.signature import Secret
from alerts.types import AttemptResult, Delivery
from alerts.webhook import Receiver, WebhookChannel
from monitor.errors import ConfigurationError
from tests.alerts.server import Server, answer, drip, flood, hang, reset_after, say

SECRET = "whsec_" + "c2VjcmV0" * 4
PATH = "/hooks/T0K3N"
BODY = '{"summary":"Halden Bank: 62 % — 哈尔登"}'.encode()
DELIVERY = Delivery("msg_5b", "desk", "1434", 1, BODY, created_at_ms=0, due_at_ms=0)
NOW_MS = 1_795_583_640_000
OK = b"HTTP/1.1 200 OK\r\n"


def loopback(host, port):
    return ["127.0.0.1"]


def a_receiver(port, **changes):
    receiver = Receiver(
        name="desk",
        url=Secret(f"http://receiver.test:{port}{PATH}?key=k%2F1&x=ü"),
        secrets=(Secret(SECRET),),
        allow_private_addresses=True,
        allow_http=True,
        timeout_s=5.0,
    )
    return replace(receiver, **changes)


def a_webhook(port, **changes) -> Channel:
    return WebhookChannel(a_receiver(port, **changes), loopback)


@pytest.fixture(params=[a_webhook], ids=["webhook"])
def make_channel(request):
    """Makes a channel to a port on loopback, by name `receiver.test`."""
    return request.param


def send(make_channel, behaviour, now_ms=NOW_MS, **changes):
    """One attempt against a server that behaves so, and what the server received."""
    with Server(behaviour) as server:
        attempt = make_channel(server.port, **changes).send(DELIVERY, now_ms)
    assert not re.search(r"T0K3N|hooks|receiver\.test|key=|c2VjcmV0|127\.0|https?:", repr(attempt)), "an attempt tells no secrets"
    return attempt, server.received


# --- the table of answers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "result"),
    [
        *((status, AttemptResult.DELIVERED) for status in (200, 201, 202, 204, 206, 299)),
        *((status, AttemptResult.REDIRECTED) for status in (300, 301, 302, 303, 304, 307, 308, 399)),
        *((status, AttemptResult.REFUSED) for status in (400, 401, 403, 404, 405, 408, 409, 411, 413, 422, 499)),
        *((status, AttemptResult.REFUSED) for status in (500, 501, 502, 504, 508, 599)),
        *((status, AttemptResult.THROTTLED) for status in (429, 503)),
        (410, AttemptResult.GONE),
    ],
)
def test_a_status_means_the_same_to_every_channel(make_channel, status, result):
    attempt, received = send(make_channel, answer(status, body=b"" if status in {204, 304} else b"ok"))
    assert (attempt.result, attempt.status_code) == (result, status)
    assert str(status) in attempt.detail
    assert len(received) == 1


@pytest.mark.parametrize(
    ("header", "expected_s"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("Wed, 25 Nov 2026 05:15:00 GMT", 60.0),
        ("Wed, 25 Nov 2026 05:13:00 GMT", 0.0),
        ("Wed, 25 Nov 2026 05:15:00 -0000", 60.0),
        ("soon", None),
        ("-5", None),
        ("1.5", None),
        ("9" * 400, None),
        ("", None),
        ("Wed, 99 Nov 2026 05:15:00 GMT", None),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_a_receiver_may_say_when_to_come_back(make_channel, status, header, expected_s):
    attempt, _ = send(make_channel, answer(status, {"Retry-After": header}))
    assert attempt.retry_after_s == expected_s


def test_only_a_receiver_that_throttles_is_asked_when_to_come_back(make_channel):
    for status in (200, 302, 404, 500):
        attempt, _ = send(make_channel, answer(status, {"Retry-After": "120"}))
        assert attempt.retry_after_s is None


def test_a_redirect_to_the_metadata_address_is_not_followed(make_channel):
    attempt, received = send(make_channel, answer(301, {"Location": "http://169.254.169.254/latest/meta-data/"}))
    assert attempt.result is AttemptResult.REDIRECTED
    assert len(received) == 1


def test_a_redirect_to_itself_is_not_followed(make_channel):
    _, received = send(make_channel, answer(307, {"Location": PATH}))
    assert len(received) == 1


# --- misbehaviour --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "behaviour",
    [
        hang,
        drip(b"", b"HTTP/1.1 200 OK\r\n"),
        drip(OK, b"X-Header: x\r\n"),
        drip(b"", b"HTTP/1.1 102 Processing\r\n\r\n", every_s=0.001),
    ],
    ids=["silence", "status drips", "headers drip", "endless interim answers"],
)
def test_an_answer_that_does_not_come_ends_at_the_deadline(make_channel, behaviour):
    attempt, _ = send(make_channel, behaviour, timeout_s=0.4)
    assert (attempt.result, attempt.status_code) == (AttemptResult.TIMED_OUT, None)
    assert 0.3 < attempt.duration_s < 1.5


@pytest.mark.parametrize(
    ("behaviour", "longest_s"),
    [
        (drip(OK + b"Content-Length: 100000\r\n\r\n", b"x"), 1.5),
        (flood(OK + b"\r\n"), 5.0),
        (flood(OK + b"Content-Length: 99999999999\r\n\r\n"), 5.0),
        (reset_after(OK + b"Content-Length: 100000\r\n\r\nhalf"), 0.4),
        (say(OK + b"Content-Length: 100000\r\n\r\nhalf"), 0.4),
        (say(OK + b"Transfer-Encoding: chunked\r\n\r\nnonsense"), 0.4),
    ],
    ids=["body drips", "endless body", "endless length", "reset within the body", "body ends early", "bad chunks"],
)
def test_the_status_is_the_answer_whatever_becomes_of_the_body(make_channel, behaviour, longest_s):
    attempt, _ = send(make_channel, behaviour, timeout_s=0.4 if longest_s == 1.5 else 20.0)
    assert (attempt.result, attempt.status_code) == (AttemptResult.DELIVERED, 200)
    assert attempt.duration_s < longest_s


@pytest.mark.parametrize(
    "behaviour",
    [reset_after(b""), reset_after(b"HTTP/1."), say(b""), say(b"SSH-2.0-OpenSSH_9.6\r\n"), say(OK), say(b"HTTP/1.1 abc\r\n\r\n")],
    ids=["reset", "reset within the status", "closed", "not HTTP", "headers end early", "no status"],
)
def test_no_answer_is_an_outcome_and_no_exception(make_channel, behaviour):
    attempt, _ = send(make_channel, behaviour)
    assert (attempt.result, attempt.status_code) == (AttemptResult.UNREACHABLE, None)


def test_headers_without_end_are_no_answer(make_channel):
    attempt, _ = send(make_channel, flood(OK + b"X-Header: "))
    assert attempt.result is AttemptResult.UNREACHABLE
    assert attempt.duration_s < 3


def test_a_closed_port_is_unreachable(make_channel):
    with Server() as server:
        port = server.port
    attempt = make_channel(port).send(DELIVERY, NOW_MS)
    assert (attempt.result, attempt.detail) == (AttemptResult.UNREACHABLE, "no connection: Connection refused")


def test_private_addresses_are_refused_unless_allowed(make_channel):
    attempt, received = send(make_channel, answer(200), allow_private_addresses=False)
    assert attempt.result is AttemptResult.FORBIDDEN_ADDRESS
    assert "loopback" in attempt.detail
    assert not received


def test_a_channel_can_be_used_again_after_every_outcome(make_channel):
    with Server() as server:
        channel = make_channel(server.port, timeout_s=0.3)
        for behaviour in (answer(200), hang, reset_after(b""), answer(500), answer(200)):
            server.behaviour = behaviour
            last = channel.send(DELIVERY, NOW_MS)
    assert last.result is AttemptResult.DELIVERED
    assert len(server.received) == 5


def test_the_receiver_says_for_how_long_it_is_tried_and_how_long_an_attempt_may_take(make_channel):
    channel = make_channel(1, retry_for_ms=77, timeout_s=2.5)
    assert (channel.retry_for_ms, channel.timeout_ms) == (77, 2_500)


# --- the webhook ---------------------------------------------------------------------------------


def test_a_webhook_is_a_signed_post_of_the_exact_body():
    now_ms = time.time_ns() // 1_000_000
    _, received = send(a_webhook, answer(200), now_ms)
    request = received[0]
    assert request.line == f"POST {PATH}?key=k%2F1&x=%C3%BC HTTP/1.1"
    assert request.body == BODY
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"].startswith("receiver.test:")
    assert request.headers["webhook-id"] == "msg_5b"
    assert Webhook(SECRET).verify(request.body, request.headers) == json.loads(BODY)


def test_proxies_of_the_environment_are_not_asked(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    attempt, _ = send(a_webhook, answer(200))
    assert attempt.result is AttemptResult.DELIVERED


def test_a_name_that_nobody_knows_is_unreachable():
    def nobody(host, port):
        raise socket.gaierror(-2, f"{host} is not known")

    attempt = WebhookChannel(a_receiver(1), nobody).send(DELIVERY, NOW_MS)
    assert (attempt.result, attempt.detail) == (AttemptResult.UNREACHABLE, "the host's name is not known")


def test_an_address_may_stand_in_brackets():
    with Server() as server:
        url = Secret(f"http://[::ffff:127.0.0.1]:{server.port}/x")
        attempt = WebhookChannel(a_receiver(1, url=url), loopback).send(DELIVERY, NOW_MS)
    assert attempt.result is AttemptResult.DELIVERED
    assert server.received[0].headers["host"] == f"[::ffff:127.0.0.1]:{server.port}"


def test_everything_that_the_http_library_raises_has_an_outcome():
    raised = [
        item for name in httpcore2.__all__ if isinstance(item := getattr(httpcore2, name), type) and issubclass(item, Exception)
    ]
    handled = (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError)
    # We use no proxy, and the other two are about how the library is called.
    ours = {httpcore2.ProxyError, httpcore2.UnsupportedProtocol, httpcore2.ConnectionNotAvailable}
    assert raised
    assert not [error for error in raised if not issubclass(error, handled) and error not in ours]


# --- TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for receiver.test, signed by itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=receiver.test", "-addext", "subjectAltName=DNS:receiver.test",
         "-keyout", folder / "key.pem", "-out", folder / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    return folder


def send_over_tls(certificate, host="receiver.test", *, trusted=True, behaviour=None, timeout_s=5.0):
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    trusting = ssl.create_default_context(cafile=certificate / "certificate.pem" if trusted else None)
    with Server(behaviour or answer(200), serving) as server:
        url = Secret(f"https://{host}:{server.port}{PATH}")
        receiver = a_receiver(server.port, url=url, allow_http=False, timeout_s=timeout_s)
        return WebhookChannel(receiver, loopback, trusting).send(DELIVERY, NOW_MS)


def test_the_certificate_is_held_against_the_name_and_not_the_address(certificate):
    assert send_over_tls(certificate).result is AttemptResult.DELIVERED
    wrong = send_over_tls(certificate, host="other.test")
    assert (wrong.result, wrong.detail) == (AttemptResult.UNREACHABLE, "TLS failed: the certificate is for another host")


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate):
    attempt = send_over_tls(certificate, trusted=False)
    assert (attempt.result, attempt.detail) == (AttemptResult.UNREACHABLE, "TLS failed: the certificate is signed by itself")


def test_the_deadline_holds_over_tls(certificate):
    attempt = send_over_tls(certificate, behaviour=drip(b"", OK), timeout_s=0.4)
    assert attempt.result is AttemptResult.TIMED_OUT
    assert attempt.duration_s < 1.5


def test_a_server_that_does_not_speak_tls_is_unreachable():
    with Server() as server:
        receiver = a_receiver(1, url=Secret(f"https://receiver.test:{server.port}/"), timeout_s=0.5)
        attempt = WebhookChannel(receiver, loopback).send(DELIVERY, NOW_MS)
    # The server waits for the end of a request that never comes in plain text.
    assert attempt.result in {AttemptResult.TIMED_OUT, AttemptResult.UNREACHABLE}
    assert attempt.duration_s < 1.5


# --- receivers -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://receiver.test/", "must begin with https:// (allow_http permits http://)"),
        ("ftp://receiver.test/", "must begin with https://"),
        ("receiver.test/x", "must begin with https://"),
        ("https:///x", "names no host"),
        ("https://user:hush@receiver.test/", "must not hold a user name or a password"),
        ("https://receiver.test/#x", "must not hold a fragment (#...)"),
        ("https://receiver.test:99999/", "is no URL"),
        ("https://receiver.test:x/", "is no URL"),
        ("https://[::1/", "is no URL"),
        ("https://" + "a" * 64 + ".test/", "is no URL"),
        ("https://receiver.test/a b", "holds a space or a control character"),
        ("https://receiver.test/\r\nHost: x", "holds a space or a control character"),
    ],
)
def test_a_url_that_cannot_be_used_is_refused_without_being_quoted(url, fault):
    with pytest.raises(ConfigurationError) as caught:
        a_receiver(1, url=Secret(url), allow_http=False)
    assert f"url: {fault}" in caught.value.problems
    assert "hush" not in str(caught.value)


def test_every_fault_of_a_receiver_is_listed():
    with pytest.raises(ConfigurationError) as caught:
        Receiver("desk", Secret("http://u@/"), (Secret("x"), Secret("whsec_x")), timeout_s=0.0)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["url", "url", "url", "secret", "secret", "timeout"]
    with pytest.raises(ConfigurationError, match="secret: is missing"):
        Receiver("desk", Secret("https://receiver.test"), ())


def test_a_receiver_shows_neither_its_url_nor_its_secret():
    assert not re.search(r"T0K3N|receiver\.test|c2VjcmV0", repr(a_receiver(1)))
