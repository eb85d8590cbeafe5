"""A mail server's name to a session with it: checked address, one deadline over the whole conversation, TLS unless permitted."""

from __future__ import annotations

import smtplib
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import Any, Final

import httpcore2

from alerts.network import Deadline, GuardedNetwork, Resolver

MOST_ANSWER_BYTES: Final = 65_536
"""A server that says more than this in one session is not listened to."""


class Security(StrEnum):
    """How the connection to a mail server is protected."""

    STARTTLS = "starttls"
    """TLS after a greeting in plain text, and no message without it (usual on port 587)."""
    TLS = "tls"
    """TLS from the first byte (usual on port 465)."""
    NONE = "none"
    """No protection: for a relay on the same host."""


class TalksTooMuch(smtplib.SMTPException):
    """The server sends without end."""


def _received(connection: _Bounded | _BoundedTls, receive: Callable[[], int]) -> int:
    """What `receive` brings in what is left until the deadline, taken off the bytes that may still come."""
    connection.settimeout(connection.deadline.left_s())
    try:
        received = receive()
    except TimeoutError as error:
        # The library takes an OSError for the end of the connection.
        raise httpcore2.ReadTimeout(error) from error
    connection.left -= received
    if connection.left < 0:
        raise TalksTooMuch
    return received


class _Bounded(socket.socket):
    """A connected socket whose every operation gets what is left until the deadline, and which takes a bounded number of bytes."""

    deadline: Deadline
    left: int = MOST_ANSWER_BYTES

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        return _received(self, partial(super().recv_into, buffer, nbytes, flags))

    def sendall(self, data: Any, flags: int = 0) -> None:
        self.settimeout(self.deadline.left_s())
        super().sendall(data, flags)


class _BoundedTls(ssl.SSLSocket):
    """As `_Bounded`, over TLS."""

    deadline: Deadline
    left: int = MOST_ANSWER_BYTES

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:
        return _received(self, partial(super().recv_into, buffer, nbytes, flags))

    def send(self, data: Any, flags: int = 0) -> int:
        self.settimeout(self.deadline.left_s())
        return super().send(data, flags)


@dataclass(frozen=True, slots=True)
class MailServer:
    """Which server takes our mail."""

    host: str
    port: int
    security: Security


class _Session(smtplib.SMTP):
    """The standard library's session over our own socket. It is told its name, because looking one up takes its time."""

    def __init__(self, server: MailServer, own_domain: str, connection: _Bounded, ssl_context: ssl.SSLContext | None) -> None:
        super().__init__(local_hostname=own_domain)
        self._server = server
        self._connection = connection
        self._ssl_context = ssl_context

    def greet(self) -> None:
        """Greets, and protects the connection as configured. Raises SMTPException, OSError."""
        context = None if self._server.security is Security.NONE else self._context()
        self.sock = self._connection
        self._host = self._server.host
        if context is not None and self._server.security is Security.TLS:
            self.sock = self._protected(context)
        code, said = self.getreply()
        if code != 220:
            raise smtplib.SMTPConnectError(code, said)
        self.ehlo_or_helo_if_needed()
        if context is not None and self._server.security is Security.STARTTLS:
            self._start_tls(context)

    def _start_tls(self, context: ssl.SSLContext) -> None:
        if not self.has_extn("starttls"):
            raise smtplib.SMTPNotSupportedError("STARTTLS")
        code, said = self.docmd("STARTTLS")
        if code != 220:
            raise smtplib.SMTPResponseException(code, said)
        self.sock = self._protected(context)
        # What was said before TLS could have been said by anybody, and is forgotten (RFC 3207).
        self.file = None
        self.helo_resp = self.ehlo_resp = None
        self.esmtp_features = {}
        self.does_esmtp = False
        self.ehlo_or_helo_if_needed()

    def _protected(self, context: ssl.SSLContext) -> ssl.SSLSocket:
        deadline = self._connection.deadline
        self._connection.settimeout(deadline.left_s())
        context.sslsocket_class = _BoundedTls
        protected = context.wrap_socket(self._connection, server_hostname=self._server.host)
        assert isinstance(protected, _BoundedTls)
        protected.deadline = deadline
        return protected

    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context() if self._ssl_context is None else self._ssl_context


@contextmanager
def session(
    server: MailServer,
    own_domain: str,
    deadline: Deadline,
    resolver: Resolver,
    ssl_context: ssl.SSLContext | None,
    *,
    allow_private: bool,
) -> Iterator[smtplib.SMTP]:
    """A session, greeted in the name of `own_domain` and protected.

    Raises ForbiddenAddress, SMTPException, OSError and what httpcore2 raises.
    """
    stream = GuardedNetwork(deadline, resolver, allow_private=allow_private).connect_tcp(server.host, server.port)
    raw: socket.socket = stream.get_extra_info("socket")
    connection = _Bounded(fileno=raw.detach())
    connection.deadline = deadline
    conversation = _Session(server, own_domain, connection, ssl_context)
    try:
        conversation.greet()
        yield conversation
    finally:
        with suppress(OSError):
            conversation.close()
            connection.close()
