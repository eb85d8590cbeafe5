"""A real HTTP server on loopback that misbehaves as it is told."""

import contextlib
import itertools
import socket
import ssl
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

Behaviour = Callable[[socket.socket, threading.Event], None]


@dataclass(frozen=True)
class Received:
    """A request as it came in."""

    line: str
    headers: dict[str, str]
    body: bytes


def answer(status: int, headers: dict[str, str] | None = None, body: bytes = b"ok") -> Behaviour:
    """Answers in an orderly manner."""
    lines = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
    text = f"HTTP/1.1 {status} Whatever\r\nContent-Length: {len(body)}\r\n{lines}\r\n".encode() + body
    return lambda connection, _: connection.sendall(text)


def say(text: bytes) -> Behaviour:
    """Sends these bytes and closes."""
    return lambda connection, _: connection.sendall(text)


def drip(first: bytes, endless: bytes, every_s: float = 0.02) -> Behaviour:
    """Sends `first`, then a byte of `endless` now and then, for ever."""

    def behave(connection: socket.socket, closing: threading.Event) -> None:
        connection.sendall(first)
        for number in itertools.cycle(endless):
            if closing.wait(every_s):
                return
            connection.sendall(bytes([number]))

    return behave


def flood(first: bytes) -> Behaviour:
    """Sends `first` and then as many bytes as are taken."""

    def behave(connection: socket.socket, closing: threading.Event) -> None:
        connection.sendall(first)
        while not closing.is_set():
            connection.sendall(b"x" * 65_536)

    return behave


def hang(connection: socket.socket, closing: threading.Event) -> None:
    """Never says a word."""
    closing.wait()


def reset_after(first: bytes) -> Behaviour:
    """Sends `first` and tears the connection down."""

    def behave(connection: socket.socket, _: threading.Event) -> None:
        connection.sendall(first)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return behave


@dataclass
class Server:
    """Serves one connection after another, each in a thread; `received` holds the requests that came in whole."""

    behaviour: Behaviour = field(default_factory=lambda: answer(200))
    ssl_context: ssl.SSLContext | None = None
    received: list[Received] = field(default_factory=list)

    def __enter__(self):
        self._closing = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=16)
        self.port = self._listening.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        # A thread that waits in accept() is woken by a caller, not by a close.
        socket.create_connection(("127.0.0.1", self.port)).close()
        for thread in self._threads:
            thread.join(5)
        self._listening.close()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            if self._closing.is_set():
                connection.close()
                return
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(5)
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            stack.enter_context(connection)
            if self.ssl_context is not None:
                connection = stack.enter_context(self.ssl_context.wrap_socket(connection, server_side=True))
            if self._read(connection):
                self.behaviour(connection, self._closing)

    def _read(self, connection: socket.socket) -> bool:
        data = b""
        while b"\r\n\r\n" not in data:
            piece = connection.recv(65_536)
            if not piece:
                return False
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        line, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
        while len(body) < int(headers.get("content-length", 0)):
            body += connection.recv(65_536)
        self.received.append(Received(line, headers, body))
        return True
