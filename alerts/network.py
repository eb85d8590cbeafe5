"""A host name to a connection that went to a permitted address, and whose every operation ends before one deadline."""

from __future__ import annotations

import ipaddress
import queue
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

import httpcore2

from monitor.errors import DeliveryError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_CONNECT_S: Final = 5.0
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE: Final = ipaddress.IPv6Network("::/96")
_TUNNELS: Final = (
    ipaddress.IPv6Network("64:ff9b:1::/48"),
    ipaddress.IPv6Network("2001::/32"),
    ipaddress.IPv6Network("2002::/16"),
)
"""Local NAT64, Teredo and 6to4: an IPv4 address stands somewhere in them, and no receiver of webhooks lives behind such a route."""

_PRIVATE: Final = (
    ipaddress.IPv4Network("10.0.0.0/8"),
    ipaddress.IPv4Network("172.16.0.0/12"),
    ipaddress.IPv4Network("192.168.0.0/16"),
    ipaddress.IPv6Network("fc00::/7"),
)
_SPECIAL: Final = (
    ipaddress.IPv4Network("192.0.0.0/24"),
    ipaddress.IPv4Network("192.88.99.0/24"),
    ipaddress.IPv6Network("3fff::/20"),
)
"""In the IANA's registries of special addresses, and not in the standard library of every Python that we run on."""

_UNICAST: Final = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that has been given out to be reached from everywhere."""

_SHARED: Final = ipaddress.IPv4Network("100.64.0.0/10")
_CLOUD_SERVICE: Final = ipaddress.IPv4Address("168.63.129.16")
"""The address under which Azure offers its virtual machines metadata and keys: public by its number, not by its nature."""


class ForbiddenAddress(DeliveryError):
    """A host name leads to an address that messages may not be sent to. The message says which kind, not which address."""


class Resolver(Protocol):
    """Looks a host name up."""

    def __call__(self, host: str, port: int) -> Sequence[str]:
        """All addresses of `host`, best first. Raises OSError when there are none."""


def system_addresses(host: str, port: int) -> Sequence[str]:
    """The addresses that the system's resolver gives, best first. Raises OSError when there are none."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(socket_address[0]) for _, _, _, _, socket_address in found))


def address_fault(address: Address, *, allow_private: bool) -> str | None:
    """What speaks against sending to `address`, as the kind of address it is; None when nothing does.

    An IPv6 address that stands for an IPv4 address is judged as that. `allow_private` permits loopback, link-local, private and
    shared (RFC 6598) addresses, and nothing else.
    """
    if isinstance(address, ipaddress.IPv6Address):
        embedded = _embedded(address)
        if embedded is not None:
            return address_fault(embedded, allow_private=allow_private)
        if any(address in network for network in _TUNNELS):
            return "tunnelled"
    local = _local_kind(address)
    if local is not None:
        return None if allow_private else local
    if address.is_multicast:
        return "multicast"
    return None if _is_public(address) else "reserved"


def _is_public(address: Address) -> bool:
    if not address.is_global or address.is_reserved or any(address in network for network in _SPECIAL):
        return False
    return address.version == 4 or address in _UNICAST


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, compatible or translated."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address in _NAT64 or (address in _COMPATIBLE and int(address) > 1):
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _local_kind(address: Address) -> str | None:
    """Which kind of local address this is; None for all others."""
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address in _SHARED:
        return "shared"
    if address == _CLOUD_SERVICE:
        return "cloud service"
    return "private" if any(address in network for network in _PRIVATE) else None


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment of the monotonic clock at which everything must have ended."""

    ends_s: float

    def left_s(self) -> float:
        """Seconds until then, more than 0. Raises httpcore2.ReadTimeout when there are none."""
        left_s = self.ends_s - time.monotonic()
        if left_s <= 0:
            raise httpcore2.ReadTimeout("the deadline has passed")
        return left_s


class GuardedNetwork(httpcore2.NetworkBackend):
    """Connects to checked addresses only, within one deadline from name resolution to the last byte.

    Every address of the name must be permitted, and the connection goes to an address that was checked: a name that answers
    differently the second time is not asked a second time. Raises ForbiddenAddress.
    """

    def __init__(self, deadline: Deadline, resolver: Resolver, *, allow_private: bool) -> None:
        self._deadline = deadline
        self._resolver = resolver
        self._allow_private = allow_private
        self._network = httpcore2.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore2.SOCKET_OPTION] | None = None,
    ) -> httpcore2.NetworkStream:
        """A connection to the first permitted address that takes one."""
        del timeout, local_address
        failure: Exception = httpcore2.ConnectError("the name has no address")
        for address in self._permitted(host, port):
            wait_s = min(self._deadline.left_s(), _CONNECT_S)
            try:
                stream = self._network.connect_tcp(address, port, timeout=wait_s, socket_options=socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                failure = error
            else:
                return _TimedStream(stream, self._deadline)
        raise failure

    def _permitted(self, host: str, port: int) -> Sequence[str]:
        addresses = _resolve(self._resolver, host, port, self._deadline)
        for address in addresses:
            fault = address_fault(ipaddress.ip_address(address), allow_private=self._allow_private)
            if fault is not None:
                raise ForbiddenAddress(f"the host's address is {fault}, and such addresses are not permitted")
        return addresses


def _resolve(resolver: Resolver, host: str, port: int, deadline: Deadline) -> Sequence[str]:
    """The addresses of `host` within the deadline. A look-up of the system cannot be stopped: a late one is left to end alone."""
    answers: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

    def look_up() -> None:
        try:
            answers.put(resolver(host, port))
        except Exception as error:  # noqa: BLE001 (the thread's boundary: raised again below)
            answers.put(error)

    threading.Thread(target=look_up, name="resolve", daemon=True).start()
    try:
        answer = answers.get(timeout=deadline.left_s())
    except queue.Empty:
        raise httpcore2.ConnectTimeout("name resolution took too long") from None
    if isinstance(answer, OSError | UnicodeError):
        raise httpcore2.ConnectError(answer) from answer
    if isinstance(answer, Exception):
        raise answer
    return answer


class _TimedStream(httpcore2.NetworkStream):
    """A stream whose every operation gets what is left until the deadline, however many operations there are."""

    def __init__(self, stream: httpcore2.NetworkStream, deadline: Deadline) -> None:
        self._stream = stream
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        del timeout
        return self._stream.read(max_bytes, self._deadline.left_s())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        # The stream's own write grants the same wait to every piece that the receiver deigns to take.
        connection: socket.socket = self._stream.get_extra_info("socket")
        view = memoryview(buffer)
        while view:
            connection.settimeout(self._deadline.left_s())
            try:
                view = view[connection.send(view) :]
            except TimeoutError as error:
                raise httpcore2.WriteTimeout(error) from error
            except OSError as error:
                raise httpcore2.WriteError(error) from error

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore2.NetworkStream:
        del timeout
        stream = self._stream.start_tls(ssl_context, server_hostname, self._deadline.left_s())
        return _TimedStream(stream, self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)
