"""A database of an older version to one of this version, one version after the other, in one transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from sqlalchemy import Connection, Table, text

from monitor.store.schema import event_report, lease, publication, scored, tally

Step = Callable[[Connection], None]


def _wait_for_turns(connection: Connection) -> None:
    """From 2 to 3: scored documents wait for their turn, and one instance leads."""
    for table in (scored, tally, lease):
        _create(connection, table)
    connection.execute(
        text(
            "INSERT INTO tally (topic, number, stories, copies, stale, duplicates) "
            "SELECT topic, number, counted, 0, stale, duplicate FROM log_partition"
        )
    )
    for column in ("counted", "stale", "duplicate"):
        connection.execute(text(f"ALTER TABLE log_partition DROP COLUMN {column}"))
    for column in ("quiet_ms BIGINT NOT NULL DEFAULT 0", "complete_ms BIGINT", "reported_at_ms BIGINT NOT NULL DEFAULT 0"):
        connection.execute(text(f"ALTER TABLE log_partition ADD COLUMN {column}"))


def _hear_of_events(connection: Connection) -> None:
    """From 3 to 4: documents tell severe events, the rules hear of them, and incidents keep what they were decided from.

    And documents are numbered as they are placed, for who publishes them in that order; those that are there have no number.
    """
    for table in (publication, event_report):
        _create(connection, table)
    columns = {
        "document": ("events TEXT NOT NULL DEFAULT '[]'", "place BIGINT"),
        "incident": (
            "decided_by TEXT NOT NULL DEFAULT 'threshold'",
            "sequence INTEGER NOT NULL DEFAULT 1",
            "evidence TEXT NOT NULL DEFAULT '{}'",
        ),
    }
    for table_name, added in columns.items():
        for column in added:
            connection.execute(text(f"ALTER TABLE {table_name} ADD COLUMN {column}"))
    connection.execute(text("UPDATE incident SET sequence = 2 WHERE resolved_at_ms IS NOT NULL"))
    connection.execute(text("CREATE UNIQUE INDEX document_place ON document (place)"))


STEPS: Final[Mapping[int, Step]] = {2: _wait_for_turns, 3: _hear_of_events}
"""From which version each step leads to the next."""


def _create(connection: Connection, table: Table) -> None:
    table.create(connection)
