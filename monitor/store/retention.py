"""Old rows out, in small transactions, so that nobody waits long for a lock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Column, ColumnElement, Engine, Table, and_, delete, select, tuple_

from alerts.types import DeliveryStatus
from monitor.config import StoreSettings
from monitor.store.engine import writing
from monitor.store.schema import bucket, dead_letter, delivery, document, mention, story

_ROWS_A_TRANSACTION: Final = 5_000


@dataclass(frozen=True, slots=True)
class Limit:
    """Rows of `table` that meet `condition` are deleted."""

    table: Table
    condition: ColumnElement[bool]


def prune(engine: Engine, settings: StoreSettings, stream_ms: int, now_ms: int) -> dict[str, int]:
    """Deletes what is older than the settings allow; rows deleted by table.

    What is dated by stream time is held against `stream_ms` (the newest that was saved), so that an old archive is not pruned while
    it is replayed; deliveries are held against the wall clock, `now_ms`. Open deliveries, incidents and states are never deleted.
    """

    def before(column: Column[int], age_s: float, now_ms: int = stream_ms) -> ColumnElement[bool]:
        return column < now_ms - round(age_s * 1000)

    documents_s = settings.keep_documents.total_seconds()
    limits = (
        Limit(mention, before(mention.c.received_ms, documents_s)),
        Limit(document, before(document.c.received_ms, documents_s)),
        Limit(story, before(story.c.first_received_ms, documents_s)),
        Limit(bucket, before(bucket.c.minute_ms, settings.keep_buckets.total_seconds())),
        Limit(dead_letter, before(dead_letter.c.received_ms, settings.keep_dead_letters.total_seconds())),
        Limit(
            delivery,
            and_(
                delivery.c.status != str(DeliveryStatus.DUE),
                before(delivery.c.finished_at_ms, settings.keep_deliveries.total_seconds(), now_ms),
            ),
        ),
    )
    return {limit.table.name: _delete(engine, limit) for limit in limits}


def _delete(engine: Engine, limit: Limit) -> int:
    keys = tuple(limit.table.primary_key.columns)
    total = 0
    while True:
        some = select(*keys).where(limit.condition).limit(_ROWS_A_TRANSACTION)
        with writing(engine) as connection:
            deleted = connection.execute(delete(limit.table).where(tuple_(*keys).in_(some))).rowcount
        total += deleted
        if deleted < _ROWS_A_TRANSACTION:
            return total
