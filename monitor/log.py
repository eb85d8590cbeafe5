"""Events to lines: readable on a terminal, JSON otherwise; never a text, an URL or a secret, and no line that is waited for."""

from __future__ import annotations

import logging
import os
import select
import sys
import time
from typing import Final, TextIO

import structlog
from structlog.typing import Processor

from monitor.config import LogSettings

_OURS: Final = ("monitor", "alerts", "pipelines")
_PATIENCE_S: Final = 1.0
_AT_ONCE_BYTES: Final = select.PIPE_BUF
"""A pipe that takes anything takes so much without making the writer wait (pipe(7))."""


class _LineWriter(logging.StreamHandler[TextIO]):
    """Writes lines to a stream that may stop taking them: a pipe that nobody reads, a full disk.

    Then lines are lost and counted, and the first line that can be written again is preceded by their number. Nobody waits for the
    stream longer than `_PATIENCE_S`, and that only once until it takes lines again.
    """

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._lost = 0
        self._torn = False

    def emit(self, record: logging.LogRecord) -> None:
        """Writes the record's line, or counts it as lost."""
        try:
            line = self.format(record)
            if self._lost:
                told = f"log.lost: {self._lost} lines could not be written"
                line = f"{self.format(logging.makeLogRecord({'name': __name__, 'levelname': 'WARNING', 'msg': told}))}\n{line}"
            taken = self._write(f"{line}\n")
        except Exception:  # noqa: BLE001 (the standard library's own contract of `emit`)
            self.handleError(record)
        else:
            self._lost = 0 if taken else self._lost + 1

    def _write(self, text: str) -> bool:
        """Writes text as far as the stream takes it in time; whether it took all."""
        try:
            descriptor = self.stream.fileno()
        except (OSError, ValueError, AttributeError):
            # A stream in memory: it neither fails nor waits.
            self.stream.write(text)
            return True
        data = ("\n" * self._torn + text).encode("utf-8", "backslashreplace")
        until_s = time.monotonic() + (0.0 if self._lost else _PATIENCE_S)
        left = data
        try:
            while left and _takes(descriptor, max(0.0, until_s - time.monotonic())):
                left = left[os.write(descriptor, left[:_AT_ONCE_BYTES]) :]
        except OSError:
            # The disk is full, or the reader is gone. There is nowhere to say so.
            pass
        if len(left) < len(data):
            self._torn = bool(left)
        return not left


def _takes(descriptor: int, wait_s: float) -> bool:
    """Whether a descriptor takes something within `wait_s`. One that fails does: the write says how."""
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(wait_s * 1_000))


def configure_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Sends structlog's events and the standard library's records through one formatter to `stream` (default: standard error).

    `log.level` is for our own loggers. Those of the libraries say nothing below WARNING: at DEBUG kafka-python prints passwords,
    SQLAlchemy the values of every row, and HTTP clients where they go.
    """
    stream = stream or sys.stderr
    readable = settings.format == "console" or (settings.format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: Processor = structlog.dev.ConsoleRenderer() if readable else structlog.processors.JSONRenderer(ensure_ascii=False)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*shared, structlog.stdlib.add_logger_name],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    writer = _LineWriter(stream)
    writer.setFormatter(formatter)
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(max(level, logging.WARNING))
    for name in _OURS:
        logging.getLogger(name).setLevel(level)
    # It warns of every request that waits for a thread: whoever scrapes much would fill the log.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
