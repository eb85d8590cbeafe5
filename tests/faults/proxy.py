"""A TCP port in front of another one, whose connections can be cut, stalled, delayed and refused."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Final

_CHUNK_BYTES: Final = 65_536
_LOOK_S: Final = 0.05
_RESET: Final = struct.pack("ii", 1, 0)
"""SO_LINGER with no time to linger: the connection ends with RST."""


@dataclass(eq=False, slots=True)
class _Connection:
    """One client and the server behind it."""

    client: socket.socket
    server: socket.socket

    def reset(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            _end(end)

    def close(self) -> None:
        _end(self.client)
        _end(self.server)


def _end(found: socket.socket) -> None:
    # A thread may be waiting in it: closing alone would not wake that.
    with suppress(OSError):
        found.shutdown(socket.SHUT_RDWR)
    found.close()


@dataclass
class Proxy:
    """Passes connections to `port` on to `target_port`, both on loopback, between `start` and `close`.

    What is stalled is kept, as a network does that loses packets for a while: when the stall ends it arrives, late. A peer that is
    stalled sees neither data nor an end.
    """

    target_port: int
    port: int
    latency_s: float = 0.0
    _to_server: threading.Event = field(default_factory=threading.Event)
    _to_client: threading.Event = field(default_factory=threading.Event)
    _closed: threading.Event = field(default_factory=threading.Event)
    _connections: set[_Connection] = field(default_factory=set)
    _orphans: list[socket.socket] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _listener: socket.socket | None = None

    def start(self) -> None:
        """Listens."""
        self._to_server.set()
        self._to_client.set()
        self.accept()

    def close(self) -> None:
        """Ends everything."""
        self._closed.set()
        self.refuse()
        self.reset()
        for orphan in self._orphans:
            orphan.close()

    # --- faults --------------------------------------------------------------------------------

    def refuse(self) -> None:
        """New connections are refused; those that stand go on."""
        if self._listener is not None:
            _end(self._listener)
            self._listener = None

    def accept(self) -> None:
        """New connections are let in again."""
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", self.port))
        listener.listen(64)
        self._listener = listener
        threading.Thread(target=self._take, args=(listener,), daemon=True).start()

    def reset(self) -> None:
        """Every connection ends with RST, at both ends."""
        for connection in self._take_all():
            connection.reset()

    def half_open(self) -> None:
        """The server's end of every connection is gone; the client's stays open, and silent for ever."""
        for connection in self._take_all():
            self._orphans.append(connection.client)
            _end(connection.server)

    def black_hole(self) -> None:
        """Nothing passes in either direction."""
        self._to_server.clear()
        self._to_client.clear()

    def swallow_requests(self) -> None:
        """Nothing passes from the clients to the server."""
        self._to_server.clear()

    def swallow_answers(self) -> None:
        """Nothing passes from the server to the clients."""
        self._to_client.clear()

    def heal(self) -> None:
        """Everything passes again, at once, and whatever was stalled."""
        self.latency_s = 0.0
        self._to_server.set()
        self._to_client.set()
        if self._listener is None:
            self.accept()

    @property
    def connections(self) -> int:
        """How many connections stand."""
        with self._lock:
            return len(self._connections)

    # --- passing on ----------------------------------------------------------------------------

    def _take_all(self) -> list[_Connection]:
        with self._lock:
            taken = list(self._connections)
            self._connections.clear()
        return taken

    def _take(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            except OSError:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                client.close()
                continue
            server.settimeout(None)
            connection = _Connection(client, server)
            with self._lock:
                self._connections.add(connection)
            for begin, end, gate in ((client, server, self._to_server), (server, client, self._to_client)):
                threading.Thread(target=self._pass, args=(connection, begin, end, gate), daemon=True).start()

    def _pass(self, connection: _Connection, begin: socket.socket, end: socket.socket, gate: threading.Event) -> None:
        try:
            while chunk := begin.recv(_CHUNK_BYTES):
                if self.latency_s:
                    time.sleep(self.latency_s)
                while not gate.wait(_LOOK_S):
                    if self._closed.is_set():
                        return
                end.sendall(chunk)
        except OSError:
            pass
        with self._lock:
            stands = connection in self._connections
            self._connections.discard(connection)
        if stands:
            connection.close()


@contextmanager
def proxying(target_port: int, port: int) -> Iterator[Proxy]:
    """A proxy that listens on `port` until the context ends."""
    proxy = Proxy(target_port, port)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.close()
