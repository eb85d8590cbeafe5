"""Lines of a JSONL file in, messages of a Kafka topic out, at a chosen pace."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol

import msgspec

from monitor.config import KafkaSettings
from monitor.sources.times import document_time_ms

MAX_UNANSWERED: Final = 20_000
MAX_UNANSWERED_BYTES: Final = 33_554_432
PROGRESS_EVERY_S: Final = 0.1
CLOSE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast to publish: `documents_per_s`, or `speed` times as fast as the documents' own times; neither: as fast as possible.

    Raises ValueError when both are given, or one is not above 0.
    """

    documents_per_s: float | None = None
    speed: float | None = None

    def __post_init__(self) -> None:
        if self.documents_per_s is not None and self.speed is not None:
            raise ValueError("documents_per_s and speed exclude each other")
        for value in (self.documents_per_s, self.speed):
            if value is not None and not value > 0:
                raise ValueError("a pace must be above 0")


@dataclass(slots=True)
class Pacer:
    """When each document is due, in seconds after the first one; never before the one before it."""

    pace: Pace
    _count: int = 0
    _due_s: float = 0.0
    _first_ms: int | None = None

    def due_s(self, time_ms: int | None) -> float:
        """When the next document, of this time, is due. One without a time is due with its predecessor."""
        if self.pace.documents_per_s is not None:
            self._due_s = self._count / self.pace.documents_per_s
        elif self.pace.speed is not None and time_ms is not None:
            if self._first_ms is None:
                self._first_ms = time_ms
            self._due_s = max(self._due_s, (time_ms - self._first_ms) / 1_000 / self.pace.speed)
        self._count += 1
        return self._due_s


@dataclass(frozen=True, slots=True)
class Published:
    """What became of the lines: `failures` counts the failed ones by the name of their error."""

    sent: int
    failed: int
    seconds: float
    failures: Mapping[str, int]


class Outcome(Protocol):
    """What is known of one message later."""

    def add_callback(self, then: Callable[[Any], object]) -> object:
        """Calls `then` once the message is stored."""

    def add_errback(self, then: Callable[[BaseException], object]) -> object:
        """Calls `then` with the error once the message is given up."""


class Producer(Protocol):
    """What sends messages: kafka-python's producer, as far as it is needed here."""

    def send(self, topic: str, value: bytes, key: bytes | None, *, timestamp_ms: int | None) -> Outcome:
        """Takes a message for sending. Raises KafkaError for one that it does not take."""

    def flush(self, timeout: float) -> None:
        """Returns when every message has its outcome. Raises KafkaError when that takes longer than `timeout` seconds."""


@dataclass(slots=True)
class _Tally:
    """Counts outcomes, which come in the producer's thread, and holds the sender back while too many are outstanding."""

    sent: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    _messages: int = 0
    _bytes: int = 0
    _changed: threading.Condition = field(default_factory=threading.Condition)

    @property
    def failed(self) -> int:
        return self.failures.total()

    def wait_for_room(self, size: int, limit_s: float) -> None:
        def has_room() -> bool:
            return self._messages == 0 or (self._messages < MAX_UNANSWERED and self._bytes + size <= MAX_UNANSWERED_BYTES)

        with self._changed:
            self._changed.wait_for(has_room, limit_s)

    def begin(self, size: int) -> None:
        with self._changed:
            self._messages += 1
            self._bytes += size

    def end(self, size: int, error: BaseException | None) -> None:
        with self._changed:
            self._messages -= 1
            self._bytes -= size
            if error is None:
                self.sent += 1
            else:
                self.failures[type(error).__name__] += 1
            self._changed.notify_all()

    def give_up(self) -> None:
        with self._changed:
            if self._messages > 0:
                self.failures["Unanswered"] += self._messages


class _Key(msgspec.Struct, frozen=True):
    uri: Any = None


_key_decoder: Final = msgspec.json.Decoder(_Key)


def message_key(line: bytes) -> bytes | None:
    """The document's `uri`, so that all versions of a document stay in order; None where there is none."""
    try:
        uri = _key_decoder.decode(line).uri
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    return uri.encode() if isinstance(uri, str) and uri else None


def publish(
    lines: Iterable[bytes],
    settings: KafkaSettings,
    topic: str,
    *,
    pace: Pace = Pace(),
    timestamps: Literal["document", "now"] = "document",
    progress: Callable[[int, int], None] | None = None,
) -> Published:
    """Sends every line that is not blank as one message, whatever it says, and returns when the cluster has answered for all.

    With `timestamps` "document" a message has the time that the document names, or else that of the message before it; otherwise,
    or while none was named, the time of sending. `progress` is
    called some ten times a second with the numbers of messages stored and failed. Memory is bounded; a message that failed is
    counted and does not stop the others.
    Raises SourceError when the topic does not exist, SourceUnavailable when the cluster does not answer at the start,
    ConfigurationError for a secret that cannot be read.
    """
    from monitor.sources.kafka_client import close_producer, milliseconds, open_producer

    producer = open_producer(settings, topic)
    answer_s = 3 * milliseconds(settings.request_timeout) / 1_000
    try:
        return publish_through(producer, lines, topic, pace=pace, timestamps=timestamps, progress=progress, answer_s=answer_s)
    finally:
        # What is not sent by now has been counted as failed.
        close_producer(producer, CLOSE_S)


def publish_through(
    producer: Producer,
    lines: Iterable[bytes],
    topic: str,
    *,
    pace: Pace,
    timestamps: Literal["document", "now"],
    progress: Callable[[int, int], None] | None,
    answer_s: float,
    clock_s: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> Published:
    """As `publish`, through a producer that is open; it gets `answer_s` seconds for the last answers."""
    tally = _Tally()
    pacer = Pacer(pace)
    begun_s = told_s = clock_s()
    time_ms: int | None = None
    for line in lines:
        value = line.removesuffix(b"\n").removesuffix(b"\r")
        if not value.strip():
            continue
        named_ms = document_time_ms(value)
        time_ms = time_ms if named_ms is None else named_ms
        _sleep_until(begun_s + pacer.due_s(time_ms), clock_s, sleep)
        tally.wait_for_room(len(value), answer_s)
        _send(producer, topic, value, time_ms if timestamps == "document" else None, tally)
        if progress is not None and clock_s() - told_s >= PROGRESS_EVERY_S:
            told_s = clock_s()
            progress(tally.sent, tally.failed)
    _flush(producer, tally, answer_s)
    if progress is not None:
        progress(tally.sent, tally.failed)
    return Published(tally.sent, tally.failed, clock_s() - begun_s, dict(tally.failures))


def _sleep_until(due_s: float, clock_s: Callable[[], float], sleep: Callable[[float], None]) -> None:
    early_s = due_s - clock_s()
    if early_s > 0:
        sleep(early_s)


def _send(producer: Producer, topic: str, value: bytes, timestamp_ms: int | None, tally: _Tally) -> None:
    from kafka.errors import KafkaError

    size = len(value)
    tally.begin(size)
    try:
        outcome = producer.send(topic, value, message_key(value), timestamp_ms=timestamp_ms)
    except KafkaError as error:
        tally.end(size, error)
        return
    outcome.add_callback(lambda _: tally.end(size, None))
    outcome.add_errback(lambda error: tally.end(size, error))


def _flush(producer: Producer, tally: _Tally, limit_s: float) -> None:
    from kafka.errors import KafkaError

    try:
        producer.flush(limit_s)
    except KafkaError:
        tally.give_up()
