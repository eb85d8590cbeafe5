"""A delivery to a signed HTTPS POST, and the receiver's answer, or its lack of one, to an attempt."""

from __future__ import annotations

import os
import re
import socket
import ssl
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import quote, urlsplit

import httpcore2

from alerts.network import Deadline, ForbiddenAddress, GuardedNetwork, Resolver, system_addresses
from alerts.signature import Secret, signature_headers, signing_key
from alerts.types import Attempt, AttemptResult, Delivery
from monitor.errors import ConfigurationError

MOST_ANSWER_BYTES: Final = 65_536
"""No more of an answer's body is read."""

_DAY_MS: Final = 86_400_000
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
class Receiver:
    """Who is told about incidents, and how. Its repr shows neither the URL nor a secret.

    `secrets` all sign, the first one first. Raises ConfigurationError that lists every fault of URL and secrets.
    """

    name: str
    url: Secret
    secrets: tuple[Secret, ...]
    allow_private_addresses: bool = False
    allow_http: bool = False
    timeout_s: float = 15.0
    retry_for_ms: int = 3 * _DAY_MS

    def __post_init__(self) -> None:
        problems = [f"url: {fault}" for fault in _url_faults(self.url.reveal(), allow_http=self.allow_http)]
        problems += [f"secret: {fault}" for fault in _secret_faults(self.secrets)]
        if self.timeout_s <= 0:
            problems.append("timeout: must be more than 0")
        if problems:
            raise ConfigurationError(f"receiver {self.name}", problems)


def _url_faults(url: str, *, allow_http: bool) -> Iterable[str]:
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


def _secret_faults(secrets: tuple[Secret, ...]) -> Iterable[str]:
    if not secrets:
        yield "is missing"
    for secret in secrets:
        try:
            signing_key(secret)
        except ValueError as error:
            yield str(error)


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a receiver answered: its status and how long it wants to be left alone."""

    status_code: int
    retry_after_s: float | None


class WebhookChannel:
    """Posts to one receiver over a fresh connection each time, without proxies, redirects or content decoding.

    The whole attempt, from name resolution to the last byte of the answer, ends within the receiver's time-out. The status is the
    answer: what goes wrong while the rest of a body is read changes nothing. `ssl_context` None: the system's trusted authorities.
    """

    def __init__(
        self, receiver: Receiver, resolver: Resolver = system_addresses, ssl_context: ssl.SSLContext | None = None
    ) -> None:
        self._receiver = receiver
        self._resolver = resolver
        self._ssl_context = ssl_context
        self._keys = tuple(signing_key(secret) for secret in receiver.secrets)
        self._url, self._host = _target(receiver.url.reveal())

    @property
    def retry_for_ms(self) -> int:
        """How long after its creation a delivery is tried again."""
        return self._receiver.retry_for_ms

    @property
    def timeout_ms(self) -> int:
        """The longest that one attempt takes."""
        return round(self._receiver.timeout_s * 1_000)

    def send(self, delivery: Delivery, now_ms: int) -> Attempt:
        """Makes one attempt, signed for `now_ms`. Never raises for what network or receiver do."""
        started_s = time.monotonic()
        deadline = Deadline(started_s + self._receiver.timeout_s)
        try:
            answer = self._post(delivery, now_ms, deadline)
        except (httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError, ForbiddenAddress) as error:
            result, detail = _explain(error)
            return Attempt(result, None, detail, time.monotonic() - started_s)
        result, detail = _judge(answer.status_code)
        retry_after_s = answer.retry_after_s if result is AttemptResult.THROTTLED else None
        return Attempt(result, answer.status_code, detail, time.monotonic() - started_s, retry_after_s)

    def _post(self, delivery: Delivery, now_ms: int, deadline: Deadline) -> _Answer:
        headers = {
            "Host": self._host,
            "Content-Type": "application/json",
            "User-Agent": "bellwether",
            "Accept": "*/*",
            "Connection": "close",
        } | signature_headers(delivery.delivery_id, now_ms, delivery.body, self._keys)
        if self._ssl_context is None:
            self._ssl_context = httpcore2.default_ssl_context()
        network = GuardedNetwork(deadline, self._resolver, allow_private=self._receiver.allow_private_addresses)
        with (
            httpcore2.ConnectionPool(ssl_context=self._ssl_context, network_backend=network) as pool,
            pool.stream("POST", self._url, headers=list(headers.items()), content=delivery.body) as response,
        ):
            answer = _Answer(response.status, _retry_after_s(response.headers, now_ms))
            _drain(response)
        return answer


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


def _drain(response: httpcore2.Response) -> None:
    """Reads a bounded part of the body, so that an orderly receiver sees an orderly end."""
    received = 0
    with suppress(httpcore2.TimeoutException, httpcore2.NetworkError, httpcore2.ProtocolError):
        for piece in response.iter_stream():
            received += len(piece)
            if received >= MOST_ANSWER_BYTES:
                return


def _judge(status_code: int) -> tuple[AttemptResult, str]:
    """What a status means, and a sentence about it."""
    said = f"the receiver answered {status_code}"
    match status_code:
        case _ if 200 <= status_code < 300:
            return AttemptResult.DELIVERED, said
        case _ if 300 <= status_code < 400:
            return AttemptResult.REDIRECTED, f"{said}, and redirects are not followed"
        case 410:
            return AttemptResult.GONE, f"{said}: it wants no more messages"
        case 429 | 503:
            return AttemptResult.THROTTLED, f"{said}: it wants to be left alone for a while"
        case _:
            return AttemptResult.REFUSED, said


def _explain(error: Exception) -> tuple[AttemptResult, str]:
    """What kept a message from being answered, in words that hold nothing of what was sent or where to."""
    if isinstance(error, ForbiddenAddress):
        return AttemptResult.FORBIDDEN_ADDRESS, str(error)
    if isinstance(error, httpcore2.TimeoutException):
        return AttemptResult.TIMED_OUT, "the receiver did not answer in time"
    if isinstance(error, httpcore2.ProtocolError):
        return AttemptResult.UNREACHABLE, "the connection ended before an answer, or the answer is not HTTP"
    # On its way out of the library an error loses its cause, and keeps it as its argument.
    return AttemptResult.UNREACHABLE, _network_fault(error.args[0] if error.args else None)


def _network_fault(cause: object) -> str:
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


def _retry_after_s(headers: Iterable[tuple[bytes, bytes]], now_ms: int) -> float | None:
    """`Retry-After` in seconds from now, at least 0, from seconds or an HTTP date; None when it is missing or neither."""
    for name, value in headers:
        if name.lower() == b"retry-after":
            return _parse_retry_after(value.decode("latin-1").strip(), now_ms)
    return None


def _parse_retry_after(text: str, now_ms: int) -> float | None:
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        moment = parsedate_to_datetime(text)
        return max(0.0, moment.replace(tzinfo=moment.tzinfo or UTC).timestamp() - now_ms / 1_000)
    except (ValueError, TypeError, OverflowError):
        return None
