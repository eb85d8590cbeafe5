"""A delivery to an HTTPS POST, and the receiver's answer, or its lack of one, to an attempt."""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlsplit

import httpcore2

from alerts.channels.answers import Answer, Meaning, judge_status, retry_after_s
from alerts.channels.protocol import Channel
from alerts.network import Deadline, ForbiddenAddress, GuardedNetwork, Resolver, system_addresses
from alerts.signature import Secret
from alerts.types import Attempt, AttemptResult, Delivery
from monitor.errors import ConfigurationError

MOST_ANSWER_BYTES: Final = 65_536
"""No more of an answer's body is read."""

RETRY_FOR_MS: Final = 3 * 86_400_000
TIMEOUT_S: Final = 15.0

_PATH_SAFE: Final = "/%:@!$&'()*+,;=~-._"
_QUERY_SAFE: Final = _PATH_SAFE + "?"
_TLS_FAULTS: Final = {
    10: "the certificate has expired",
    18: "the certificate is signed by itself",
    19: "the certificate's root is not trusted",
    20: "the certificate's issuer is not trusted",
    62: "the certificate is for another host",
    64: "the certificate is for another address",
}
"""OpenSSL's codes of what is most often wrong with a certificate (its own sentences may quote the host)."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where messages are posted, and how far an attempt may go. Its repr does not show the URL."""

    url: Secret
    allow_private_addresses: bool = False
    allow_http: bool = False
    timeout_s: float = TIMEOUT_S
    retry_for_ms: int = RETRY_FOR_MS

    def faults(self) -> Iterable[str]:
        """What keeps this endpoint from being used, none of it quoting the URL."""
        yield from (f"url: {fault}" for fault in url_faults(self.url.reveal(), allow_http=self.allow_http))
        if self.timeout_s <= 0:
            yield "timeout: must be more than 0"


def refuse(name: str, faults: Iterable[str]) -> None:
    """Raises ConfigurationError with all faults of the receiver `name`, if there are any."""
    if problems := list(faults):
        raise ConfigurationError(f"receiver {name}", problems)


def url_faults(url: str, *, allow_http: bool) -> Iterable[str]:
    """What is wrong with a URL that messages are posted to."""
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        yield "holds a space or a control character"
        return
    try:
        parts = urlsplit(url)
        _ = parts.port
        (parts.hostname or "").encode("idna")
    except ValueError:
        yield "is no URL"
        return
    if parts.scheme not in {"https", "http"}:
        yield "must begin with https://"
    elif parts.scheme == "http" and not allow_http:
        yield "must begin with https:// (allow_http permits http://)"
    if not parts.hostname:
        yield "names no host"
    if parts.username is not None or parts.password is not None:
        yield "must not hold a user name or a password"
    if parts.fragment:
        yield "must not hold a fragment (#...)"


@dataclass(frozen=True, slots=True)
class Request:
    """What is posted: to which URL, with which headers beside the usual ones, and the exact bytes. Its repr shows no secret."""

    url: Secret
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)


class Posted:
    """What every receiver has in common whose messages are posted; a kind says what is different about it.

    Unless it says so, the body is posted as it is (the URL is the secret), and the status says what became of it.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def name(self) -> str:
            """Names it in rules, metrics and the outbox."""

        @property
        def endpoint(self) -> Endpoint:
            """Where to."""

    def __post_init__(self) -> None:
        refuse(self.name, self.faults())

    def faults(self) -> Iterable[str]:
        """What keeps it from being used, none of it quoting a secret."""
        return self.endpoint.faults()

    def channel(self, resolver: Resolver = system_addresses, ssl_context: ssl.SSLContext | None = None) -> Channel:
        """A new way to it."""
        return PostingChannel(self, resolver, ssl_context)

    def request(self, delivery: Delivery, now_ms: int) -> Request:  # noqa: ARG002 (a kind may sign for the moment)
        """What is posted for `delivery` at `now_ms` (wall clock): the body, with whatever secret and time belong into it."""
        return Request(self.endpoint.url, delivery.body)

    def judge(self, answer: Answer) -> Meaning:
        """What an answer means."""
        return judge_status(answer)


class PostingChannel:
    """Posts to one receiver over a fresh connection each time, without proxies, redirects or content decoding.

    The whole attempt, from name resolution to the last byte of the answer, ends within the receiver's time-out. What goes wrong
    while the rest of a body is read changes nothing about the status. `ssl_context` None: the system's trusted authorities.
    """

    def __init__(self, receiver: Posted, resolver: Resolver = system_addresses, ssl_context: ssl.SSLContext | None = None) -> None:
        self._receiver = receiver
        self._endpoint = receiver.endpoint
        self._resolver = resolver
        self._ssl_context = ssl_context

    @property
    def retry_for_ms(self) -> int:
        """How long after its creation a delivery is tried again."""
        return self._endpoint.retry_for_ms

    @property
    def timeout_ms(self) -> int:
        """The longest that one attempt takes."""
        return round(self._endpoint.timeout_s * 1_000)

    def send(self, delivery: Delivery, now_ms: int) -> Attempt:
        """Makes one attempt, signed for `now_ms`. Never raises for what network or receiver do."""
        started_s = time.monotonic()
        deadline = Deadline(started_s + self._endpoint.timeout_s)
        try:
            answer = self._post(self._receiver.request(delivery, now_ms), now_ms, deadline)
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, ForbiddenAddress) as error:
            result, detail = _explain(error)
            return Attempt(result, None, detail, time.monotonic() - started_s)
        meaning = self._receiver.judge(answer)
        return Attempt(meaning.result, answer.status_code, meaning.detail, time.monotonic() - started_s, meaning.retry_after_s)

    def _post(self, request: Request, now_ms: int, deadline: Deadline) -> Answer:
        url, host = _target(request.url.reveal())
        headers = {
            "Host": host,
            "Content-Type": "application/json",
            "User-Agent": "bellwether",
            "Accept": "*/*",
            "Connection": "close",
            **request.headers,
        }
        if self._ssl_context is None and url.scheme == b"https":
            self._ssl_context = httpcore2.default_ssl_context()
        network = GuardedNetwork(deadline, self._resolver, allow_private=self._endpoint.allow_private_addresses)
        with (
            httpcore2.ConnectionPool(ssl_context=self._ssl_context, network_backend=network) as pool,
            pool.stream("POST", url, headers=list(headers.items()), content=request.body) as response,
        ):
            return Answer(response.status, retry_after_s(response.headers, now_ms), _beginning(response))


def _target(url: str) -> tuple[httpcore2.URL, str]:
    """The URL in its parts as they go over the wire, and the Host header."""
    parts = urlsplit(url)
    # Names are ASCII on the wire; an address in brackets is none and stays as it is.
    host = parts.hostname or ""
    name = host if ":" in host else host.encode("idna").decode("ascii")
    target = quote(parts.path or "/", safe=_PATH_SAFE) + (f"?{quote(parts.query, safe=_QUERY_SAFE)}" if parts.query else "")
    shown = f"[{name}]" if ":" in name else name
    port = parts.port
    address = httpcore2.URL(scheme=parts.scheme.encode(), host=name.encode(), port=port, target=target.encode())
    return address, shown if port is None else f"{shown}:{port}"


def _beginning(response: httpcore2.Response) -> bytes:
    """A bounded part of the body, read also so that an orderly receiver sees an orderly end."""
    received = b""
    with suppress(httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
        for piece in response.iter_stream():
            received += piece
            if len(received) >= MOST_ANSWER_BYTES:
                break
    return received[:MOST_ANSWER_BYTES]


def _explain(error: Exception) -> tuple[AttemptResult, str]:
    """What kept a message from being answered, in words that hold nothing of what was sent or where to."""
    if isinstance(error, ForbiddenAddress):
        return AttemptResult.FORBIDDEN_ADDRESS, str(error)
    if isinstance(error, httpcore2.TimeoutException):
        return AttemptResult.TIMED_OUT, "the receiver did not answer in time"
    if isinstance(error, httpcore2.ProtocolError):
        return AttemptResult.UNREACHABLE, "the connection ended before an answer, or the answer is not HTTP"
    # On its way out of the library an error loses its cause, and keeps it as its argument.
    return AttemptResult.UNREACHABLE, network_fault(error.args[0] if error.args else None)


def network_fault(cause: object) -> str:
    """What the system said, without the names and addresses that its sentences may quote."""
    match cause:
        case socket.gaierror() | UnicodeError():
            return "the host's name is not known"
        case ssl.SSLCertVerificationError():
            unlisted = f"the certificate is not accepted (OpenSSL code {cause.verify_code})"
            return f"TLS failed: {_TLS_FAULTS.get(cause.verify_code, unlisted)}"
        case ssl.SSLError():
            return "TLS failed: the receiver does not speak it as we do"
        case OSError(errno=int(number)):
            return f"no connection: {os.strerror(number)}"
        case _:
            return "no connection"
