"""Rows in, one statement out that inserts them all, in the dialect of the connection.

SQLite runs a prepared statement once per row. PostgreSQL gets one array per column: one round trip and one plan for a whole
batch, whatever its size. Rows go in by rising key, so that two instances that write the same rows wait for each other and never
deadlock.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import Connection, Table, bindparam, column, delete, func, insert, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.selectable import TableValuedAlias

RowValues = Mapping[str, object]
"""The values of one row by column; all rows of a call name the same columns."""


def insert_rows(connection: Connection, table: Table, rows: Sequence[RowValues]) -> None:
    """Inserts rows that must be new. Raises StoreError where one is not."""
    if rows:
        _run(connection, table, _sorted(table, rows), insert(table))


def insert_new_rows(connection: Connection, table: Table, rows: Sequence[RowValues]) -> None:
    """Inserts the rows whose key is not there yet; the others change nothing."""
    if rows:
        _run(connection, table, _sorted(table, rows), upsert(connection, table).on_conflict_do_nothing())


def insert_or_add(connection: Connection, table: Table, rows: Sequence[RowValues], added: Collection[str]) -> None:
    """Inserts rows; where one is there already its `added` columns grow by the new values. No two rows may have the same key."""
    _insert_or_change(connection, table, rows, added, "add")


def insert_or_replace(connection: Connection, table: Table, rows: Sequence[RowValues], replaced: Collection[str]) -> None:
    """Inserts rows; where one is there already its `replaced` columns take the new values. No two rows may have the same key."""
    _insert_or_change(connection, table, rows, replaced, "replace")


def delete_rows(connection: Connection, table: Table, keys: Sequence[RowValues]) -> None:
    """Deletes the rows with these values in the columns that `keys` name; what is not there is no fault."""
    if not keys:
        return
    names = list(keys[0])
    if connection.dialect.name != "postgresql":
        given_key = [table.c[name] == bindparam(f"key_{name}") for name in names]
        connection.execute(delete(table).where(*given_key), [{f"key_{name}": key[name] for name in names} for key in keys])
        return
    given = _unnested(table, names, _sorted(table, keys))
    connection.execute(delete(table).where(*(table.c[name] == given.c[name] for name in names)))


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT, in the connection's dialect; both dialects spell it alike."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)


def _insert_or_change(
    connection: Connection, table: Table, rows: Sequence[RowValues], columns: Collection[str], way: Literal["add", "replace"]
) -> None:
    if not rows:
        return
    statement = upsert(connection, table)
    new = statement.excluded
    changes = {name: table.c[name] + new[name] if way == "add" else new[name] for name in columns}
    keys = [column.name for column in table.primary_key]
    _run(connection, table, _sorted(table, rows), statement.on_conflict_do_update(index_elements=keys, set_=changes))


def _sorted(table: Table, rows: Sequence[RowValues]) -> list[RowValues]:
    keys = [column.name for column in table.primary_key if column.name in rows[0]]
    return sorted(rows, key=lambda row: tuple(row[name] for name in keys))


def _run(connection: Connection, table: Table, rows: Sequence[RowValues], statement: Any) -> None:
    if connection.dialect.name != "postgresql":
        connection.execute(statement, [dict(row) for row in rows])
        return
    names = list(rows[0])
    given = _unnested(table, names, rows)
    connection.execute(statement.from_select(names, select(*(given.c[name] for name in names))))


def _unnested(table: Table, names: Sequence[str], rows: Sequence[RowValues]) -> TableValuedAlias:
    """The rows as a table that a statement can read from, one array per column."""
    arrays = [bindparam(None, [row[name] for row in rows], postgresql.ARRAY(table.c[name].type)) for name in names]
    return func.unnest(*arrays).table_valued(*(column(name, table.c[name].type) for name in names)).render_derived()
