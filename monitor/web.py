"""Metrics and health over HTTP: a small WSGI application on waitress, with bounded threads and connections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from waitress.server import create_server

from monitor.config import WebSettings
from monitor.metrics import RenderedMetrics

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

_THREADS = 4
_CONNECTIONS = 200
_IDLE_S = 10
_LOOK_FOR_IDLE_EVERY_S = 2
_LAST_ANSWERS_S = 2
_HEADERS = [
    ("X-Content-Type-Options", "nosniff"),
    ("Content-Security-Policy", "default-src 'none'"),
    ("Cache-Control", "no-store"),
]


@dataclass(frozen=True, slots=True)
class Health:
    """An answer to a probe: whether all is well, and each check by name."""

    ok: bool
    checks: dict[str, str]


class WebApplication:
    """/metrics, /livez and /readyz."""

    def __init__(self, rendered: RenderedMetrics, live: Callable[[], Health], ready: Callable[[], Health]) -> None:
        self._rendered = rendered
        self._live = live
        self._ready = ready

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """WSGI (PEP 3333)."""
        if environ["REQUEST_METHOD"] not in {"GET", "HEAD"}:
            return _answer(start_response, "405 Method Not Allowed", b"only GET\n", "text/plain")
        match environ.get("PATH_INFO", "/"):
            case "/metrics":
                body, content_type = self._rendered.render(environ.get("HTTP_ACCEPT", ""))
                return _answer(start_response, "200 OK", body, content_type)
            case "/livez":
                return _health(start_response, self._live())
            case "/readyz":
                return _health(start_response, self._ready())
            case _:
                return _answer(start_response, "404 Not Found", b"/metrics /livez /readyz\n", "text/plain")


def _health(start_response: StartResponse, health: Health) -> Iterable[bytes]:
    body = json.dumps({"status": "ok" if health.ok else "failing", "checks": health.checks}, indent=1).encode() + b"\n"
    return _answer(start_response, "200 OK" if health.ok else "503 Service Unavailable", body, "application/json")


def _answer(start_response: StartResponse, status: str, body: bytes, content_type: str) -> Iterable[bytes]:
    start_response(status, [("Content-Type", content_type), ("Content-Length", str(len(body))), *_HEADERS])
    return [body]


class WebServer:
    """The application on a socket. `run` serves until `close` is called from another thread."""

    def __init__(self, application: WebApplication, settings: WebSettings) -> None:
        self._server = create_server(
            application,
            host=settings.host,
            port=settings.port,
            threads=_THREADS,
            connection_limit=_CONNECTIONS,
            channel_timeout=_IDLE_S,
            cleanup_interval=_LOOK_FOR_IDLE_EVERY_S,
            # The other way ends the server when the process has more than a thousand files open.
            asyncore_use_poll=True,
            ident=None,
        )

    @property
    def port(self) -> int:
        """The port that was bound."""
        return int(self._server.effective_port)

    def run(self) -> None:
        """Serves."""
        self._server.run()

    def close(self) -> None:
        """Ends `run`."""
        # First those that still answer: they would find the server's own pipe closed, and log that as a failure.
        self._server.task_dispatcher.shutdown(timeout=_LAST_ANSWERS_S)
        self._server.close()
