"""A webhook receiver on loopback that verifies what it gets with the reference library and remembers it."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError

SECRET = "whsec_" + "QmVsbHdldGhlciB0ZXN0cywgbm8gc2VjcmV0IQ=="


@dataclass(frozen=True)
class Received:
    """One verified POST."""

    webhook_id: str
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        return json.loads(self.body)


@dataclass
class Receiver:
    """What came, in order, and what could not be verified. `status` is what it answers."""

    url: str = ""
    status: int = 204
    received: list[Received] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)

    def take(self, headers: dict[str, str], body: bytes) -> None:
        try:
            Webhook(SECRET).verify(body, headers)
        except WebhookVerificationError as error:
            self.unverified.append(repr(error))
            return
        self.received.append(Received(headers["webhook-id"], body))

    def first_of_each(self) -> list[dict[str, Any]]:
        """The messages, each id once: what a receiver that does its duty acts upon."""
        seen: dict[str, dict[str, Any]] = {}
        for item in self.received:
            seen.setdefault(item.webhook_id, item.message)
        return list(seen.values())


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver that listens until the context ends."""
    receiver = Receiver()

    def take(headers: dict[str, str], body: bytes) -> int:
        receiver.take(headers, body)
        return receiver.status

    with taking_posts(take) as url:
        receiver.url = f"{url}hook"
        yield receiver


@contextmanager
def taking_posts(take: Callable[[dict[str, str], bytes], int]) -> Iterator[str]:
    """The address of a server on loopback that hands each post's headers (in small letters) and body to `take`, and answers with
    the status that this gives back.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            self.send_response(take({name.lower(): value for name, value in self.headers.items()}, body))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
