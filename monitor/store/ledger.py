"""A batch in, one transaction out: positions, scored documents and dead letters become true together.

So do, when the documents' turn has come, their places in stories, their counts, and that they wait no longer.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Engine, Row, Select, func, insert, literal, select, tuple_, update
from sqlalchemy.sql.functions import count
from sqlalchemy.sql.functions import sum as sum_of

from monitor.errors import Fenced
from monitor.sources.protocol import Interruption
from monitor.store.engine import database_ms, reading, writing
from monitor.store.lease import Lease
from monitor.store.rows import delete_rows, insert_new_rows, insert_or_add, insert_or_replace, insert_rows, upsert
from monitor.store.schema import (
    NO_POSITION,
    bucket,
    dead_letter,
    document,
    event_report,
    interruption,
    log_partition,
    mention,
    scored,
    story,
    tally,
)
from monitor.stories import Placed, Placement, Standing, Story
from monitor.types import HOUR_MS, Bucket, Count, Partition, Rejected, Scored, Series, SeriesKind, StoryView, Turn
from monitor.watermark import Progress, Quiet

_KEYS_A_QUERY: Final = 500  # SQLite's oldest limit on parameters is 999
_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(Scored)
_COUNT_COLUMNS: Final = tuple(column.name for column in bucket.columns if not column.primary_key)


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
    """How far one batch takes one partition, under which claim; `consumed` records on the way, `rejected` of them dead letters."""

    partition: Partition
    epoch: int
    expected_offset: int | None
    next_offset: int
    identity: str
    time_ms: int
    consumed: int
    rejected: int


@dataclass(frozen=True, slots=True)
class Saving:
    """Everything that one batch makes true."""

    advances: tuple[Advance, ...]
    scored: tuple[Scored, ...]
    rejected: tuple[Rejected, ...]


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
                rejected=0,
                quiet_ms=0,
                reported_at_ms=database_ms(connection),
            )
            row = connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["topic", "number"],
                    set_={
                        "epoch": log_partition.c.epoch + 1,
                        "owner": owner,
                        "quiet_ms": 0,
                        "complete_ms": None,
                        "reported_at_ms": statement.excluded.reported_at_ms,
                    },
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
            now_ms = database_ms(connection)
            for advance in sorted(saving.advances, key=lambda advance: advance.partition):
                _advance(connection, advance, now_ms)
            insert_rows(connection, scored, [_scored_row(item) for item in saving.scored])
            insert_rows(connection, dead_letter, [_dead_letter_row(rejected) for rejected in saving.rejected])

    def report(self, claims: Iterable[Claim], quiet: Mapping[Partition, Quiet]) -> None:
        """Tells for each claim how silent its partition is. A claim that was lost tells nothing."""
        table = log_partition.c
        with writing(self._engine) as connection:
            now_ms = database_ms(connection)
            for claim in sorted(claims, key=lambda claim: claim.partition):
                told = quiet.get(claim.partition, Quiet())
                connection.execute(
                    update(log_partition)
                    .where(
                        table.topic == claim.partition.topic,
                        table.number == claim.partition.number,
                        table.epoch == claim.epoch,
                    )
                    .values(quiet_ms=told.quiet_ms, complete_ms=told.complete_ms, reported_at_ms=now_ms)
                )

    def progress(self) -> dict[Partition, Progress]:
        """How far each partition that was ever claimed is."""
        with reading(self._engine) as connection:
            return {
                Partition(row.topic, row.number): Progress(
                    row.time_ms, row.next_offset, Quiet(row.quiet_ms, row.complete_ms), row.reported_at_ms
                )
                for row in connection.execute(select(log_partition))
            }

    def waiting(self, before: Turn, limit: int) -> list[Scored]:
        """At most `limit` scored documents whose turn comes before `before`, in the order of turns."""
        place = (scored.c.received_ms, scored.c.topic, scored.c.number, scored.c.offset)
        statement = select(scored.c.content).where(tuple_(*place) < before).order_by(*place).limit(limit)
        with reading(self._engine) as connection:
            return [_DECODER.decode(content) for content in connection.scalars(statement)]

    def settle(self, placement: Placement, buckets: Sequence[Bucket], lease: Lease) -> None:
        """Makes the places of documents whose turn has come true: they wait no longer.

        Raises Deposed, and changes nothing, when this instance no longer leads.
        """
        with writing(self._engine) as connection:
            lease.prolong(connection)
            _take_out(connection, [item.scored for item in placement.placed])
            _add_buckets(connection, buckets)
            _save_stories(connection, placement.stories)
            _save_documents(connection, placement.placed, placed_so_far(connection))
            _add_tallies(connection, placement.placed)
            insert_rows(connection, event_report, list(_report_rows(placement.placed)))

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
        for row in self._stream(statement):
            yield row.story_id, row.first_received_ms, row.band_keys

    def buckets(self, since_ms: int) -> Iterator[Bucket]:
        """Every bucket whose minute begins at or after `since_ms`, oldest first."""
        return map(_bucket, self._stream(select(bucket).where(bucket.c.minute_ms >= since_ms).order_by(bucket.c.minute_ms)))

    def hours(self, since_ms: int) -> Iterator[Bucket]:
        """The buckets from `since_ms` on, added up: one for each hour and series, of no partition."""
        hour_ms = (bucket.c.minute_ms - bucket.c.minute_ms % HOUR_MS).label("minute_ms")
        sums = [sum_of(bucket.c[name]).label(name) for name in _COUNT_COLUMNS]
        statement = (
            select(hour_ms, bucket.c.kind, bucket.c.name, literal("").label("topic"), literal(0).label("number"), *sums)
            .where(bucket.c.minute_ms >= since_ms)
            .group_by(hour_ms, bucket.c.kind, bucket.c.name)
        )
        return map(_bucket, self._stream(statement))

    def sources(self, series: Series, window_ms: int, until_ms: int) -> int:
        """Distinct sources of the documents that count in [until_ms - window_ms, until_ms) of a series."""
        statement = _of_window(select(count(document.c.source.distinct())), series, until_ms - window_ms, until_ms)
        with reading(self._engine) as connection:
            return connection.scalar(statement) or 0

    def story_views(self, series: Series, window_ms: int, until_ms: int) -> list[StoryView]:
        """The stories of these documents: negative ones first, then those with most documents, the earliest."""
        tone = mention.c.tone if series.kind is SeriesKind.ENTITY else document.c.tone
        columns = (document.c.story_id, document.c.headline, document.c.received_ms, document.c.source)
        statement = _of_window(
            select(*columns, document.c.document_key, document.c.model, tone.label("tone")),
            series,
            until_ms - window_ms,
            until_ms,
        ).order_by(document.c.received_ms, document.c.topic, document.c.number, document.c.offset)
        told: dict[int, list[Row[tuple[object, ...]]]] = {}
        with reading(self._engine) as connection:
            for row in connection.execute(statement):
                told.setdefault(row.story_id, []).append(row)
        views = [_story_view(rows) for rows in told.values()]
        return sorted(views, key=lambda view: (view.tone != "negative", -view.copies, view.at_ms, view.story_id))

    def newest_ms(self) -> int | None:
        """The newest stream time of any partition; None while nothing was saved."""
        with reading(self._engine) as connection:
            times = [time_ms for time_ms in connection.scalars(select(log_partition.c.time_ms)) if time_ms is not None]
        return max(times, default=None)

    def _stream(self, statement: Select[Any]) -> Iterator[Row[Any]]:
        """The rows of what may be too much to hold at once."""
        with reading(self._engine) as connection:
            yield from connection.execution_options(yield_per=10_000).execute(statement)


def placed_so_far(connection: Connection) -> int:
    """How many documents were placed and are no duplicates, since the tables are there, pruned or not: the newest one's place."""
    placed = func.coalesce(func.sum(tally.c.stories + tally.c.copies + tally.c.stale), 0)
    return int(connection.execute(select(placed)).scalar_one())


def _of_window(statement: Select[Any], series: Series, from_ms: int, until_ms: int) -> Select[Any]:
    """Of the documents only those that count in [from_ms, until_ms) of a series."""
    statement = statement.where(
        document.c.received_ms >= from_ms,
        document.c.received_ms < until_ms,
        document.c.standing.in_([str(Standing.STORY), str(Standing.COPY)]),
    )
    if series.kind is SeriesKind.TOPIC:
        return statement.where(document.c.label == series.name)
    if series.kind is SeriesKind.ENTITY:
        return statement.join(mention, mention.c.document_key == document.c.document_key).where(
            mention.c.entity == series.name,
            mention.c.received_ms >= from_ms,
            mention.c.received_ms < until_ms,
        )
    return statement


def _story_view(rows: Sequence[Any]) -> StoryView:
    """A story from the rows of its documents, the earliest first."""
    first = rows[0]
    return StoryView(
        story_id=first.story_id,
        headline=first.headline,
        tone=first.tone,
        at_ms=first.received_ms,
        sources=tuple(dict.fromkeys(row.source for row in rows)),
        copies=len(rows) - 1,
        document_key=first.document_key,
        model=first.model,
    )


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


def _advance(connection: Connection, advance: Advance, now_ms: int) -> None:
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
            "rejected": table.rejected + advance.rejected,
            "quiet_ms": 0,
            "complete_ms": None,
            "reported_at_ms": now_ms,
        },
    )


def _scored_row(item: Scored) -> dict[str, object]:
    received_ms, topic, number, offset = item.turn
    return {
        "received_ms": received_ms,
        "topic": topic,
        "number": number,
        "offset": offset,
        "content": _ENCODER.encode(item),
    }


def _take_out(connection: Connection, items: Iterable[Scored]) -> None:
    """They wait no longer. By their keys, because what came meanwhile may lie between them."""
    keys = [dict(zip(("received_ms", "topic", "number", "offset"), item.turn, strict=True)) for item in items]
    delete_rows(connection, scored, keys)


def _add_tallies(connection: Connection, placed: Iterable[Placed]) -> None:
    counted = Counter((item.scored.partition, item.standing) for item in placed)
    rows = [
        {
            "topic": partition.topic,
            "number": partition.number,
            "stories": counted[partition, Standing.STORY],
            "copies": counted[partition, Standing.COPY],
            "stale": counted[partition, Standing.STALE],
            "duplicates": counted[partition, Standing.DUPLICATE],
        }
        for partition in sorted({partition for partition, _ in counted})
    ]
    insert_or_add(connection, tally, rows, ("stories", "copies", "stale", "duplicates"))


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


def _save_documents(connection: Connection, placed: Iterable[Placed], before: int) -> None:
    """Saves the documents, numbered from behind `before` on."""
    fresh = [item for item in placed if item.standing is not Standing.DUPLICATE]
    insert_new_rows(connection, document, [_document_row(item, place) for place, item in enumerate(fresh, before + 1)])
    mentions = [
        {
            "entity": entity,
            "received_ms": item.scored.received_ms,
            "document_key": item.scored.document_key,
            "tone": stance.tone,
            "score_units": stance.score_units,
        }
        for item in fresh
        if item.standing is not Standing.STALE
        for entity, stance in item.scored.toward
    ]
    insert_new_rows(connection, mention, mentions)


def _document_row(item: Placed, place: int) -> dict[str, object]:
    news = item.scored
    return {
        "document_key": news.document_key,
        "place": place,
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
        "headline": news.headline,
        "entities": json.dumps({entity: (stance.tone, stance.score_units) for entity, stance in news.toward}, ensure_ascii=False),
        "standing": str(item.standing),
        "story_id": item.story_id,
        "label": news.topic,
        "tone": news.stance.tone,
        "score_units": news.stance.score_units,
        "model": news.model,
        "events": json.dumps([[told.entity, told.category, told.severity, told.negative_units] for told in news.events]),
    }


def _report_rows(placed: Iterable[Placed]) -> Iterator[dict[str, object]]:
    """What the counted documents tell of severe events, in their order."""
    for item in placed:
        for event in item.scored.events if item.story_id is not None else ():
            yield {
                "at_ms": item.scored.received_ms,
                "entity": event.entity,
                "category": event.category,
                "severity": event.severity,
                "story_id": item.story_id,
                "document_key": item.scored.document_key,
                "source": item.scored.source,
                "headline": item.scored.headline,
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
