"""The daemon's health to datagrams for systemd: ready, alive, stopping, and a line for a person to read."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import Final

import structlog

from monitor.errors import ConfigurationError
from monitor.web import Health

log = structlog.get_logger(__name__)

_REPORT_EVERY_S: Final = 10.0
_START_WITHIN_S: Final = 60.0


class Supervision:
    """Reports to the service manager that started us; without NOTIFY_SOCKET in `environment` it does nothing.

    It has no thread: whoever watches the daemon calls `look`, at least twice as often as the watchdog wants to hear from us.
    `live` says whether the loop turns: a daemon that is not alive sends nothing more, and is restarted. `ready` says whether news
    is being read. `clock_s` is monotonic. Raises ConfigurationError when the environment holds what systemd would never put there.

    Source: sd_notify(3) and sd_watchdog_enabled(3).
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        live: Callable[[], Health],
        ready: Callable[[], Health],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._live = live
        self._ready = ready
        self._clock_s = clock_s
        self._watchdog_s = _watchdog_interval_s(environment)
        self._report_every_s = min(self._watchdog_s / 2, _REPORT_EVERY_S) if self._watchdog_s else _REPORT_EVERY_S
        self._socket = _connected(environment.get("NOTIFY_SOCKET", ""))
        self._reported_s = float("-inf")
        self._started = False
        self._was_ready = False
        self._stopping = False

    def look(self) -> None:
        """Sends what is due: that we are alive, with how we are; and at once when that changes. Before the daemon is ready for the
        first time the manager is asked for patience: a broker that is down is no failure of ours.
        """
        if self._socket is None or self._stopping:
            return
        live, ready = self._live(), self._ready()
        now_s = self._clock_s()
        if not live.ok or (ready.ok == self._was_ready and now_s - self._reported_s < self._report_every_s):
            return
        lines = [f"STATUS={'reading' if ready.ok else 'not reading'}: {_sentence(ready)}"]
        if ready.ok and not self._started:
            lines.append("READY=1")
        elif not self._started:
            lines.append(f"EXTEND_TIMEOUT_USEC={_microseconds(_START_WITHIN_S)}")
        if self._watchdog_s:
            lines.append("WATCHDOG=1")
        if self._send(lines):
            self._reported_s = now_s
            self._was_ready = ready.ok
            self._started = self._started or ready.ok

    def stopping(self) -> None:
        """Says that the end has begun; nothing is sent after it. May be called again."""
        if self._socket is not None and not self._stopping:
            self._stopping = self._send(["STOPPING=1", "STATUS=draining: what was read is saved, then the group is left"])

    def close(self) -> None:
        """Lets go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _send(self, lines: list[str]) -> bool:
        """Whether the manager took the message. One that does not must not end or delay a daemon that is well."""
        if self._socket is None:
            return False
        try:
            self._socket.send("\n".join(lines).encode())
        except OSError as error:
            log.warning("supervisor.silent", reason=error.strerror or str(error))
            return False
        return True


def _connected(address: str) -> socket.socket | None:
    """A socket whose datagrams go to `address`, a path or "@" and an abstract name; None for "". Raises ConfigurationError."""
    if not address:
        return None
    if not address.startswith(("/", "@")):
        raise ConfigurationError("the environment", ['NOTIFY_SOCKET: must be an absolute path, or begin with "@"'])
    found = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    # A manager that does not read must not hold us up.
    found.setblocking(False)
    try:
        found.connect("\0" + address[1:] if address.startswith("@") else address)
    except OSError as error:
        found.close()
        raise ConfigurationError("the environment", [f"NOTIFY_SOCKET: {error.strerror or error}"]) from error
    return found


def _watchdog_interval_s(environment: Mapping[str, str]) -> float | None:
    """How often the manager wants to hear from this process, in seconds; None: never. Raises ConfigurationError."""
    wanted = environment.get("WATCHDOG_USEC", "")
    if not wanted or environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    if not wanted.isdecimal() or int(wanted) == 0:
        raise ConfigurationError("the environment", ["WATCHDOG_USEC: must be a whole number of microseconds"])
    return int(wanted) / 1e6


def _microseconds(span_s: float) -> int:
    return round(span_s * 1e6)


def _sentence(health: Health) -> str:
    """The checks on one line: a line break would begin another assignment."""
    return ", ".join(" ".join(f"{name} {said}".split()) for name, said in health.checks.items())
