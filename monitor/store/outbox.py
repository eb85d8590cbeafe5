"""The outbox as rows: what is due, what became of each attempt, which receivers are disabled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Engine, Row, and_, exists, or_, select, update
from sqlalchemy.sql.functions import count
from sqlalchemy.sql.functions import min as minimum

from alerts.types import Attempt, ChangeKind, Delivery, DeliveryStatus
from monitor.store.engine import reading, writing
from monitor.store.rows import upsert
from monitor.store.schema import delivery, incident, incident_change, receiver_state

_DUE = str(DeliveryStatus.DUE)


@dataclass(frozen=True, slots=True)
class OutboxRow:
    """A delivery with what became of it, for a person to read. `last_result` is None before the first attempt."""

    delivery: Delivery
    status: DeliveryStatus
    last_result: str | None
    last_status_code: int | None
    last_detail: str | None
    finished_at_ms: int | None
    disabled_reason: str | None


class SqlOutbox:
    """The `alerts.outbox.Outbox` in the database."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def due(self, now_ms: int, limit: int) -> list[Delivery]:
        """Deliveries to try now, the longest due first; of one incident and receiver only the first that is not finished."""
        statement = select(delivery).where(delivery.c.due_at_ms <= now_ms, *_open()).order_by(delivery.c.due_at_ms).limit(limit)
        with reading(self._engine) as connection:
            return [_delivery(row) for row in connection.execute(statement)]

    def hold(self, due: Delivery, until_ms: int) -> bool:
        """As `Outbox.hold`: whoever finds the due time as it was is the only one."""
        unchanged = and_(delivery.c.status == _DUE, delivery.c.due_at_ms == due.due_at_ms)
        with writing(self._engine) as connection:
            held = connection.execute(
                update(delivery).where(delivery.c.delivery_id == due.delivery_id, unchanged).values(due_at_ms=until_ms)
            )
        return held.rowcount == 1

    def next_due_at_ms(self) -> int | None:
        """When the next delivery becomes due; None when none is waiting."""
        with reading(self._engine) as connection:
            due_at_ms: int | None = connection.scalar(select(minimum(delivery.c.due_at_ms)).where(*_open()))
        return due_at_ms

    def record(self, delivery_id: str, attempt: Attempt, status: DeliveryStatus, due_at_ms: int | None, at_ms: int) -> None:
        """Writes down one attempt and what follows from it; `due_at_ms` is the next try of a delivery that stays due."""
        values: dict[str, object] = {
            "attempts": delivery.c.attempts + 1,
            "status": str(status),
            "last_result": str(attempt.result),
            "last_status_code": attempt.status_code,
            "last_detail": attempt.detail,
        }
        if status is DeliveryStatus.DUE:
            values["due_at_ms"] = due_at_ms if due_at_ms is not None else at_ms
        else:
            values["finished_at_ms"] = at_ms
        with writing(self._engine) as connection:
            connection.execute(update(delivery).where(delivery.c.delivery_id == delivery_id).values(**values))

    def disable(self, receiver: str, reason: str, at_ms: int) -> None:
        """Sends nothing more to a receiver, and abandons what waits for it with the reason, until `enable`."""
        with writing(self._engine) as connection:
            statement = upsert(connection, receiver_state).values(receiver=receiver, disabled_at_ms=at_ms, reason=reason)
            connection.execute(
                statement.on_conflict_do_update(index_elements=["receiver"], set_={"disabled_at_ms": at_ms, "reason": reason})
            )
            connection.execute(
                update(delivery)
                .where(delivery.c.receiver == receiver, delivery.c.status == _DUE)
                .values(status=str(DeliveryStatus.ABANDONED), last_detail=reason, finished_at_ms=at_ms)
            )

    def enable(self, receiver: str) -> bool:
        """Lets a disabled receiver have new deliveries again; False when it was not disabled."""
        with writing(self._engine) as connection:
            removed = connection.execute(receiver_state.delete().where(receiver_state.c.receiver == receiver))
        return removed.rowcount > 0

    def standing(self, receiver: str, ended_since_ms: int) -> list[Delivery]:
        """As `alerts.remind.Standing`: the last message about each open incident, and those that told an end since then."""
        later = delivery.alias("later")
        statement = (
            select(delivery)
            .join(incident, incident.c.incident_id == delivery.c.incident_id)
            .join(
                incident_change,
                and_(incident_change.c.incident_id == delivery.c.incident_id, incident_change.c.sequence == delivery.c.sequence),
            )
            .where(
                delivery.c.receiver == receiver,
                or_(
                    incident.c.resolved_at_ms.is_(None),
                    and_(incident_change.c.kind == str(ChangeKind.RESOLVED), delivery.c.created_at_ms >= ended_since_ms),
                ),
                ~exists().where(
                    and_(
                        later.c.receiver == delivery.c.receiver,
                        later.c.incident_id == delivery.c.incident_id,
                        later.c.sequence > delivery.c.sequence,
                    )
                ),
                ~exists().where(receiver_state.c.receiver == delivery.c.receiver),
            )
            .order_by(delivery.c.created_at_ms, delivery.c.delivery_id)
        )
        with reading(self._engine) as connection:
            return [_delivery(row) for row in connection.execute(statement)]

    def retry(self, delivery_id: str, at_ms: int) -> bool:
        """Makes an abandoned delivery due again, now; False when there is no such delivery to retry."""
        with writing(self._engine) as connection:
            changed = connection.execute(
                update(delivery)
                .where(delivery.c.delivery_id == delivery_id, delivery.c.status == str(DeliveryStatus.ABANDONED))
                .values(status=_DUE, due_at_ms=at_ms, created_at_ms=at_ms, finished_at_ms=None)
            )
        return changed.rowcount == 1

    def rows(self, status: DeliveryStatus | None = None, limit: int | None = None) -> Sequence[OutboxRow]:
        """The outbox as a person wants to see it: the newest first."""
        statement = (
            select(delivery, receiver_state.c.reason)
            .outerjoin(receiver_state, receiver_state.c.receiver == delivery.c.receiver)
            .order_by(delivery.c.created_at_ms.desc(), delivery.c.incident_id, delivery.c.sequence.desc())
            .limit(limit)
        )
        if status is not None:
            statement = statement.where(delivery.c.status == str(status))
        with reading(self._engine) as connection:
            return [
                OutboxRow(
                    delivery=_delivery(row),
                    status=DeliveryStatus(row.status),
                    last_result=row.last_result,
                    last_status_code=row.last_status_code,
                    last_detail=row.last_detail,
                    finished_at_ms=row.finished_at_ms,
                    disabled_reason=row.reason,
                )
                for row in connection.execute(statement)
            ]

    def waiting(self) -> int:
        """How many deliveries are not finished."""
        with reading(self._engine) as connection:
            return connection.scalar(select(count()).select_from(delivery).where(delivery.c.status == _DUE)) or 0


def _open() -> tuple[ColumnElement[bool], ...]:
    """Not finished, not behind an earlier unfinished one of its incident and receiver, receiver not disabled."""
    earlier = delivery.alias("earlier")
    return (
        delivery.c.status == _DUE,
        ~exists().where(
            and_(
                earlier.c.receiver == delivery.c.receiver,
                earlier.c.incident_id == delivery.c.incident_id,
                earlier.c.sequence < delivery.c.sequence,
                earlier.c.status == _DUE,
            )
        ),
        ~exists().where(receiver_state.c.receiver == delivery.c.receiver),
    )


def _delivery(row: Row[tuple[object, ...]]) -> Delivery:
    return Delivery(
        delivery_id=row.delivery_id,
        receiver=row.receiver,
        incident_id=row.incident_id,
        sequence=row.sequence,
        body=row.body,
        created_at_ms=row.created_at_ms,
        due_at_ms=row.due_at_ms,
        attempts=row.attempts,
    )
