"""Placed documents in, messages of the Kafka topic `news.scored` out, each at least once and always the same bytes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

import msgspec
import structlog

from monitor.errors import Deposed, SourceError, StoreUnavailable
from monitor.metrics import Metrics
from monitor.store.lease import Lease
from monitor.store.publications import PlacedDocument, Publications
from monitor.types import SCORE_UNIT, Stance

log = structlog.get_logger(__name__)

_LOOK_AGAIN_S: Final = 0.5
_RENEW_AFTER_S: Final = 3.0
_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0
_FINISH_S: Final = 5.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)
_FIRST_MS: Final = (datetime.min.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND
_LAST_MS: Final = (datetime.max.replace(tzinfo=UTC) - _EPOCH) // _MILLISECOND


class RecordPosition(msgspec.Struct, frozen=True):
    """Where the record of a document stands."""

    topic: str
    partition: int
    offset: int


class EntityTone(msgspec.Struct, frozen=True):
    """How a document speaks of a watched entity."""

    id: str
    tone: str
    score: float


class SevereEvent(msgspec.Struct, frozen=True):
    """What a document says has happened to a watched entity."""

    entity: str
    category: str
    severity: str


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """A message of `news.scored`, as `monitor/schemas/news.scored.v1.json` has it."""

    schema_version: int
    id: str
    uri: str
    version: str
    record: RecordPosition
    received_at: str
    published_at: str | msgspec.UnsetType = msgspec.UNSET
    source: str
    language: str
    pubstatus: str
    headline: str
    standing: str
    story_id: str | msgspec.UnsetType = msgspec.UNSET
    topic: str
    tone: str
    score: float
    entities: tuple[EntityTone, ...]
    events: tuple[SevereEvent, ...]
    model: str


_ENCODER: Final = msgspec.json.Encoder()
SCHEMA_VERSION: Final = 1


class MessageTopic(Protocol):
    """A topic that messages are appended to."""

    def append(self, messages: Sequence[tuple[bytes, bytes]]) -> None:
        """Returns once every message, a key and a value, is stored. Raises SourceError when one of them may not be."""

    def close(self) -> None:
        """Lets go of the connection."""


@dataclass(slots=True)
class ScoredOutput:
    """Publishes what was placed, in the order in which it was placed, from one instance at a time.

    The cursor moves once the broker has confirmed: a crash repeats messages and loses none. It has a lease, transactions and a
    connection of its own, so that neither counting waits for it nor a broker that does not answer for anything else.
    At most `at_once` documents are published in one turn. `clock_s` is monotonic.
    """

    publications: Publications
    lease: Lease
    open_topic: Callable[[], MessageTopic]
    metrics: Metrics
    wall_ms: Callable[[], int]
    at_once: int = 1_000
    clock_s: Callable[[], float] = time.monotonic
    _topic: MessageTopic | None = None
    _begun: bool = False
    _proved_s: float = float("-inf")
    _wait_s: float = _FIRST_WAIT_S
    _next_ms: int | None = None

    def __post_init__(self) -> None:
        self.metrics.output_age_seconds.set_function(self.age_s)

    def run(self, stop: threading.Event) -> None:
        """Publishes until `stop`, and then what waits still, for at most some seconds."""
        while not stop.is_set():
            stop.wait(self._attempt())
        until_s = self.clock_s() + _FINISH_S
        while self.clock_s() < until_s and self._attempt() == 0:
            pass
        self._close()
        try:
            self.lease.release()
        except StoreUnavailable as error:
            # It ends by itself.
            log.warning("store.unavailable", reason=str(error))

    def turn(self) -> bool:
        """Publishes what comes next, if it is ours to publish; whether more waits.

        Raises SourceError when the topic did not take all of it, Deposed when another instance publishes now, and StoreUnavailable:
        then all of it is published again.
        """
        if not self._begun:
            self.publications.begin()
            self._begun = True
        if not self.lease.held and not self.lease.acquire():
            self._show(None, 0)
            return False
        pending = self.publications.pending(self.at_once)
        self._show(pending.documents[0].received_ms if pending.documents else None, pending.waiting)
        if pending.waiting == 0:
            self._renew()
            return False
        if pending.lost:
            log.warning("output.lost", documents=pending.lost)
        if pending.documents:
            if self._topic is None:
                self._topic = self.open_topic()
            self._topic.append([(document_id(item.document_key).encode(), message(item)) for item in pending.documents])
        self.publications.confirm(pending.until, self.lease)
        self._proved_s = self.clock_s()
        self.metrics.output_published.inc(len(pending.documents))
        self.metrics.output_lost.inc(pending.lost)
        left = pending.waiting - len(pending.documents) - pending.lost
        self._show(self._next_ms if left else None, left)
        return left > 0

    def age_s(self) -> float:
        """How long ago the document was received that this instance is to publish next, in seconds; 0: none waits."""
        next_ms = self._next_ms
        return 0.0 if next_ms is None else max(0.0, (self.wall_ms() - next_ms) / 1_000)

    def _attempt(self) -> float:
        """Takes a turn, whatever the broker and the database do; in how many seconds the next one should be."""
        try:
            more = self.turn()
        except Deposed as error:
            log.info("output.deposed", reason=str(error))
            self._close()
            return _LOOK_AGAIN_S
        except StoreUnavailable as error:
            log.warning("store.unavailable", reason=str(error))
            return _FIRST_WAIT_S
        except SourceError as error:
            log.warning("output.unavailable", reason=str(error), wait_s=self._wait_s)
            self.metrics.output_failures.inc()
            # What a producer has not sent by then must not arrive behind what the next one sends.
            self._close()
            wait_s, self._wait_s = self._wait_s, min(2 * self._wait_s, _LONGEST_WAIT_S)
            return wait_s
        self._wait_s = _FIRST_WAIT_S
        return 0.0 if more else _LOOK_AGAIN_S

    def _renew(self) -> None:
        if self.clock_s() - self._proved_s >= _RENEW_AFTER_S:
            self.lease.renew()
            self._proved_s = self.clock_s()

    def _show(self, next_ms: int | None, waiting: int) -> None:
        self._next_ms = next_ms
        self.metrics.output_waiting.set(waiting)

    def _close(self) -> None:
        if self._topic is not None:
            self._topic.close()
            self._topic = None


def message(placed: PlacedDocument) -> bytes:
    """The value of a document's message: the same bytes whenever it is made, for they depend on the document alone."""
    return _ENCODER.encode(
        Message(
            schema_version=SCHEMA_VERSION,
            id=document_id(placed.document_key),
            uri=placed.uri,
            version=placed.version,
            record=RecordPosition(placed.partition.topic, placed.partition.number, placed.offset),
            received_at=_time(placed.received_ms),
            published_at=msgspec.UNSET if placed.published_ms is None else _time(placed.published_ms),
            source=placed.source,
            language=placed.language,
            pubstatus=placed.status,
            headline=placed.headline,
            standing=placed.standing,
            story_id=msgspec.UNSET if placed.story_id is None else document_id(placed.story_id),
            topic=placed.topic,
            tone=placed.stance.tone,
            score=_score(placed.stance),
            entities=tuple(EntityTone(entity, stance.tone, _score(stance)) for entity, stance in placed.toward),
            events=tuple(SevereEvent(*event) for event in placed.events),
            model=placed.model,
        )
    )


def document_id(document_key: int) -> str:
    """A document's id: sixteen hexadecimal digits, because a number of 63 bits is more than many readers of JSON can hold."""
    return f"{document_key:016x}"


def _score(stance: Stance) -> float:
    return stance.score_units / SCORE_UNIT


def _time(moment_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds. A zone can take what a document claims beyond the years that have four digits."""
    moment = _EPOCH + min(max(moment_ms, _FIRST_MS), _LAST_MS) * _MILLISECOND
    return f"{moment.replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"
