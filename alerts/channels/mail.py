"""A notice to a mail in plain text and HTML, handed to an SMTP server.

The messages of one incident hang together as a thread: later ones answer the first.

Sources: RFC 5321 (SMTP), RFC 5322 (headers), RFC 3834 (Auto-Submitted, so that nobody's holiday answers).
"""

from __future__ import annotations

import json
import re
import smtplib
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from html import escape
from typing import Final

import httpcore2

from alerts.channels.posting import RETRY_FOR_MS, TIMEOUT_S, network_fault, refuse
from alerts.channels.protocol import Channel
from alerts.channels.smtp import MailServer, Security, session
from alerts.network import Deadline, ForbiddenAddress, Resolver, system_addresses
from alerts.notice import ENGLISH, Alarm, Notice, Voice, rendered
from alerts.outbox import delivery_id
from alerts.signature import Secret
from alerts.types import Attempt, AttemptResult, Delivery, IncidentChange

MAIL_BYTES: Final = 64_000

_ADDRESS: Final = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?")
_COLOURS: Final = {Alarm.INFO: "#2563eb", Alarm.WARNING: "#c2570c", Alarm.CRITICAL: "#b91c1c", Alarm.OVER: "#15803d"}
_BUSY: Final = frozenset({421, 450, 451, 452})
"""Replies of a server that wants to be left alone for a while (among them grey-listing)."""


@dataclass(frozen=True, slots=True)
class MailReceiver:
    """People with mailboxes. `username` and `password` are both None where the server asks for neither.

    Raises ConfigurationError that lists every fault.
    """

    name: str
    server: MailServer
    sender: str
    recipients: tuple[str, ...]
    username: str | None = None
    password: Secret | None = None
    voice: Voice = ENGLISH
    allow_private_addresses: bool = False
    timeout_s: float = TIMEOUT_S
    retry_for_ms: int = RETRY_FOR_MS

    def __post_init__(self) -> None:
        refuse(self.name, self._faults())

    def _faults(self) -> Iterable[str]:
        if not re.fullmatch(r"[A-Za-z0-9.:_-]{1,253}", self.server.host):
            yield "host: is no name of a host"
        if not _ADDRESS.fullmatch(self.sender):
            yield "sender: is no mail address"
        if not self.recipients:
            yield "recipients: are missing"
        yield from (
            f"recipients.{place}: is no mail address" for place, to in enumerate(self.recipients) if not _ADDRESS.fullmatch(to)
        )
        if (self.username is None) != (self.password is None):
            yield "username: needs a password, and a password a username"
        if self.password is not None and self.server.security is Security.NONE:
            yield "password: must not be sent without TLS (security: none)"
        if self.timeout_s <= 0:
            yield "timeout: must be more than 0"

    def render(self, change: IncidentChange) -> bytes:
        """Subject, text and HTML as JSON; the headers that name a time are added when it is sent."""
        return rendered(change, self.voice, _content, MAIL_BYTES)

    def channel(self, resolver: Resolver = system_addresses, ssl_context: ssl.SSLContext | None = None) -> Channel:
        """A new way to them."""
        return MailChannel(self, resolver, ssl_context)


class MailChannel:
    """Hands mails to one server, over a new session each time that ends within the receiver's time-out.

    `ssl_context` None: the system's trusted authorities.
    """

    def __init__(
        self, receiver: MailReceiver, resolver: Resolver = system_addresses, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._receiver = receiver
        self._resolver = resolver
        self._ssl_context = ssl_context

    @property
    def retry_for_ms(self) -> int:
        """How long after its creation a delivery is tried again."""
        return self._receiver.retry_for_ms

    @property
    def timeout_ms(self) -> int:
        """The longest that one attempt takes."""
        return round(self._receiver.timeout_s * 1_000)

    def send(self, delivery: Delivery, now_ms: int) -> Attempt:
        """Makes one attempt. Never raises for what network or server do; `status_code` is the server's reply."""
        started_s = time.monotonic()
        message = compose_mail(delivery, self._receiver, now_ms)
        code: int | None
        try:
            code, result, detail = self._hand_over(message, Deadline(started_s + self._receiver.timeout_s))
        except (smtplib.SMTPException, OSError, httpcore2.TimeoutException, httpcore2.NetworkError, ForbiddenAddress) as error:
            code, result, detail = _explain(error)
        return Attempt(result, code, detail, time.monotonic() - started_s)

    def _hand_over(self, message: EmailMessage, deadline: Deadline) -> tuple[int, AttemptResult, str]:
        receiver = self._receiver
        own_domain = receiver.sender.rpartition("@")[2]
        with session(
            receiver.server, own_domain, deadline, self._resolver, self._ssl_context, allow_private=receiver.allow_private_addresses
        ) as conversation:
            if receiver.username is not None and receiver.password is not None:
                conversation.login(receiver.username, receiver.password.reveal())
            refused = conversation.sendmail(receiver.sender, receiver.recipients, message.as_bytes())
            with suppress(smtplib.SMTPException, OSError, httpcore2.TimeoutException):
                conversation.quit()
        taken = len(receiver.recipients) - len(refused)
        # Those who have it must not get it again for the sake of those who cannot.
        return 250, AttemptResult.DELIVERED, f"the server took it for {taken} of {len(receiver.recipients)} recipients"


def compose_mail(delivery: Delivery, receiver: MailReceiver, now_ms: int) -> EmailMessage:
    """The mail of a delivery. Its Message-ID is the same over all attempts; later mails of an incident name the first one's."""
    content = json.loads(delivery.body)
    domain = receiver.sender.rpartition("@")[2]
    first = delivery_id(delivery.incident_id, 1, delivery.receiver)
    mail = EmailMessage(policy=SMTP)
    mail["Subject"] = content["subject"]
    mail["From"] = receiver.sender
    mail["To"] = ", ".join(receiver.recipients)
    mail["Date"] = format_datetime(datetime.fromtimestamp(now_ms // 1_000, tz=UTC))
    mail["Message-ID"] = f"<{delivery.delivery_id}@{domain}>"
    if delivery.delivery_id != first:
        mail["In-Reply-To"] = mail["References"] = f"<{first}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"
    mail.set_content(content["text"], cte="quoted-printable")
    mail.add_alternative(content["html"], subtype="html", cte="quoted-printable")
    return mail


def _content(notice: Notice) -> dict[str, str]:
    return {"subject": notice.title, "text": _text(notice), "html": _html(notice)}


def _text(notice: Notice) -> str:
    parts = [notice.why, "\n".join(f"{fact.name}: {fact.value}" for fact in notice.facts)]
    if notice.stories:
        stories = ((story.headline, notice.about(story)) for story in notice.stories)
        lines = [f"- {headline}" + (f" ({about})" if about else "") for headline, about in stories]
        parts.append("\n".join([f"{notice.words.leading_stories}:", *lines]))
    if notice.link is not None:
        parts.append(f"{notice.words.link}: {notice.link}")
    parts.append(f"{notice.words.incident} {notice.incident_id}")
    return "\n\n".join(parts) + "\n"


def _html(notice: Notice) -> str:
    cell = 'style="padding:2px 12px 2px 0;vertical-align:top"'
    rows = "".join(
        f"<tr><th {cell} align=left>{escape(fact.name)}</th><td {cell}>{escape(fact.value)}</td></tr>" for fact in notice.facts
    )
    parts = [
        f'<h2 style="margin:0;color:{_COLOURS[notice.alarm]}">{escape(notice.title)}</h2>',
        f"<p>{escape(notice.why)}</p>",
        f"<table>{rows}</table>",
    ]
    if notice.stories:
        told = ((escape(story.headline), escape(notice.about(story))) for story in notice.stories)
        items = "".join(f"<li>{headline}" + (f" <small>{about}</small>" if about else "") + "</li>" for headline, about in told)
        parts.append(f"<h3>{escape(notice.words.leading_stories)}</h3><ul>{items}</ul>")
    if notice.link is not None:
        parts.append(f'<p><a href="{escape(notice.link)}">{escape(notice.words.link)}</a></p>')
    parts.append(f"<p><small>{escape(notice.words.incident)} {escape(notice.incident_id)}</small></p>")
    body = "".join(parts)
    return f'<!DOCTYPE html><html><body style="font-family:{escape(notice.words.fonts)};font-size:14px">{body}</body></html>\n'


def _explain(error: Exception) -> tuple[int | None, AttemptResult, str]:
    """What kept a mail from being taken, in words that hold nothing of what was sent or where to."""
    match error:
        case smtplib.SMTPException():
            return _explain_reply(error)
        case ForbiddenAddress():
            return None, AttemptResult.FORBIDDEN_ADDRESS, str(error)
        case httpcore2.TimeoutException() | TimeoutError():
            return None, AttemptResult.TIMED_OUT, "the server did not answer in time"
        case _:
            cause = error if isinstance(error, OSError) else next(iter(error.args), None)
            return None, AttemptResult.UNREACHABLE, network_fault(cause)


def _explain_reply(error: smtplib.SMTPException) -> tuple[int | None, AttemptResult, str]:
    match error:
        case smtplib.SMTPRecipientsRefused():
            code, said = min((code for code, _ in error.recipients.values()), default=550), "the server accepts no recipient"
        case smtplib.SMTPAuthenticationError():
            code, said = error.smtp_code, "the server refused the login"
        case smtplib.SMTPResponseException() if error.smtp_code >= 400:
            code, said = error.smtp_code, "the server refused the mail"
        case smtplib.SMTPNotSupportedError():
            return None, AttemptResult.REFUSED, "the server offers no STARTTLS, or no way to log in"
        case _:
            return None, AttemptResult.UNREACHABLE, "the connection ended before an answer, or the answer is not SMTP"
    return code, AttemptResult.THROTTLED if code in _BUSY else AttemptResult.REFUSED, f"{said}: {code}"
