"""A database URL in, an engine out whose transactions are durable, whose schema is checked and whose faults are ours by name."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import structlog
from sqlalchemy import URL, Connection, Engine, create_engine, event, insert, inspect, select, text, update
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.pool import ConnectionPoolEntry

from monitor.errors import BellwetherError, ConfigurationError, SchemaMismatch, StoreError, StoreUnavailable
from monitor.store.migrations import STEPS
from monitor.store.schema import SCHEMA_VERSION, meta, metadata

log = structlog.get_logger(__name__)

_FIRST_WAIT_S: Final = 1.0
_LONGEST_WAIT_S: Final = 30.0
_WRITE: Final = "bellwether_write"
_BUSY_TIMEOUT_MS: Final = 30_000
_STATEMENT_TIMEOUT_MS: Final = 60_000
_WAL_KEPT_BYTES: Final = 64 * 1_048_576
"""SQLite's log grows as long as somebody reads an old state; once it is copied into the file it is cut back to so much."""

_SCHEMA_LOCK: Final = 0x42454C4C57455448
"""Names the lock under which PostgreSQL's tables are made: instances that start together make them once."""

_POSTGRES_CONNECTION: Final[Mapping[str, str | int]] = {
    "application_name": "bellwether",
    "connect_timeout": 10,
    # A server that vanished without a word is known to be gone within half a minute.
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
_PASSING_STATES: Final = frozenset({"25006", "25P03"})
"""What PostgreSQL does not call an operational error and what passes all the same: a standby that is not yet the primary, and a
transaction that was ended for being idle."""


def open_engine(url: str) -> Engine:
    """An engine on `url` with the schema in place: created in an empty database, checked in any other.

    SQLite runs in WAL mode with `synchronous=FULL`, so that a commit survives a power cut. PostgreSQL is spoken to through psycopg,
    with limits on how long a connection, a statement and a silent network may take; what the URL says about these wins. Raises
    ConfigurationError for an URL that cannot be used, SchemaMismatch for a database of another version, StoreUnavailable when
    nothing answers.
    """
    try:
        parsed = make_url(url)
        engine = _postgres_engine(parsed) if parsed.get_backend_name() == "postgresql" else create_engine(parsed)
    except (ArgumentError, ModuleNotFoundError) as error:
        raise ConfigurationError("store.url", [f"is no database URL that can be used: {type(error).__name__}"]) from error
    if engine.dialect.name == "sqlite":
        _make_durable(engine)
    elif engine.dialect.name != "postgresql":
        raise ConfigurationError("store.url", [f"names a database of kind {engine.dialect.name}: take SQLite or PostgreSQL"])
    try:
        with translated_errors():
            _check_schema(engine)
    except BellwetherError:
        engine.dispose()
        raise
    return engine


def open_when_it_answers(url: str, sleep: Callable[[float], None] = time.sleep) -> Engine:
    """As `open_engine`, and waits for a database server that does not answer, longer each time. Raises what else it raises.

    A file is not waited for: what cannot be opened now is a wrong path or a missing right.
    """
    wait_s = _FIRST_WAIT_S
    while True:
        try:
            return open_engine(url)
        except StoreUnavailable as error:
            if url.startswith("sqlite"):
                raise
            log.warning("store.unavailable", reason=str(error), wait_s=wait_s)
        sleep(wait_s)
        wait_s = min(2 * wait_s, _LONGEST_WAIT_S)


def _make_durable(engine: Engine) -> None:
    """SQLite only: WAL, fsync on every commit, and a write lock taken at the beginning of a write, not in its middle."""

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _: ConnectionPoolEntry) -> None:
        # The driver's own implicit BEGIN is deferred: two writers that both read first would deadlock on the upgrade.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            f"busy_timeout={_BUSY_TIMEOUT_MS}",
            f"journal_size_limit={_WAL_KEPT_BYTES}",
            "cache_size=-65536",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITE, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _postgres_engine(url: URL) -> Engine:
    """An engine whose connections are looked at before they are used, so that a restart of the server costs one attempt."""
    if url.drivername == "postgresql":
        url = url.set(drivername="postgresql+psycopg")
    defaults = {name: value for name, value in _POSTGRES_CONNECTION.items() if name not in url.query}
    engine = create_engine(url, connect_args=defaults, pool_pre_ping=True)

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        # Said in each transaction and not once per connection: a pooler between us and the server may lend us another one.
        reads = not connection.get_execution_options().get(_WRITE, False)
        mode = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY; " if reads else ""
        connection.exec_driver_sql(
            f"{mode}SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}; SET LOCAL lock_timeout = {_BUSY_TIMEOUT_MS}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {_STATEMENT_TIMEOUT_MS}"
        )

    return engine


def _check_schema(engine: Engine) -> None:
    """Creates the tables in an empty database, brings those of an older version up to date, refuses any other."""
    with writing(engine) as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
        if not inspect(connection).get_table_names():
            metadata.create_all(connection)
            connection.execute(insert(meta).values(key="schema_version", value=str(SCHEMA_VERSION)))
            return
        try:
            found = connection.scalar(select(meta.c.value).where(meta.c.key == "schema_version"))
        except DBAPIError:
            found = None
        if found is not None and found.isdigit() and int(found) in STEPS:
            found = _migrate(connection, int(found))
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
        message = f"the database failed: {type(error.orig).__name__}: {_first_line(error.orig)}"
        if error.connection_invalidated or isinstance(error, OperationalError | InterfaceError) or _passes(error):
            raise StoreUnavailable(message) from error
        raise StoreError(message) from error
    except PoolTimeoutError as error:
        raise StoreUnavailable("the database failed: all connections are in use") from error
    except SQLAlchemyError as error:
        raise StoreError(f"the database failed: {type(error).__name__}") from error


def _migrate(connection: Connection, found: int) -> str:
    """Takes the database as far as there are steps; the version that it has then."""
    while found in STEPS:
        STEPS[found](connection)
        found += 1
    connection.execute(update(meta).where(meta.c.key == "schema_version").values(value=str(found)))
    return str(found)


def _first_line(error: BaseException | None) -> str:
    """What a database says about itself. PostgreSQL repeats values of the row in the lines below, which may hold news text."""
    return str(error).split("\n", 1)[0]


def _passes(error: DBAPIError) -> bool:
    return getattr(error.orig, "sqlstate", None) in _PASSING_STATES


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """A transaction that will write: committed at the end, rolled back as a whole by any exception."""
    with translated_errors(), engine.execution_options(**{_WRITE: True}).begin() as connection:
        yield connection


def database_ms(connection: Connection) -> int:
    """The database's own clock, in milliseconds since 1970."""
    if connection.dialect.name == "postgresql":
        return int(connection.exec_driver_sql("SELECT extract(epoch FROM clock_timestamp()) * 1000").scalar_one())
    return int(connection.exec_driver_sql("SELECT (julianday('now') - 2440587.5) * 86400000").scalar_one())


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads, on one consistent state of the database."""
    with translated_errors(), engine.begin() as connection:
        yield connection
