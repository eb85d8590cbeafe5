"""Signed posts in, verified messages out: the other end of a webhook, as a risk desk would write it."""

from __future__ import annotations

import hmac
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

from alerts.signature import Secret, signature_headers, signing_key

_MOST_BYTES: Final = 65_536


@dataclass(frozen=True, slots=True)
class Message:
    """A verified message: its id, what happened, and the body."""

    webhook_id: str
    kind: str
    data: dict[str, Any]


@dataclass(slots=True)
class Desk:
    """Where messages arrive. `forged` counts posts whose signature was wrong; `messages` holds each id once."""

    secret: Secret
    url: str = ""
    messages: list[Message] = field(default_factory=list)
    forged: int = 0
    _seen: set[str] = field(default_factory=set)

    def take(self, headers: dict[str, str], body: bytes) -> bool:
        """Whether the post was signed with our secret; then it is kept, unless it came before."""
        name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
        if not stamp.isdigit():
            self.forged += 1
            return False
        expected = signature_headers(name, int(stamp) * 1000, body, [signing_key(self.secret)])["webhook-signature"]
        if not any(hmac.compare_digest(given, expected) for given in headers.get("webhook-signature", "").split()):
            self.forged += 1
            return False
        if name not in self._seen:
            self._seen.add(name)
            message = json.loads(body)
            self.messages.append(Message(name, message["type"], message["data"]))
        return True


@contextmanager
def listening(secret: Secret) -> Iterator[Desk]:
    """A desk that listens on a loopback port until the context ends."""
    desk = Desk(secret)

    class Post(BaseHTTPRequestHandler):
        """One post; the answer is 204 if its signature is right, 401 otherwise."""

        def do_POST(self) -> None:
            """Reads, verifies, answers."""
            body = self.rfile.read(min(int(self.headers.get("content-length", 0)), _MOST_BYTES))
            known = desk.take({name.lower(): value for name, value in self.headers.items()}, body)
            self.send_response(204 if known else 401)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the library's name)
            """Says nothing: the screen is the demo's."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Post)
    server.daemon_threads = True
    desk.url = f"http://127.0.0.1:{server.server_port}/bellwether"
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="desk", daemon=True)
    thread.start()
    try:
        yield desk
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
