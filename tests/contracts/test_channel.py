"""What every channel keeps: one table of answers, one deadline, and nothing secret in what it says about an attempt."""

import json
import re
import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import httpcore2
import pytest
from standardwebhooks import Webhook

from alerts.channels.alertmanager import AlertmanagerReceiver
from alerts.channels.dingtalk import DingTalkReceiver
from alerts.channels.feishu import FeishuReceiver
from alerts.channels.pagerduty import PagerDutyReceiver
from alerts.channels.posting import Endpoint
from alerts.channels.protocol import Receiver
from alerts.channels.slack import SlackReceiver
from alerts.channels.teams import TeamsReceiver
from alerts.channels.webhook import BodyFormat, WebhookReceiver
from alerts.channels.wecom import WeComReceiver
from alerts.signature import Secret
from alerts.types import AttemptResult, Delivery
from monitor.errors import ConfigurationError
from tests.alerts.building import a_change
from tests.alerts.certificates import self_signed
from tests.alerts.server import Server, answer, drip, flood, hang, reset_after, say

SECRET = "whsec_" + "c2VjcmV0" * 4
PATH = "/hooks/T0K3N"
NOW_MS = 1_795_583_640_000
OK = b"HTTP/1.1 200 OK\r\n"


@dataclass(frozen=True)
class Kind:
    """A kind of receiver, and what its server says when it has taken a message."""

    make: Callable[[Endpoint], Receiver]
    taken: bytes = b"ok"

    def channel(self, port: int, **changes):
        """A channel to a port on loopback, by the name `receiver.test`."""
        return self.make(an_endpoint(port, **changes)).channel(loopback)

    @property
    def says_it_in_the_body(self) -> bool:
        return self.taken != b"ok"


def loopback(host, port):
    return ["127.0.0.1"]


def an_endpoint(port, **changes):
    endpoint = Endpoint(
        url=Secret(f"http://receiver.test:{port}{PATH}"), allow_private_addresses=True, allow_http=True, timeout_s=5.0
    )
    return replace(endpoint, **changes)


def a_webhook(endpoint):
    return WebhookReceiver("desk", endpoint, (Secret(SECRET),))


WEBHOOK = Kind(a_webhook)
KINDS = {
    "webhook": WEBHOOK,
    "webhook of Alertmanager's shape": Kind(lambda endpoint: replace(a_webhook(endpoint), body=BodyFormat.ALERTMANAGER)),
    "alertmanager": Kind(lambda endpoint: AlertmanagerReceiver("desk", endpoint)),
    "slack": Kind(lambda endpoint: SlackReceiver("desk", endpoint)),
    "teams": Kind(lambda endpoint: TeamsReceiver("desk", endpoint)),
    "feishu": Kind(lambda endpoint: FeishuReceiver("desk", endpoint, Secret("c2VjcmV0")), b'{"code":0,"msg":"success"}'),
    "dingtalk": Kind(lambda endpoint: DingTalkReceiver("desk", endpoint, Secret("c2VjcmV0")), b'{"errcode":0,"errmsg":"ok"}'),
    "wecom": Kind(lambda endpoint: WeComReceiver("desk", endpoint), b'{"errcode":0,"errmsg":"ok"}'),
    "pagerduty": Kind(lambda endpoint: PagerDutyReceiver("desk", Secret("c2VjcmV0"), endpoint)),
}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def kind(request):
    return request.param


@pytest.fixture(params=["webhook", "feishu"])
def either_kind(request):
    """One kind that goes by the status, and one that reads the body: what the other kinds do with HTTP is the same."""
    return KINDS[request.param]


@pytest.fixture(params=[name for name, kind in KINDS.items() if kind.says_it_in_the_body])
def talking_kind(request):
    """A kind whose body says what became of a message."""
    return KINDS[request.param]


def a_delivery(kind):
    """The delivery of a change, rendered as the kind renders it."""
    body = kind.make(an_endpoint(1)).render(a_change(summary="Halden Bank: 62 % — 哈尔登"))
    return Delivery("msg_5b", "desk", "1434", 1, body, created_at_ms=0, due_at_ms=0)


def send(kind, behaviour, now_ms=NOW_MS, **changes):
    """One attempt against a server that behaves so, and what the server received."""
    with Server(behaviour) as server:
        attempt = kind.channel(server.port, **changes).send(a_delivery(kind), now_ms)
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
def test_a_status_means_the_same_to_every_channel(kind, status, result):
    if status in {204, 206} and kind.says_it_in_the_body:
        pytest.skip("a platform that says it in the body sends one")
    attempt, received = send(kind, answer(status, body=b"" if status in {204, 304} else kind.taken))
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
def test_a_receiver_may_say_when_to_come_back(either_kind, status, header, expected_s):
    attempt, _ = send(either_kind, answer(status, {"Retry-After": header}))
    assert attempt.retry_after_s == expected_s


def test_only_a_receiver_that_throttles_is_asked_when_to_come_back(either_kind):
    for status in (200, 302, 404, 500):
        attempt, _ = send(either_kind, answer(status, {"Retry-After": "120"}))
        assert attempt.retry_after_s is None


def test_a_redirect_to_the_metadata_address_is_not_followed(kind):
    attempt, received = send(kind, answer(301, {"Location": "http://169.254.169.254/latest/meta-data/"}))
    assert attempt.result is AttemptResult.REDIRECTED
    assert len(received) == 1


def test_a_redirect_to_itself_is_not_followed(kind):
    _, received = send(kind, answer(307, {"Location": PATH}))
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
def test_an_answer_that_does_not_come_ends_at_the_deadline(either_kind, behaviour):
    attempt, _ = send(either_kind, behaviour, timeout_s=0.4)
    assert (attempt.result, attempt.status_code) == (AttemptResult.TIMED_OUT, None)
    assert 0.3 < attempt.duration_s < 1.5


@pytest.mark.parametrize(
    ("behaviour", "longest_s"),
    [
        (drip(OK + b"Content-Length: 100000\r\n\r\n", b"x"), 2.5),
        (flood(OK + b"\r\n"), 5.0),
        (flood(OK + b"Content-Length: 99999999999\r\n\r\n"), 5.0),
        (reset_after(OK + b"Content-Length: 100000\r\n\r\nhalf"), 5.0),
        (say(OK + b"Content-Length: 100000\r\n\r\nhalf"), 5.0),
        (say(OK + b"Transfer-Encoding: chunked\r\n\r\nnonsense"), 5.0),
    ],
    ids=["body drips", "endless body", "endless length", "reset within the body", "body ends early", "bad chunks"],
)
def test_the_status_is_the_answer_whatever_becomes_of_the_body(behaviour, longest_s):
    attempt, _ = send(WEBHOOK, behaviour, timeout_s=1.0 if longest_s == 2.5 else 20.0)
    assert (attempt.result, attempt.status_code) == (AttemptResult.DELIVERED, 200)
    assert attempt.duration_s < longest_s


@pytest.mark.parametrize(
    "behaviour",
    [reset_after(b""), reset_after(b"HTTP/1."), say(b""), say(b"SSH-2.0-OpenSSH_9.6\r\n"), say(OK), say(b"HTTP/1.1 abc\r\n\r\n")],
    ids=["reset", "reset within the status", "closed", "not HTTP", "headers end early", "no status"],
)
def test_no_answer_is_an_outcome_and_no_exception(either_kind, behaviour):
    attempt, _ = send(either_kind, behaviour)
    assert (attempt.result, attempt.status_code) == (AttemptResult.UNREACHABLE, None)


def test_headers_without_end_are_no_answer(either_kind):
    attempt, _ = send(either_kind, flood(OK + b"X-Header: "))
    assert attempt.result is AttemptResult.UNREACHABLE
    assert attempt.duration_s < 3


def test_a_closed_port_is_unreachable(kind):
    with Server() as server:
        port = server.port
    attempt = kind.channel(port).send(a_delivery(kind), NOW_MS)
    assert (attempt.result, attempt.detail) == (AttemptResult.UNREACHABLE, "no connection: Connection refused")


def test_private_addresses_are_refused_unless_allowed(kind):
    attempt, received = send(kind, answer(200), allow_private_addresses=False)
    assert attempt.result is AttemptResult.FORBIDDEN_ADDRESS
    assert "loopback" in attempt.detail
    assert not received


def test_a_channel_can_be_used_again_after_every_outcome(kind):
    with Server() as server:
        channel, delivery, taken = kind.channel(server.port, timeout_s=1.0), a_delivery(kind), answer(200, body=kind.taken)
        for behaviour in (taken, hang, reset_after(b""), answer(500), taken):
            server.behaviour = behaviour
            last = channel.send(delivery, NOW_MS)
    assert last.result is AttemptResult.DELIVERED
    assert len(server.received) == 5


def test_the_receiver_says_for_how_long_it_is_tried_and_how_long_an_attempt_may_take(kind):
    channel = kind.channel(1, retry_for_ms=77, timeout_s=2.5)
    assert (channel.retry_for_ms, channel.timeout_ms) == (77, 2_500)


# --- platforms that answer 200 to everything -----------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"ok", b"[]", b"{}", b"null", b"0", b'{"errcode":"0","code":"0"}', b'{"errcode":false,"code":false}', b"[" * 60_000],
    ids=["nothing", "text", "list", "object", "null", "number", "text for a number", "false for a number", "deep"],
)
def test_an_answer_that_does_not_say_that_it_took_the_message_is_refused(talking_kind, body):
    attempt, _ = send(talking_kind, answer(200, body=body))
    assert (attempt.result, attempt.status_code) == (AttemptResult.REFUSED, 200)
    assert "without saying" in attempt.detail


def test_a_body_that_ends_early_is_refused(talking_kind):
    attempt, _ = send(talking_kind, say(OK + b"Content-Length: 100000\r\n\r\n" + talking_kind.taken[:-1]))
    assert attempt.result is AttemptResult.REFUSED


def test_a_number_in_the_body_that_is_not_0_is_refused_and_told(talking_kind):
    body = json.dumps({"errcode": 310000, "code": 310000, "errmsg": "sign not match T0K3N", "msg": "T0K3N"}).encode()
    attempt, _ = send(talking_kind, answer(200, body=body))
    assert attempt.result is AttemptResult.REFUSED
    assert attempt.detail.endswith("code 310000")


@pytest.mark.parametrize(
    ("name", "field", "code", "pause_s"),
    [
        ("feishu", "code", 11232, 60.0),
        ("dingtalk", "errcode", 130101, 600.0),
        ("dingtalk", "errcode", 410100, 600.0),
        ("wecom", "errcode", 45009, 60.0),
    ],
)
def test_a_number_that_means_too_many_throttles_for_the_platforms_pause(name, field, code, pause_s):
    attempt, _ = send(KINDS[name], answer(200, body=json.dumps({field: code}).encode()))
    assert (attempt.result, attempt.retry_after_s) == (AttemptResult.THROTTLED, pause_s)


# --- what is rendered ----------------------------------------------------------------------------


def test_a_body_is_the_same_at_any_time_and_holds_no_secret(kind):
    first, second = (kind.make(an_endpoint(port)).render(a_change()) for port in (1, 2))
    assert first == second
    assert not re.search(rb"T0K3N|receiver\.test|c2VjcmV0", first)


# --- the webhook ---------------------------------------------------------------------------------


def test_a_webhook_is_a_signed_post_of_the_exact_body():
    now_ms = time.time_ns() // 1_000_000
    with Server(answer(200)) as server:
        url = Secret(f"http://receiver.test:{server.port}{PATH}?key=k%2F1&x=ü")
        a_webhook(an_endpoint(1, url=url)).channel(loopback).send(a_delivery(WEBHOOK), now_ms)
    request = server.received[0]
    assert request.line == f"POST {PATH}?key=k%2F1&x=%C3%BC HTTP/1.1"
    assert request.body == a_delivery(WEBHOOK).body
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"].startswith("receiver.test:")
    assert request.headers["webhook-id"] == "msg_5b"
    assert Webhook(SECRET).verify(request.body, request.headers) == json.loads(request.body)


def test_proxies_of_the_environment_are_not_asked(monkeypatch):
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    attempt, _ = send(WEBHOOK, answer(200))
    assert attempt.result is AttemptResult.DELIVERED


def test_a_name_that_nobody_knows_is_unreachable(either_kind):
    def nobody(host, port):
        raise socket.gaierror(-2, f"{host} is not known")

    attempt = either_kind.make(an_endpoint(1)).channel(nobody).send(a_delivery(either_kind), NOW_MS)
    assert (attempt.result, attempt.detail) == (AttemptResult.UNREACHABLE, "the host's name is not known")


def test_an_address_may_stand_in_brackets():
    with Server() as server:
        url = Secret(f"http://[::ffff:127.0.0.1]:{server.port}/x")
        attempt = a_webhook(an_endpoint(1, url=url)).channel(loopback).send(a_delivery(WEBHOOK), NOW_MS)
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
    return self_signed(tmp_path_factory.mktemp("tls"), "receiver.test")


def send_over_tls(certificate, host="receiver.test", *, trusted=True, behaviour=None, timeout_s=5.0):
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    trusting = ssl.create_default_context(cafile=certificate / "certificate.pem" if trusted else None)
    with Server(behaviour or answer(200), serving) as server:
        url = Secret(f"https://{host}:{server.port}{PATH}")
        endpoint = an_endpoint(server.port, url=url, allow_http=False, timeout_s=timeout_s)
        return a_webhook(endpoint).channel(loopback, trusting).send(a_delivery(WEBHOOK), NOW_MS)


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
        endpoint = an_endpoint(1, url=Secret(f"https://receiver.test:{server.port}/"), timeout_s=0.5)
        attempt = a_webhook(endpoint).channel(loopback).send(a_delivery(WEBHOOK), NOW_MS)
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
def test_a_url_that_cannot_be_used_is_refused_without_being_quoted(kind, url, fault):
    with pytest.raises(ConfigurationError) as caught:
        kind.make(an_endpoint(1, url=Secret(url), allow_http=False))
    assert f"url: {fault}" in caught.value.problems
    assert "hush" not in str(caught.value)


def test_every_fault_of_a_receiver_is_listed():
    with pytest.raises(ConfigurationError) as caught:
        WebhookReceiver("desk", Endpoint(Secret("http://u@/"), timeout_s=0.0), (Secret("x"), Secret("whsec_x")))
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["url", "url", "url", "timeout", "secret", "secret"]
    with pytest.raises(ConfigurationError, match="secret: is missing"):
        WebhookReceiver("desk", Endpoint(Secret("https://receiver.test")), ())


def test_what_only_one_kind_can_have_wrong_is_told():
    with pytest.raises(ConfigurationError, match="routing_key: is missing"):
        PagerDutyReceiver("desk", Secret(" "))
    with pytest.raises(ConfigurationError, match=r"must not hold a query") as caught:
        AlertmanagerReceiver("desk", Endpoint(Secret("https://receiver.test/?T0K3N")), resend_every_ms=0)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["resend_every", "url"]


def test_a_receiver_shows_neither_its_url_nor_its_secret(kind):
    receiver = kind.make(an_endpoint(1))
    request = receiver.request(a_delivery(kind), NOW_MS)
    assert not re.search(r"T0K3N|receiver\.test|c2VjcmV0", f"{receiver!r} {request!r} {receiver.channel()!r}")
