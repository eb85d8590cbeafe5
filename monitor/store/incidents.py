"""What an evaluation decided, made true in one transaction with the deliveries that follow from it; and read back."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence

from sqlalchemy import Connection, Engine, Row, delete, insert, or_, select

from alerts.types import AlertState, Delivery, DeliveryStatus, Evaluation, Incident, Phase, ResolveReason, RuleKind, Severity
from monitor.store.engine import reading, writing
from monitor.store.lease import Lease
from monitor.store.rows import insert_rows, upsert
from monitor.store.schema import alert_state, delivery, event_report, incident, incident_change, judgement
from monitor.types import Count, Reading, Report, Series, SeriesKind

_ONLY_ROW = 1


class Incidents:
    """The states of the rules, the incidents, and how far stream time has been judged."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def evaluated_until_ms(self) -> int | None:
        """The last minute of stream time that was judged; None before the first."""
        with reading(self._engine) as connection:
            return connection.scalar(select(judgement.c.evaluated_until_ms))

    def states(self) -> dict[tuple[str, Series], AlertState]:
        """Every state that is not inactive, a firing one with the incident that it opened."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(alert_state)).all()
            opened = connection.execute(
                select(incident).join(alert_state, alert_state.c.incident_id == incident.c.incident_id)
            ).all()
        incidents = {row.incident_id: _incident(row) for row in opened}
        found = (_state(row, incidents) for row in rows)
        return {(state.rule, state.series): state for state in found}

    def unheard(self) -> list[tuple[int, Report]]:
        """The reports that no rule has heard of yet, each with its number, in the order in which their documents were placed."""
        with reading(self._engine) as connection:
            rows = connection.execute(select(event_report).order_by(event_report.c.id)).all()
        return [
            (
                row.id,
                Report(row.at_ms, row.entity, row.category, row.severity, row.story_id, row.document_key, row.source, row.headline),
            )
            for row in rows
        ]

    def save(
        self,
        evaluations: Iterable[Evaluation],
        deliveries: Sequence[Delivery],
        evaluated_until_ms: int,
        lease: Lease,
        heard: int | None = None,
    ) -> None:
        """Makes these evaluations and their deliveries true together, and remembers that time was judged so far.

        Reports up to the number `heard` are done with. Raises Deposed, and changes nothing, when this instance no longer leads.
        """
        with writing(self._engine) as connection:
            lease.prolong(connection)
            for evaluation in evaluations:
                _save_states(connection, evaluation.states)
                _save_changes(connection, evaluation)
            insert_rows(connection, delivery, [_delivery_row(item) for item in deliveries])
            if heard is not None:
                connection.execute(delete(event_report).where(event_report.c.id <= heard))
            statement = upsert(connection, judgement).values(id=_ONLY_ROW, evaluated_until_ms=evaluated_until_ms)
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=["id"], set_={"evaluated_until_ms": statement.excluded.evaluated_until_ms}
                )
            )

    def incident(self, incident_id: str) -> Incident | None:
        """One incident, or None."""
        with reading(self._engine) as connection:
            row = connection.execute(select(incident).where(incident.c.incident_id == incident_id)).one_or_none()
        return None if row is None else _incident(row)

    def incidents(self, kind: RuleKind | None = None, *, since_ms: int | None = None, limit: int | None = None) -> list[Incident]:
        """Incidents, the newest first; where these are given, only of one kind, and only those open at `since_ms` or later."""
        statement = select(incident).order_by(incident.c.opened_at_ms.desc(), incident.c.incident_id).limit(limit)
        if kind is not None:
            statement = statement.where(incident.c.decided_by == str(kind))
        if since_ms is not None:
            statement = statement.where(or_(incident.c.resolved_at_ms.is_(None), incident.c.resolved_at_ms >= since_ms))
        with reading(self._engine) as connection:
            return [_incident(row) for row in connection.execute(statement)]


def _save_states(connection: Connection, states: Mapping[tuple[str, Series], AlertState | None]) -> None:
    for (rule, series), state in states.items():
        if state is None:
            connection.execute(
                delete(alert_state).where(
                    alert_state.c.rule == rule, alert_state.c.kind == str(series.kind), alert_state.c.name == series.name
                )
            )
            continue
        values = {
            "phase": str(state.phase),
            "since_ms": state.since_ms,
            "clear_since_ms": state.clear_since_ms,
            "unknown_since_ms": state.unknown_since_ms,
            "incident_id": state.incident_id,
        }
        statement = upsert(connection, alert_state).values(rule=rule, kind=str(series.kind), name=series.name, **values)
        connection.execute(statement.on_conflict_do_update(index_elements=["rule", "kind", "name"], set_=values))


def _save_changes(connection: Connection, evaluation: Evaluation) -> None:
    open_incidents = [state.incident for state in evaluation.states.values() if state is not None and state.incident is not None]
    for now in {one.incident_id: one for one in [*open_incidents, *(change.incident for change in evaluation.changes)]}.values():
        _save_incident(connection, now)
    for change in evaluation.changes:
        connection.execute(
            insert(incident_change).values(
                incident_id=change.incident.incident_id,
                sequence=change.sequence,
                kind=str(change.kind),
                at_ms=change.at_ms,
                reading=_reading_text(change.reading),
            )
        )


def _save_incident(connection: Connection, now: Incident) -> None:
    values = {
        "rule": now.rule,
        "decided_by": str(now.kind),
        "kind": str(now.series.kind),
        "name": now.series.name,
        "severity": str(now.severity),
        "opened_at_ms": now.opened_at_ms,
        "resolved_at_ms": now.resolved_at_ms,
        "resolve_reason": None if now.resolve_reason is None else str(now.resolve_reason),
        "summary": now.summary,
        "display": now.display,
        "labels": _json(now.labels),
        "annotations": _json(now.annotations),
        "reading": _reading_text(now.reading),
        "sequence": now.sequence,
        "evidence": _json(now.evidence),
    }
    statement = upsert(connection, incident).values(incident_id=now.incident_id, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=["incident_id"], set_=values))


def _json(value: Mapping[str, object]) -> str:
    return json.dumps(dict(value), ensure_ascii=False, sort_keys=True)


def _delivery_row(item: Delivery) -> dict[str, object]:
    return {
        "delivery_id": item.delivery_id,
        "receiver": item.receiver,
        "incident_id": item.incident_id,
        "sequence": item.sequence,
        "body": item.body,
        "created_at_ms": item.created_at_ms,
        "due_at_ms": item.due_at_ms,
        "attempts": item.attempts,
        "status": str(DeliveryStatus.DUE),
    }


def _state(row: Row[tuple[object, ...]], incidents: Mapping[str, Incident]) -> AlertState:
    return AlertState(
        rule=row.rule,
        series=Series(SeriesKind(row.kind), row.name),
        phase=Phase(row.phase),
        since_ms=row.since_ms,
        clear_since_ms=row.clear_since_ms,
        unknown_since_ms=row.unknown_since_ms,
        incident_id=row.incident_id,
        incident=incidents.get(row.incident_id),
    )


def _incident(row: Row[tuple[object, ...]]) -> Incident:
    series = Series(SeriesKind(row.kind), row.name)
    return Incident(
        incident_id=row.incident_id,
        rule=row.rule,
        series=series,
        severity=Severity(row.severity),
        opened_at_ms=row.opened_at_ms,
        resolved_at_ms=row.resolved_at_ms,
        resolve_reason=None if row.resolve_reason is None else ResolveReason(row.resolve_reason),
        summary=row.summary,
        display=row.display,
        labels=json.loads(row.labels),
        annotations=json.loads(row.annotations),
        reading=_reading(series, row.reading),
        kind=RuleKind(row.decided_by),
        sequence=row.sequence,
        evidence=json.loads(row.evidence),
    )


def _reading_text(value: Reading | None) -> str | None:
    if value is None:
        return None
    count = value.count
    return json.dumps(
        {
            "from_ms": value.from_ms,
            "until_ms": value.until_ms,
            "stories": count.stories,
            "copies": count.copies,
            "score_units": count.score_units,
        }
    )


def _reading(series: Series, text: str | None) -> Reading | None:
    if text is None:
        return None
    found = json.loads(text)
    count = Count(tuple(found["stories"]), tuple(found["copies"]), found["score_units"])
    return Reading(series, found["from_ms"], found["until_ms"], count)
