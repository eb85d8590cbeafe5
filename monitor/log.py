"""Events to lines: readable on a terminal, JSON otherwise; never a text, an URL or a secret."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

import structlog
from structlog.typing import Processor

from monitor.config import LogSettings


def configure_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Sends structlog's events and the standard library's records through one formatter to `stream` (default: standard error).

    The loggers of kafka-python are held at WARNING or above: at DEBUG they print passwords.
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
    writer = logging.StreamHandler(stream)
    writer.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [writer]
    root.setLevel(settings.level.upper())
    for noisy in ("kafka", "apscheduler", "waitress", "httpcore2", "urllib3", "transformers"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
