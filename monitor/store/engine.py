"""A database URL in, an engine out whose transactions are durable, whose schema is checked and whose faults are ours by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, insert, inspect, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from monitor.errors import ConfigurationError, SchemaMismatch, StoreError, StoreUnavailable
from monitor.store.schema import SCHEMA_VERSION, meta, metadata

_WRITE = "bellwether_write"
_BUSY_TIMEOUT_MS = 30_000


def open_engine(url: str) -> Engine:
    """An engine on `url` with the schema in place: created in an empty database, checked in any other.

    SQLite runs in WAL mode with `synchronous=FULL`, so that a commit survives a power cut. Raises ConfigurationError for an URL
    that cannot be used, SchemaMismatch for a database of another version, StoreUnavailable when nothing answers.
    """
    try:
        parsed = make_url(url)
        engine = create_engine(parsed)
    except (ArgumentError, ModuleNotFoundError) as error:
        raise ConfigurationError("store.url", [f"is no database URL that can be used: {type(error).__name__}"]) from error
    if engine.dialect.name == "sqlite":
        _make_durable(engine)
    with translated_errors():
        _check_schema(engine)
    return engine


def _make_durable(engine: Engine) -> None:
    """SQLite only: WAL, fsync on every commit, and a write lock taken at the beginning of a write, not in its middle."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _: ConnectionPoolEntry) -> None:
        # The driver's own implicit BEGIN is deferred: two writers that both read first would deadlock on the upgrade.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", f"busy_timeout={_BUSY_TIMEOUT_MS}", "cache_size=-65536"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_schema(engine: Engine) -> None:
    """Creates the tables in an empty database; refuses one that another version wrote."""
    with writing(engine) as connection:
        if not inspect(connection).get_table_names():
            metadata.create_all(connection)
            connection.execute(insert(meta).values(key="schema_version", value=str(SCHEMA_VERSION)))
            return
        try:
            found = connection.scalar(select(meta.c.value).where(meta.c.key == "schema_version"))
        except DBAPIError:
            found = None
    if found is None:
        raise SchemaMismatch("the database holds tables that are not Bellwether's: point store.url at an empty one")
    if found != str(SCHEMA_VERSION):
        advice = "update Bellwether" if found.isdigit() and int(found) > SCHEMA_VERSION else "use the version that wrote it"
        raise SchemaMismatch(f"the database has schema version {found}, this Bellwether reads version {SCHEMA_VERSION}: {advice}")


@contextmanager
def translated_errors() -> Iterator[None]:
    """Turns SQLAlchemy's errors into ours; the one place where that is done.

    What a retry can mend (a lock, a lost connection, a full disk) becomes StoreUnavailable, the rest StoreError.
    Neither repeats statement parameters: they hold news text.
    """
    try:
        yield
    except DBAPIError as error:
        message = f"the database failed: {type(error.orig).__name__}: {error.orig}"
        if error.connection_invalidated or type(error).__name__ in {"OperationalError", "InterfaceError"}:
            raise StoreUnavailable(message) from error
        raise StoreError(message) from error
    except SQLAlchemyError as error:
        raise StoreError(f"the database failed: {type(error).__name__}") from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that will write: committed at the end, rolled back as a whole by any exception."""
    with translated_errors(), engine.execution_options(**{_WRITE: True}).begin() as connection:
        yield connection


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, on one consistent state of the database."""
    with translated_errors(), engine.begin() as connection:
        yield connection


def upsert(connection: Connection, table: Table) -> sqlite.Insert | postgresql.Insert:
    """An INSERT that knows ON CONFLICT, in the connection's dialect; both dialects spell it alike."""
    return postgresql.insert(table) if connection.dialect.name == "postgresql" else sqlite.insert(table)
