"""Incidents in, JSON lines out: what a backtest leaves for other programs."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec

from alerts.types import Incident
from monitor.types import SeriesKind


def line(incident: Incident) -> bytes:
    """One JSON object, ending in a line feed.

    `topic` is the label, `entity` the name of the watched entity and `entity_id` its id in the watch list, each null where the
    incident is not about one. Times are RFC 3339 in UTC; `resolved_at` is null for what was open at the end of the archive.
    """
    series = incident.series
    told: dict[str, Any] = {
        "incident_id": incident.incident_id,
        "rule": incident.rule,
        "kind": incident.kind,
        "severity": incident.severity,
        "topic": series.name if series.kind is SeriesKind.TOPIC else None,
        "entity": (incident.display or series.name) if series.kind is SeriesKind.ENTITY else None,
        "entity_id": series.name if series.kind is SeriesKind.ENTITY else None,
        "opened_at": utc(incident.opened_at_ms),
        "resolved_at": None if incident.resolved_at_ms is None else utc(incident.resolved_at_ms),
        "summary": incident.summary,
    }
    return msgspec.json.encode(told) + b"\n"


def utc(time_ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC."""
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
