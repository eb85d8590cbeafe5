"""A configuration in, a running daemon out: everything is built here, once, and joined to its threads."""

from __future__ import annotations

import os
import queue
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import CollectorRegistry, ProcessCollector
from sqlalchemy import Engine

from alerts.channels.alertmanager import AlertmanagerReceiver
from alerts.channels.protocol import Receiver
from alerts.deliver import Sender
from alerts.remind import Reminder
from alerts.types import Attempt, Rule, severities
from monitor import __version__
from monitor.assembly import build_loop
from monitor.classifier.protocol import Classifier
from monitor.config import Settings
from monitor.errors import BellwetherError, SourceUnavailable, StoreUnavailable
from monitor.loop import Loop
from monitor.metrics import Metrics, RenderedMetrics
from monitor.scored_output import MessageTopic, ScoredOutput
from monitor.sources.protocol import Source
from monitor.sources.times import wall_clock_ms
from monitor.store.incidents import Incidents
from monitor.store.lease import Lease
from monitor.store.ledger import Ledger
from monitor.store.outbox import SqlOutbox
from monitor.store.publications import PUBLISHER, Publications
from monitor.store.retention import prune
from monitor.supervision import Supervision
from monitor.watchlist import WatchList
from monitor.web import Health, WebApplication, WebServer

log = structlog.get_logger(__name__)

STALL_AFTER_S: Final = 300.0
"""A loop that has not turned for this long is beyond help: the process ends, and its supervisor starts it again."""

EXIT_STALLED: Final = 70

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0
_STORE_WAIT_S: Final = 1.0
_PRUNE_EVERY_MINUTES: Final = 15
_SHUTDOWN_S: Final = 20.0


def open_source(settings: Settings) -> Source:
    """The source that the configuration names. Raises SourceUnavailable, SourceError, ConfigurationError."""
    if settings.source.kind == "kafka":
        from monitor.sources.kafka import KafkaSource

        return KafkaSource(settings.source.kafka)
    from monitor.sources.file import FileSource

    return FileSource(settings.source.file)


def open_topic(settings: Settings, name: str) -> MessageTopic:
    """A Kafka topic to publish to. Raises SourceUnavailable, SourceError, ConfigurationError."""
    from monitor.sources.kafka_topic import KafkaTopic

    return KafkaTopic(settings.source.kafka, name)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a daemon is built from, already checked."""

    settings: Settings
    engine: Engine
    classifier: Classifier
    watchlist: WatchList
    rules: tuple[Rule, ...]
    receivers: tuple[Receiver, ...]
    open_source: Callable[[], Source]
    environment: Mapping[str, str] = field(default_factory=dict)
    """Where a service manager says how it wants to hear from us."""


class Daemon:
    """Loop, sender, publisher, web server and maintenance, each in its thread; `run` ends when one of them does."""

    def __init__(self, parts: Parts) -> None:
        settings, engine = parts.settings, parts.engine
        self._parts = parts
        self._stop = threading.Event()
        self._ended: queue.Queue[tuple[str, BaseException | None]] = queue.Queue()
        self.owner = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:8]}"
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        names = [receiver.name for receiver in parts.receivers]
        self.metrics = Metrics(self.registry, [(rule.name, loud) for rule in parts.rules for loud in severities(rule)], names)
        self.metrics.build.info({"version": __version__, "model": parts.classifier.version, "device": parts.classifier.device})
        self.ledger = Ledger(engine)
        self.incidents = Incidents(engine)
        self.outbox = SqlOutbox(engine)
        self._sender = Sender(
            self.outbox,
            {receiver.name: receiver.channel() for receiver in parts.receivers},
            observe=self._count_attempt,
        )
        self._reminders = [
            Reminder(self.outbox, receiver, receiver.channel(), observe=self._count_attempt, wall_ms=wall_clock_ms)
            for receiver in parts.receivers
            if isinstance(receiver, AlertmanagerReceiver)
        ]
        self._loop = self._build_loop()
        self._output = self._build_output()
        self._all_is_placed = threading.Event()
        self._scheduler = BackgroundScheduler(timezone="UTC")
        self._scheduler.add_job(
            self._maintain, "interval", minutes=_PRUNE_EVERY_MINUTES, coalesce=True, max_instances=1, misfire_grace_time=None
        )
        rendered = RenderedMetrics(self.registry, settings.web.refresh.total_seconds())
        self._web = WebServer(WebApplication(rendered, self.live, self.ready), settings.web)
        self._source_open = threading.Event()
        self._source_wait_s = _FIRST_WAIT_S
        self._supervision = Supervision(parts.environment, self.live, self.ready)

    @property
    def port(self) -> int:
        """Where metrics and health are served."""
        return self._web.port

    def stop(self) -> None:
        """Asks for an orderly end: what was read is processed and saved, the group is left. Safe from a signal's frame."""
        self._stop.set()

    def run(self) -> int:
        """Runs until `stop` or until a part dies; the exit code of the process."""
        threads = [
            self._start("loop", self._run_loop),
            self._start("deliver", self._run_sender),
            self._start("web", self._web.run),
            *(self._start("remind", partial(self._run_reminder, reminder)) for reminder in self._reminders),
        ]
        output = self._output
        publisher = [] if output is None else [self._start("publish", lambda: output.run(self._all_is_placed))]
        self._scheduler.start()
        log.info("daemon.started", owner=self.owner, model=self._parts.classifier.version, port=self.port)
        code = self._watch()
        self._supervision.stopping()
        self._stop.set()
        self._sender.notify()
        threads[0].join(_SHUTDOWN_S)
        self._all_is_placed.set()
        until_s = time.monotonic() + _SHUTDOWN_S
        for thread in (threads[1], *publisher):
            thread.join(max(0.0, until_s - time.monotonic()))
        self._web.close()
        self._scheduler.shutdown(wait=False)
        self._parts.engine.dispose()
        self._supervision.close()
        log.info("daemon.stopped", exit_code=code)
        return code

    def live(self) -> Health:
        """Whether the loop still turns."""
        age_s = time.monotonic() - self._loop.turned_s
        return Health(age_s < STALL_AFTER_S, {"loop": f"turned {age_s:.1f} s ago"})

    def ready(self) -> Health:
        """Whether news is being read: the source is open, partitions are ours, the loop turns, nobody wants to stop."""
        partitions = self._loop.partitions()
        checks = {
            "source": "open" if self._source_open.is_set() else "closed",
            "partitions": str(partitions),
            "stopping": str(self._stop.is_set()).lower(),
            **self.live().checks,
        }
        ok = self._source_open.is_set() and partitions > 0 and not self._stop.is_set() and self.live().ok
        return Health(ok, checks)

    def _watch(self) -> int:
        """Waits for the first thread to end; the exit code that follows from how it ended."""
        while True:
            try:
                name, error = self._ended.get(timeout=1.0)
            except queue.Empty:
                if self._stop.is_set():
                    self._supervision.stopping()
                self._supervision.look()
                if not self.live().ok:
                    log.critical("loop.stalled", after_s=STALL_AFTER_S)
                    os._exit(EXIT_STALLED)
                continue
            if error is None:
                return 0
            log.critical("thread.died", thread=name, error=type(error).__name__, exc_info=error)
            return error.exit_code if isinstance(error, BellwetherError) else 1

    def _start(self, name: str, body: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            error: BaseException | None = None
            try:
                body()
            except BaseException as raised:  # noqa: BLE001 (the thread's boundary: the main thread decides)
                error = raised
            self._ended.put((name, error))

        thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def _build_loop(self) -> Loop:
        parts = self._parts
        return build_loop(
            settings=parts.settings,
            engine=parts.engine,
            owner=self.owner,
            classifier=parts.classifier,
            rules=parts.rules,
            watchlist=parts.watchlist,
            receivers=parts.receivers,
            metrics=self.metrics,
            open_source=parts.open_source,
            announce=self._sender.notify,
            stop=self._stop,
        )

    def _build_output(self) -> ScoredOutput | None:
        """What publishes scored documents, where the configuration names a topic for them."""
        settings, topic = self._parts.settings, self._parts.settings.output.topic
        if topic is None:
            return None
        return ScoredOutput(
            publications=Publications(self._parts.engine, topic),
            lease=Lease(self._parts.engine, self.owner, PUBLISHER),
            open_topic=lambda: open_topic(settings, topic),
            metrics=self.metrics,
            wall_ms=wall_clock_ms,
        )

    def _run_loop(self) -> None:
        """Turns the loop over one opened source after another; a source that does not answer is waited for, longer each time."""
        while not self._stop.is_set():
            try:
                with self._loop.opened():
                    self._source_open.set()
                    self._turn_until_stopped()
            except SourceUnavailable as error:
                log.warning("source.unavailable", reason=str(error), wait_s=self._source_wait_s)
                self.metrics.source_restarts.inc()
                self._loop.beat()
                self._stop.wait(self._source_wait_s)
                self._source_wait_s = min(2 * self._source_wait_s, _LONGEST_WAIT_S)
            finally:
                self._source_open.clear()

    def _turn_until_stopped(self) -> None:
        """Turns until the process is to stop, or the source has no more to give; then drains."""
        while not self._stop.is_set() and not self._loop.exhausted():
            try:
                self._loop.turn()
            except StoreUnavailable as error:
                log.warning("store.unavailable", reason=str(error))
                self.metrics.store_retries.inc()
                self._stop.wait(_STORE_WAIT_S)
                continue
            # A source that answers is one whose next failure is a new one.
            self._source_wait_s = _FIRST_WAIT_S
        self._loop.drain()
        self._stop.set()

    def _run_sender(self) -> None:
        while not self._stop.is_set():
            self._patiently(lambda: self._sender.run(self._stop))

    def _run_reminder(self, reminder: Reminder) -> None:
        while not self._stop.is_set():
            self._patiently(lambda: reminder.run(self._stop))

    def _patiently(self, work: Callable[[], None]) -> None:
        """Does the work, again and again while the database does not answer and the process is not to stop."""
        while True:
            try:
                return work()
            except StoreUnavailable as error:
                log.warning("store.unavailable", reason=str(error))
                self._loop.beat()
                if self._stop.wait(_STORE_WAIT_S):
                    return None

    def _maintain(self) -> None:
        stream_ms = self.ledger.newest_ms()
        if stream_ms is None or not self._loop.leading.lease.held:
            return
        now_ms = wall_clock_ms()
        deleted = prune(self._parts.engine, self._parts.settings.store, min(stream_ms, now_ms), now_ms)
        log.info("store.pruned", **deleted)

    def _count_attempt(self, receiver: str, attempt: Attempt) -> None:
        self.metrics.delivery_attempts.labels(receiver, attempt.result).inc()
        self.metrics.delivery_seconds.labels(receiver).observe(attempt.duration_s)
        self.metrics.outbox_waiting.set(self.outbox.waiting())
