"""One scored batch in, one transaction out: positions, counts, stories, documents and dead letters become true together."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Engine, Row, insert, select, update
from sqlalchemy.sql.functions import count

from monitor.errors import Fenced
from monitor.sources.protocol import Interruption
from monitor.store.engine import reading, writing
from monitor.store.rows import insert_new_rows, insert_or_add, insert_or_replace, insert_rows, upsert
from monitor.store.schema import (
    NO_POSITION,
    bucket,
    dead_letter,
    document,
    interruption,
    log_partition,
    mention,
    story,
)
from monitor.stories import Placed, Placement, Standing, Story
from monitor.types import Bucket, Count, Partition, Rejected, Series, SeriesKind

_HEADLINE_CHARACTERS = 400
_KEYS_A_QUERY = 500  # SQLite's oldest limit on parameters is 999
_COUNT_COLUMNS = tuple(column.name for column in bucket.columns if not column.primary_key)


@dataclass(frozen=True, slots=True)
class Claim:
    """Our right to write for a partition, and what was saved of it.

    `next_offset` is None when nothing was ever read; `time_ms` is the partition's saved stream time.
    """

    partition: Partition
    epoch: int
    next_offset: int | None
    identity: str
    time_ms: int | None


@dataclass(frozen=True, slots=True)
class Advance:
    """How far one batch takes one partition, under which claim, and what became of the records on the way.

    `consumed = counted + stale + duplicate + rejected`.
    """

    partition: Partition
    epoch: int
    expected_offset: int | None
    next_offset: int
    identity: str
    time_ms: int
    consumed: int
    counted: int
    stale: int
    duplicate: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Saving:
    """Everything that one batch makes true."""

    advances: tuple[Advance, ...]
    placement: Placement
    buckets: tuple[Bucket, ...]
    rejected: tuple[Rejected, ...]
    model: str


class Ledger:
    """Positions and counts in the database. It is the `StoryShelf` that stories are looked up in."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def claim(self, partition: Partition, owner: str) -> Claim:
        """Takes a partition over: whoever held it before can no longer write for it."""
        with writing(self._engine) as connection:
            statement = upsert(connection, log_partition).values(
                topic=partition.topic,
                number=partition.number,
                epoch=1,
                owner=owner,
                identity="",
                next_offset=NO_POSITION,
                consumed=0,
                counted=0,
                stale=0,
                duplicate=0,
                rejected=0,
            )
            row = connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["topic", "number"], set_={"epoch": log_partition.c.epoch + 1, "owner": owner}
                ).returning(log_partition.c.epoch, log_partition.c.next_offset, log_partition.c.identity, log_partition.c.time_ms)
            ).one()
        return Claim(
            partition=partition,
            epoch=row.epoch,
            next_offset=None if row.next_offset == NO_POSITION else row.next_offset,
            identity=row.identity,
            time_ms=row.time_ms,
        )

    def interrupt(self, claim: Claim, found: Interruption, identity: str, at_ms: int) -> Claim:
        """Records a break in the log and moves the saved position behind it; the claim that is valid from now on.

        Raises Fenced when the partition is no longer ours.
        """
        with writing(self._engine) as connection:
            moved = {"next_offset": found.next_offset, "identity": identity}
            _move(connection, claim.partition, claim.epoch, claim.next_offset, moved)
            connection.execute(
                insert(interruption).values(
                    topic=claim.partition.topic,
                    number=claim.partition.number,
                    kind=str(found.kind),
                    expected_offset=found.expected_offset,
                    next_offset=found.next_offset,
                    found_at_ms=at_ms,
                )
            )
        return Claim(claim.partition, claim.epoch, found.next_offset, identity, claim.time_ms)

    def save(self, saving: Saving) -> None:
        """Makes the batch true as a whole. Raises Fenced, and changes nothing, when one of its partitions is no longer ours."""
        with writing(self._engine) as connection:
            for advance in sorted(saving.advances, key=lambda advance: advance.partition):
                _advance(connection, advance)
            _add_buckets(connection, saving.buckets)
            _save_stories(connection, saving.placement.stories)
            _save_documents(connection, saving.placement.placed, saving.model)
            insert_rows(connection, dead_letter, [_dead_letter_row(rejected) for rejected in saving.rejected])

    def stories(self, ids: Collection[int]) -> Mapping[int, Story]:
        """The stories of these ids, as far as they exist."""
        found: dict[int, Story] = {}
        with reading(self._engine) as connection:
            for part in _parts(ids):
                for row in connection.execute(select(story).where(story.c.story_id.in_(part))):
                    found[row.story_id] = _story(row)
        return found

    def known_documents(self, keys: Collection[int]) -> set[int]:
        """Which of these document keys were saved before."""
        known: set[int] = set()
        with reading(self._engine) as connection:
            for part in _parts(keys):
                known.update(connection.scalars(select(document.c.document_key).where(document.c.document_key.in_(part))))
        return known

    def story_keys(self, since_ms: int) -> Iterator[tuple[int, int, bytes]]:
        """(story id, first received, keys) of every story that began at or after `since_ms`, oldest first."""
        statement = (
            select(story.c.story_id, story.c.first_received_ms, story.c.band_keys)
            .where(story.c.first_received_ms >= since_ms)
            .order_by(story.c.first_received_ms)
        )
        with reading(self._engine) as connection:
            for row in connection.execution_options(yield_per=10_000).execute(statement):
                yield row.story_id, row.first_received_ms, row.band_keys

    def buckets(self, since_ms: int) -> Iterator[Bucket]:
        """Every bucket whose minute begins at or after `since_ms`, oldest first."""
        statement = select(bucket).where(bucket.c.minute_ms >= since_ms).order_by(bucket.c.minute_ms)
        with reading(self._engine) as connection:
            for row in connection.execution_options(yield_per=10_000).execute(statement):
                yield _bucket(row)

    def sources(self, series: Series, window_ms: int, until_ms: int) -> int:
        """Distinct sources of the documents that count in [until_ms - window_ms, until_ms) of a series."""
        statement = select(count(document.c.source.distinct())).where(
            document.c.received_ms >= until_ms - window_ms,
            document.c.received_ms < until_ms,
            document.c.standing.in_([str(Standing.STORY), str(Standing.COPY)]),
        )
        if series.kind is SeriesKind.TOPIC:
            statement = statement.where(document.c.label == series.name)
        elif series.kind is SeriesKind.ENTITY:
            statement = statement.join(mention, mention.c.document_key == document.c.document_key).where(
                mention.c.entity == series.name,
                mention.c.received_ms >= until_ms - window_ms,
                mention.c.received_ms < until_ms,
            )
        with reading(self._engine) as connection:
            return connection.scalar(statement) or 0

    def newest_ms(self) -> int | None:
        """The newest stream time of any partition; None while nothing was saved."""
        with reading(self._engine) as connection:
            times = [time_ms for time_ms in connection.scalars(select(log_partition.c.time_ms)) if time_ms is not None]
        return max(times, default=None)


def _move(
    connection: Connection, partition: Partition, epoch: int, expected_offset: int | None, values: Mapping[str, object]
) -> None:
    """The guard: one row must carry our epoch and the offset that we read on from, or another instance is at work."""
    moved = connection.execute(
        update(log_partition)
        .where(
            log_partition.c.topic == partition.topic,
            log_partition.c.number == partition.number,
            log_partition.c.epoch == epoch,
            log_partition.c.next_offset == (NO_POSITION if expected_offset is None else expected_offset),
        )
        .values(**values)
    ).rowcount
    if moved != 1:
        raise Fenced(f"{partition} was taken over by another instance (our epoch {epoch})")


def _advance(connection: Connection, advance: Advance) -> None:
    table = log_partition.c
    _move(
        connection,
        advance.partition,
        advance.epoch,
        advance.expected_offset,
        {
            "next_offset": advance.next_offset,
            "identity": advance.identity,
            "time_ms": advance.time_ms,
            "consumed": table.consumed + advance.consumed,
            "counted": table.counted + advance.counted,
            "stale": table.stale + advance.stale,
            "duplicate": table.duplicate + advance.duplicate,
            "rejected": table.rejected + advance.rejected,
        },
    )


def _add_buckets(connection: Connection, buckets: Iterable[Bucket]) -> None:
    insert_or_add(connection, bucket, [_bucket_row(item) for item in buckets], _COUNT_COLUMNS)


def _bucket_row(item: Bucket) -> dict[str, object]:
    values = (*item.count.stories, *item.count.copies, item.count.score_units)
    return {
        "minute_ms": item.minute_ms,
        "kind": str(item.series.kind),
        "name": item.series.name,
        "topic": item.partition.topic,
        "number": item.partition.number,
        **dict(zip(_COUNT_COLUMNS, values, strict=True)),
    }


def _bucket(row: Row[tuple[object, ...]]) -> Bucket:
    numbers = [getattr(row, name) for name in _COUNT_COLUMNS]
    stories, copies = numbers[0:4], numbers[4:8]
    return Bucket(
        partition=Partition(row.topic, row.number),
        minute_ms=row.minute_ms,
        series=Series(SeriesKind(row.kind), row.name),
        count=Count((*stories,), (*copies,), numbers[8]),
    )


def _save_stories(connection: Connection, stories: Iterable[Story]) -> None:
    rows = [
        {
            "story_id": item.story_id,
            "first_received_ms": item.first_received_ms,
            "last_received_ms": item.last_received_ms,
            "documents": item.documents,
            "shingles": item.shingles,
            "band_keys": item.keys,
            "series": json.dumps(sorted(map(str, item.series)), ensure_ascii=False),
        }
        for item in stories
    ]
    insert_or_replace(connection, story, rows, ("last_received_ms", "documents", "series"))


def _story(row: Row[tuple[object, ...]]) -> Story:
    series = (text.partition(":") for text in json.loads(row.series))
    return Story(
        story_id=row.story_id,
        first_received_ms=row.first_received_ms,
        last_received_ms=row.last_received_ms,
        documents=row.documents,
        shingles=row.shingles,
        keys=row.band_keys,
        series=frozenset(Series(SeriesKind(kind), name) for kind, _, name in series),
    )


def _save_documents(connection: Connection, placed: Iterable[Placed], model: str) -> None:
    fresh = [item for item in placed if item.standing is not Standing.DUPLICATE]
    insert_new_rows(connection, document, [_document_row(item, model) for item in fresh])
    mentions = [
        {
            "entity": entity,
            "received_ms": item.scored.document.received_ms,
            "document_key": item.document_key,
            "tone": item.scored.prediction.opinion(entity).tone,
            "score_units": item.scored.prediction.opinion(entity).score_units,
        }
        for item in fresh
        if item.standing is not Standing.STALE
        for entity in item.scored.document.entities
    ]
    insert_new_rows(connection, mention, mentions)


def _document_row(item: Placed, model: str) -> dict[str, object]:
    news, prediction = item.scored.document, item.scored.prediction
    return {
        "document_key": item.document_key,
        "topic": news.partition.topic,
        "number": news.partition.number,
        "offset": news.offset,
        "received_ms": news.received_ms,
        "published_ms": news.published_ms,
        "uri": news.uri,
        "version": news.version,
        "source": news.source,
        "language": news.language,
        "status": str(news.status),
        "headline": (news.headline or news.body)[:_HEADLINE_CHARACTERS],
        "entities": json.dumps(news.entities),
        "standing": str(item.standing),
        "story_id": item.story_id,
        "label": prediction.topic,
        "tone": prediction.document.tone,
        "score_units": prediction.document.score_units,
        "model": model,
    }


def _dead_letter_row(rejected: Rejected) -> dict[str, object]:
    return {
        "topic": rejected.partition.topic,
        "number": rejected.partition.number,
        "offset": rejected.offset,
        "received_ms": rejected.received_ms,
        "reason": str(rejected.reason),
        "detail": rejected.detail,
        "excerpt": rejected.excerpt,
        "size": rejected.size,
        "replayed_at_ms": None,
    }


def _parts(values: Collection[int]) -> Iterator[list[int]]:
    ordered = sorted(values)
    for start in range(0, len(ordered), _KEYS_A_QUERY):
        yield ordered[start : start + _KEYS_A_QUERY]
