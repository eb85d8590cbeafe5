"""Mail, in real conversations: with a real SMTP server that takes it, and with servers that do what they should not."""

import contextlib
import re
import socket
import ssl
import threading
from dataclasses import dataclass, field, replace
from email import message_from_bytes, policy
from html.parser import HTMLParser

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import AuthResult

from alerts.catalogue import Language
from alerts.channels.mail import MailReceiver
from alerts.channels.smtp import MailServer, Security
from alerts.notice import Voice
from alerts.outbox import plan
from alerts.signature import Secret
from alerts.types import AttemptResult
from monitor.errors import ConfigurationError
from tests.alerts.building import a_change
from tests.alerts.certificates import self_signed
from tests.kafka.server import free_port

NOW_MS = 1_795_583_640_000
HOST = "mail.test"


def loopback(host, port):
    return ["127.0.0.1"]


def a_receiver(port, **changes):
    receiver = MailReceiver(
        name="desk",
        server=MailServer(HOST, port, changes.pop("security", Security.NONE)),
        sender="bellwether@bank.example",
        recipients=("anna@bank.example", "li@bank.example"),
        allow_private_addresses=True,
        timeout_s=10.0,
    )
    return replace(receiver, **changes)


@dataclass
class Postbox:
    """What a mail server took. `recipient_replies` answers some recipients, `reply` every message."""

    reply: str = "250 taken"
    recipient_replies: dict[str, str] = field(default_factory=dict)
    envelopes: list = field(default_factory=list)
    encrypted: list[bool] = field(default_factory=list)
    logins: list[tuple[str, str]] = field(default_factory=list)

    async def handle_RCPT(self, server, session, envelope, address, options):  # noqa: N802 (the library's name)
        if address in self.recipient_replies:
            return self.recipient_replies[address]
        envelope.rcpt_tos.append(address)
        return "250 known"

    async def handle_DATA(self, server, session, envelope):  # noqa: N802 (the library's name)
        if self.reply.startswith("250"):
            self.envelopes.append(envelope)
            self.encrypted.append(server.transport.get_extra_info("sslcontext") is not None)
        return self.reply

    def authenticate(self, server, session, envelope, mechanism, data):
        login, password = data.login.decode(), data.password.decode()
        self.logins.append((login, password))
        return AuthResult(success=password == "hush", handled=False)

    @property
    def mails(self):
        return [message_from_bytes(envelope.content, policy=policy.default) for envelope in self.envelopes]


class TlsController(Controller):
    """Speaks TLS from the first byte; a plain probe of the library cannot greet it, so it trusts that it listens."""

    def __init__(self, *details, trusting, **options):
        self.trusting = trusting
        super().__init__(*details, **options)

    def _trigger_server(self):
        plain = socket.create_connection(("127.0.0.1", self.port), 5)
        with plain, self.trusting.wrap_socket(plain, server_hostname=HOST) as connection:
            assert connection.recv(1_024).startswith(b"220")


@contextlib.contextmanager
def serving(postbox, **options):
    """A real SMTP server on loopback; its port."""
    trusting = options.pop("trusting", None)
    details = {"hostname": "127.0.0.1", "port": free_port(), "ready_timeout": 30, **options}
    controller = Controller(postbox, **details) if trusting is None else TlsController(postbox, trusting=trusting, **details)
    controller.start()
    try:
        yield controller.port
    finally:
        controller.stop()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return self_signed(tmp_path_factory.mktemp("tls"), HOST)


@pytest.fixture
def serving_context(certificate):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate / "certificate.pem", certificate / "key.pem")
    return context


@pytest.fixture
def trusting(certificate):
    return ssl.create_default_context(cafile=certificate / "certificate.pem")


def send(receiver, *changes, ssl_context=None):
    channel = receiver.channel(loopback, ssl_context)
    attempts = [channel.send(delivery, NOW_MS) for delivery in plan(changes or [a_change()], [receiver], [], NOW_MS)]
    said = " ".join(attempt.detail for attempt in attempts)
    assert not re.search(r"mail\.test|example|hush|127\.0|anna|Halden", said), "an attempt tells no secrets"
    return attempts


# --- what arrives --------------------------------------------------------------------------------


def test_a_mail_arrives_with_what_a_reader_and_a_machine_need():
    postbox = Postbox()
    with serving(postbox) as port:
        (attempt,) = send(a_receiver(port, voice=Voice(console_url="https://console.example/{incident_id}?a=1&b=2")))
    assert (attempt.result, attempt.status_code) == (AttemptResult.DELIVERED, 250)
    assert attempt.detail == "the server took it for 2 of 2 recipients"
    (envelope,), (mail,) = postbox.envelopes, postbox.mails
    assert (envelope.mail_from, envelope.rcpt_tos) == ("bellwether@bank.example", ["anna@bank.example", "li@bank.example"])
    assert mail["Subject"] == "Critical: Halden Bank"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Date"] == "Wed, 25 Nov 2026 05:14:00 +0000"
    text, html = (mail.get_body([kind]).get_content() for kind in ("plain", "html"))
    for part in ("61.9 % of 21 stories", "tone", "13 negative", "143186a8c061ff14463a"):
        assert part in text
        assert part in html
    assert "https://console.example/143186a8c061ff14463a?a=1&b=2" in text
    assert 'href="https://console.example/143186a8c061ff14463a?a=1&amp;b=2"' in html


def test_a_chinese_mail_arrives_in_chinese():
    postbox = Postbox()
    with serving(postbox) as port:
        send(a_receiver(port, voice=Voice(Language.CHINESE)), a_change(summary="", display="哈尔登银行"))
    (mail,) = postbox.mails
    assert mail["Subject"] == "严重：哈尔登银行"
    assert "1 小时内 21 篇报道中有 13 篇为负面（61.9 %）" in mail.get_body(["plain"]).get_content()


def test_the_mails_of_an_incident_are_a_thread_and_a_mail_keeps_its_id_over_attempts():
    postbox = Postbox()
    with serving(postbox) as port:
        receiver = a_receiver(port)
        send(receiver, a_change(), a_change(resolved=True))
        send(receiver, a_change())
    opened, resolved, again = postbox.mails
    assert resolved["In-Reply-To"] == resolved["References"] == opened["Message-ID"]
    assert opened["In-Reply-To"] is None
    assert again["Message-ID"] == opened["Message-ID"]
    assert resolved["Subject"] == "Resolved: Halden Bank"


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self):
        super().__init__()
        self.tags, self.texts = [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.texts.append(data)


def test_a_hostile_name_writes_no_header_and_no_markup():
    hostile = 'Evil\r\nBcc: x@y.example\r\n\r\n<script>alert(1)</script><img src=x onerror=y> "&amp;'
    postbox = Postbox()
    with serving(postbox) as port:
        send(a_receiver(port), a_change(display=hostile, summary=hostile, rule=hostile))
    (mail,), (envelope,) = postbox.mails, postbox.envelopes
    assert set(mail.keys()) == {"Subject", "From", "To", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"} | (
        {"X-Peer"} if mail["X-Peer"] else set()
    )
    assert envelope.rcpt_tos == ["anna@bank.example", "li@bank.example"]
    seen = Tags()
    seen.feed(mail.get_body(["html"]).get_content())
    assert {tag for tag, _ in seen.tags} <= {"html", "body", "h2", "p", "table", "tr", "th", "td", "small"}
    assert any("<script>alert(1)</script><img src=x onerror=y>" in text for text in seen.texts), "it is shown as it is"


# --- protection ----------------------------------------------------------------------------------


def test_starttls_comes_before_login_and_message(serving_context, trusting):
    postbox = Postbox()
    with serving(postbox, tls_context=serving_context, authenticator=postbox.authenticate, auth_required=True) as port:
        receiver = a_receiver(port, security=Security.STARTTLS, username="desk", password=Secret("hush"))
        (attempt,) = send(receiver, ssl_context=trusting)
        assert attempt.result is AttemptResult.DELIVERED
        assert (postbox.encrypted, postbox.logins) == ([True], [("desk", "hush")])
        (attempt,) = send(replace(receiver, password=Secret("wrong")), ssl_context=trusting)
    assert (attempt.result, attempt.status_code) == (AttemptResult.REFUSED, 535)
    assert attempt.detail == "the server refused the login: 535"


def test_tls_from_the_first_byte(serving_context, trusting):
    postbox = Postbox()
    with serving(postbox, ssl_context=serving_context, trusting=trusting) as port:
        (attempt,) = send(a_receiver(port, security=Security.TLS), ssl_context=trusting)
    assert attempt.result is AttemptResult.DELIVERED
    assert postbox.encrypted == [True]


def test_a_server_that_offers_no_starttls_gets_neither_password_nor_message():
    postbox = Postbox()
    with serving(postbox) as port:
        (attempt,) = send(a_receiver(port, security=Security.STARTTLS, username="desk", password=Secret("hush")))
    assert attempt.result is AttemptResult.REFUSED
    assert (postbox.envelopes, postbox.logins) == ([], [])


@pytest.mark.parametrize("security", [Security.STARTTLS, Security.TLS])
def test_a_certificate_that_nobody_vouches_for_is_refused(serving_context, trusting, security):
    postbox = Postbox()
    options = (
        {"tls_context": serving_context}
        if security is Security.STARTTLS
        else {"ssl_context": serving_context, "trusting": trusting}
    )
    with serving(postbox, **options) as port:
        (attempt,) = send(a_receiver(port, security=security))
    assert (attempt.result, attempt.detail) == (AttemptResult.UNREACHABLE, "TLS failed: the certificate is signed by itself")
    assert postbox.envelopes == []


def test_a_certificate_for_another_host_is_refused(serving_context, trusting):
    with serving(Postbox(), tls_context=serving_context) as port:
        receiver = replace(a_receiver(port), server=MailServer("other.test", port, Security.STARTTLS))
        (attempt,) = send(receiver, ssl_context=trusting)
    assert attempt.detail == "TLS failed: the certificate is for another host"


# --- what servers say ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reply", "result"),
    [
        ("451 later, grey-listed", AttemptResult.THROTTLED),
        ("452 full", AttemptResult.THROTTLED),
        ("554 spam about Halden", AttemptResult.REFUSED),
        ("550 no", AttemptResult.REFUSED),
    ],
)
def test_a_reply_to_a_message_decides(reply, result):
    with serving(Postbox(reply=reply)) as port:
        (attempt,) = send(a_receiver(port))
    assert (attempt.result, attempt.status_code) == (result, int(reply[:3]))
    assert attempt.detail == f"the server refused the mail: {reply[:3]}"


def test_a_mail_that_some_recipients_got_is_delivered_and_says_so():
    postbox = Postbox(recipient_replies={"li@bank.example": "550 unknown"})
    with serving(postbox) as port:
        (attempt,) = send(a_receiver(port))
    assert (attempt.result, attempt.detail) == (AttemptResult.DELIVERED, "the server took it for 1 of 2 recipients")


def test_a_mail_that_no_recipient_gets_is_refused_and_a_later_one_may_be_taken():
    postbox = Postbox(recipient_replies={"li@bank.example": "550 unknown", "anna@bank.example": "450 grey-listed"})
    with serving(postbox) as port:
        (attempt,) = send(a_receiver(port))
    assert (attempt.result, attempt.status_code) == (AttemptResult.THROTTLED, 450)
    assert postbox.envelopes == []


# --- misbehaviour --------------------------------------------------------------------------------


@contextlib.contextmanager
def misbehaving(behave):
    """A server that does `behave(connection, closing)` with every connection; its port."""
    closing = threading.Event()
    listening = socket.create_server(("127.0.0.1", 0))

    def accept():
        with contextlib.suppress(OSError):
            connection, _ = listening.accept()
            with connection:
                behave(connection, closing)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listening.getsockname()[1]
    finally:
        closing.set()
        with contextlib.suppress(OSError):
            socket.create_connection(listening.getsockname()).close()
        thread.join(5)
        listening.close()


def say(text):
    return lambda connection, _: connection.sendall(text)


def hang(connection, closing):
    closing.wait()


def drip(connection, closing):
    connection.sendall(b"220 ")
    while not closing.wait(0.05):
        connection.sendall(b"x")


def many_lines(connection, closing):
    connection.sendall(b"220-hello\r\n")
    while not closing.is_set():
        connection.sendall(b"220-and\r\n" * 10_000)


def mute_after_greeting(connection, closing):
    connection.sendall(b"220 hello\r\n")
    closing.wait()


@pytest.mark.parametrize("behave", [hang, drip, mute_after_greeting])
def test_a_server_that_does_not_answer_is_left_at_the_deadline(behave):
    with misbehaving(behave) as port:
        (attempt,) = send(a_receiver(port, timeout_s=0.5))
    assert (attempt.result, attempt.status_code) == (AttemptResult.TIMED_OUT, None)
    assert 0.4 < attempt.duration_s < 2.5


@pytest.mark.parametrize(
    "behave",
    [say(b""), say(b"HTTP/1.1 400 Bad Request\r\n"), say(b"220 hello"), say(b"\x00\xff\r\n"), many_lines],
    ids=["closed", "not SMTP", "greeting ends early", "bytes", "lines without end"],
)
def test_no_answer_is_an_outcome_and_no_exception(behave):
    with misbehaving(behave) as port:
        (attempt,) = send(a_receiver(port, timeout_s=8.0))
    assert (attempt.result, attempt.status_code) == (AttemptResult.UNREACHABLE, None)
    assert attempt.duration_s < 8.0


def test_a_server_that_is_too_busy_to_greet_is_left_alone_for_a_while():
    with misbehaving(say(b"421 too many\r\n")) as port:
        (attempt,) = send(a_receiver(port))
    assert (attempt.result, attempt.status_code) == (AttemptResult.THROTTLED, 421)


def test_a_closed_port_is_unreachable_and_a_private_address_forbidden():
    port = free_port()
    (attempt,) = send(a_receiver(port))
    assert (attempt.result, attempt.detail) == (AttemptResult.UNREACHABLE, "no connection: Connection refused")
    (attempt,) = send(a_receiver(port, allow_private_addresses=False))
    assert attempt.result is AttemptResult.FORBIDDEN_ADDRESS


# --- receivers -----------------------------------------------------------------------------------


def test_every_fault_of_a_receiver_is_listed_and_its_password_is_not_shown():
    with pytest.raises(ConfigurationError) as caught:
        MailReceiver(
            "desk",
            MailServer("a host", 25, Security.NONE),
            sender="x\r\nBcc: y@z.example",
            recipients=("fine@bank.example", "Anna <anna@bank.example>"),
            password=Secret("hush"),
            timeout_s=0,
        )
    fields = [problem.partition(":")[0] for problem in caught.value.problems]
    assert fields == ["host", "sender", "recipients.1", "username", "password", "timeout"]
    assert "hush" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="recipients: are missing"):
        a_receiver(25, recipients=())
    assert "hush" not in repr(a_receiver(25, security=Security.TLS, username="u", password=Secret("hush")))
