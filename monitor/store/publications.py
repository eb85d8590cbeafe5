"""Placed documents out, in the order in which they were placed, behind a cursor that says how far they were published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, func, select, update

from monitor.store.engine import reading, writing
from monitor.store.lease import Lease
from monitor.store.ledger import placed_so_far
from monitor.store.rows import insert_new_rows
from monitor.store.schema import document, publication
from monitor.types import Partition, Stance, Tone

PUBLISHER: Final = "publisher"
"""Names the lease under which one instance at a time publishes."""

_COLUMNS: Final = tuple(
    document.c[name]
    for name in (
        "document_key", "place", "topic", "number", "offset", "received_ms", "published_ms", "uri", "version", "source", "language",
        "status", "headline", "entities", "standing", "story_id", "label", "tone", "score_units", "model", "events",
    )
)  # fmt: skip
_TOWARD: Final = msgspec.json.Decoder(dict[str, tuple[Tone, int]])
_EVENTS: Final = msgspec.json.Decoder(tuple[tuple[str, str, str, int], ...])


@dataclass(frozen=True, slots=True)
class PlacedDocument:
    """A document as the database keeps it. `events` are entity, category and severity of each severe event that it tells of."""

    document_key: int
    partition: Partition
    offset: int
    received_ms: int
    published_ms: int | None
    uri: str
    version: str
    source: str
    language: str
    status: str
    headline: str
    standing: str
    story_id: int | None
    topic: str
    stance: Stance
    toward: tuple[tuple[str, Stance], ...]
    events: tuple[tuple[str, str, str], ...]
    model: str


@dataclass(frozen=True, slots=True)
class Pending:
    """What comes next behind the cursor.

    Once `documents` are published the cursor may stand at `until`; `lost` documents before it were pruned first. `waiting` is how
    many are not published in all, with those.
    """

    documents: tuple[PlacedDocument, ...]
    until: int
    lost: int
    waiting: int


class Publications:
    """How far one Kafka topic has the placed documents, in the database.

    Documents bear numbers without a gap in the order in which they were placed: a late one is old by its time and new by its
    number, and a number that is missing is a document that was pruned.
    """

    def __init__(self, engine: Engine, topic: str) -> None:
        self._engine = engine
        self._topic = topic

    def begin(self) -> None:
        """Sets the cursor before the oldest document that is kept, unless the topic has one. Raises StoreUnavailable."""
        with writing(self._engine) as connection:
            first = connection.scalar(select(func.min(document.c.place)))
            published = placed_so_far(connection) if first is None else first - 1
            insert_new_rows(connection, publication, [{"topic": self._topic, "published": published}])

    def pending(self, limit: int) -> Pending:
        """What comes next, at most `limit` documents of it. Raises StoreUnavailable."""
        with reading(self._engine) as connection:
            published = self._published(connection)
            newest = placed_so_far(connection)
            statement = select(*_COLUMNS).where(document.c.place > published).order_by(document.c.place).limit(limit)
            rows = connection.execute(statement).all() if newest > published else []
        until = rows[-1].place if rows else newest
        return Pending(tuple(map(_placed, rows)), until, until - published - len(rows), newest - published)

    def confirm(self, until: int, lease: Lease) -> None:
        """Moves the cursor. Raises Deposed, and changes nothing, when another instance publishes now; and StoreUnavailable."""
        with writing(self._engine) as connection:
            lease.prolong(connection)
            connection.execute(update(publication).where(publication.c.topic == self._topic).values(published=until))

    def _published(self, connection: Connection) -> int:
        return int(connection.execute(select(publication.c.published).where(publication.c.topic == self._topic)).scalar_one())


def _placed(row: Sequence[Any]) -> PlacedDocument:
    # By position: a look-up by name costs more than all that is done with what it finds.
    (
        document_key, _, kafka_topic, number, offset, received_ms, published_ms, uri, version, source, language, status, headline,
        entities, standing, story_id, label, tone, score_units, model, events,
    ) = row  # fmt: skip
    return PlacedDocument(
        document_key=document_key,
        partition=Partition(kafka_topic, number),
        offset=offset,
        received_ms=received_ms,
        published_ms=published_ms,
        uri=uri,
        version=version,
        source=source,
        language=language,
        status=status,
        headline=headline,
        standing=standing,
        story_id=story_id,
        topic=label,
        stance=Stance(tone, score_units),
        toward=tuple((entity, Stance(*said)) for entity, said in _TOWARD.decode(entities).items()),
        events=tuple(event[:3] for event in _EVENTS.decode(events)),
        model=model,
    )
