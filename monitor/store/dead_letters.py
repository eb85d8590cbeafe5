"""The records that were no documents, kept with position and reason until somebody reads them or they grow old."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, Row, select, update
from sqlalchemy.sql.functions import count

from monitor.store.engine import reading, writing
from monitor.store.schema import dead_letter
from monitor.types import Partition, RejectReason


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One rejected record. `excerpt` holds the whole value when it is as long as `size`."""

    number: int
    partition: Partition
    offset: int
    received_ms: int
    reason: RejectReason
    detail: str
    excerpt: bytes
    size: int
    replayed_at_ms: int | None

    @property
    def complete(self) -> bool:
        """Whether the whole record was kept, so that it can be replayed. A tombstone has nothing to replay."""
        return len(self.excerpt) == self.size and self.reason is not RejectReason.TOMBSTONE


class DeadLetters:
    """The dead letters in the database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def letters(self, reason: RejectReason | None = None, limit: int | None = None) -> Sequence[DeadLetter]:
        """Dead letters, the newest first."""
        statement = select(dead_letter).order_by(dead_letter.c.id.desc()).limit(limit)
        if reason is not None:
            statement = statement.where(dead_letter.c.reason == str(reason))
        with reading(self._engine) as connection:
            return [_letter(row) for row in connection.execute(statement)]

    def letter(self, number: int) -> DeadLetter | None:
        """One dead letter by its number, or None."""
        with reading(self._engine) as connection:
            row = connection.execute(select(dead_letter).where(dead_letter.c.id == number)).one_or_none()
        return None if row is None else _letter(row)

    def counts(self) -> Mapping[RejectReason, int]:
        """How many there are, by reason."""
        statement = select(dead_letter.c.reason, count()).group_by(dead_letter.c.reason)
        with reading(self._engine) as connection:
            return {RejectReason(reason): number for reason, number in connection.execute(statement)}

    def mark_replayed(self, numbers: Sequence[int], at_ms: int) -> None:
        """Remembers that these were sent again."""
        with writing(self._engine) as connection:
            for number in numbers:
                connection.execute(update(dead_letter).where(dead_letter.c.id == number).values(replayed_at_ms=at_ms))


def _letter(row: Row[tuple[object, ...]]) -> DeadLetter:
    return DeadLetter(
        number=row.id,
        partition=Partition(row.topic, row.number),
        offset=row.offset,
        received_ms=row.received_ms,
        reason=RejectReason(row.reason),
        detail=row.detail,
        excerpt=row.excerpt,
        size=row.size,
        replayed_at_ms=row.replayed_at_ms,
    )
