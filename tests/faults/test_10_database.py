"""Family 10: the database dies, refuses, fills up or is damaged under load. The loop waits, and every record counts once."""

import os
import random
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager, suppress

import pytest
from psycopg import sql
from sqlalchemy import event, text

import monitor.store.engine
from alerts.types import Comparison, SeriesSelector, ThresholdRule
from monitor.errors import StoreUnavailable
from monitor.store.engine import open_engine, reading, writing
from monitor.types import Metric, SeriesKind
from monitor.watchlist import Entity, WatchList
from tests.end_to_end.processes import until
from tests.end_to_end.stream import ENTITIES, stream
from tests.faults.oracles import alert_truth, consumed, told
from tests.faults.tailing import append, conservation, running, until_placed
from tests.postgres.server import PostgresAbsent

# SQLAlchemy leaves a cursor of a connection that broke to the garbage collector, and psycopg complains of it there.
pytestmark = pytest.mark.filterwarnings("ignore:<psycopg.ServerCursor:ResourceWarning")
SEED = int(os.environ.get("BELLWETHER_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
RECORDS = 1_500
KILLS = 3
PAGE_BYTES = 4_096
WATCHED = WatchList([Entity(one["id"], one["name"]) for one in ENTITIES])
RULE = ThresholdRule(
    name="in-the-news",
    metric=Metric.STORIES,
    series=SeriesSelector(SeriesKind.ENTITY),
    window_ms=900_000,
    comparison=Comparison.AT_LEAST,
    level=12,
    clear_level=4,
)


def watching(folder, engine):
    return running(folder, engine, rules=[RULE], watchlist=WATCHED)


def retries(daemon):
    return daemon.registry.get_sample_value("bellwether_store_retries_total")


def feed(folder, lines, size=50):
    """The lines in pieces, each appended when it is asked for."""
    for begin in range(0, len(lines), size):
        append(folder, [line.value for line in lines[begin : begin + size]])
        yield begin + size


@pytest.fixture(scope="module")
def calm(tmp_path_factory):
    """What an instance in peace tells of the stream."""
    folder = tmp_path_factory.mktemp("calm")
    lines = list(stream(RECORDS))
    append(folder, [line.value for line in lines])
    engine = open_engine(f"sqlite:///{folder / 'store.db'}")
    with watching(folder, engine):
        until_placed(engine, RECORDS)
    assert conservation(engine, folder, lines) == []
    found = told(engine)
    engine.dispose()
    assert len(found.incidents) >= 5
    return found


# --- PostgreSQL ----------------------------------------------------------------------------------


def kill_9(server):
    """As the kernel does when memory is out: the postmaster is gone, and its children find out by themselves."""
    server.process.kill()
    server.process.wait()
    server.process = None


def start_again(server):
    """What is left of the children still holds the memory that a new postmaster wants."""
    deadline_s = time.monotonic() + 60
    while True:
        with suppress(PostgresAbsent):
            return server.start()
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


@pytest.mark.postgres
def test_a_postgres_that_is_killed_under_load_loses_and_doubles_nothing(tmp_path, fresh_postgres, calm):
    chance = random.Random(SEED)
    print(f"seed {SEED}: BELLWETHER_TEST_SEED={SEED} repeats it")
    lines = list(stream(RECORDS))
    url = fresh_postgres.create_database()
    engine = open_engine(url)
    with watching(tmp_path, engine) as daemon:
        pieces = feed(tmp_path, lines)
        recoveries = []
        for _ in range(KILLS):
            for _ in range(chance.randrange(3, 8)):
                next(pieces)
            time.sleep(chance.uniform(0, 0.4))
            before = retries(daemon)
            kill_9(fresh_postgres)
            next(pieces)
            until(lambda before=before: retries(daemon) > before, 60, "the loss noticed")
            start_again(fresh_postgres)
            began_s, before = time.monotonic(), consumed(engine)
            next(pieces)
            until(lambda before=before: consumed(engine) > before, 60, "progress after the restart")
            recoveries.append(round(time.monotonic() - began_s, 1))
        list(pieces)
        until_placed(engine, RECORDS)
    print(f"recovered within {recoveries} s")
    engine = open_engine(url)
    assert conservation(engine, tmp_path, lines) == []
    assert alert_truth(calm, told(engine)) == []
    engine.dispose()


@contextmanager
def connections_refused(server, name):
    """The role may have no connection, and those that it has are ended."""
    alter = sql.SQL("ALTER ROLE desk CONNECTION LIMIT {}")
    with server.connect("postgres") as connection:
        connection.execute(alter.format(sql.Literal(0)))
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (name,))
        yield
        connection.execute(alter.format(sql.Literal(-1)))


@contextmanager
def standby(server, name):
    """Every transaction only reads, as on a standby that is not yet the primary."""
    alter = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
    with server.connect("postgres") as connection:
        connection.execute(alter.format(sql.Identifier(name), sql.Literal("on")))
        connection.execute(ended, (name,))
        yield
        connection.execute(alter.format(sql.Identifier(name), sql.Literal("off")))
        connection.execute(ended, (name,))


@contextmanager
def locked(server, name):
    """Somebody holds the table of positions for longer than a statement may wait for it."""
    with server.connect(name) as connection, connection.transaction():
        connection.execute("LOCK TABLE log_partition IN ACCESS EXCLUSIVE MODE")
        yield


@pytest.mark.postgres
@pytest.mark.parametrize("refusal", [connections_refused, standby, locked], ids=["connections", "read-only", "a lock"])
def test_what_postgres_refuses_for_a_while_is_waited_for(tmp_path, postgres, monkeypatch, refusal):
    monkeypatch.setattr(monitor.store.engine, "_BUSY_TIMEOUT_MS", 300)
    address, _, name = postgres.create_database().rpartition("/")
    with postgres.connect("postgres") as connection:
        with suppress(Exception):
            connection.execute("CREATE ROLE desk LOGIN")
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO desk").format(sql.Identifier(name)))
    engine = open_engine(f"{address.replace('//bellwether@', '//desk@')}/{name}")
    lines = list(stream(300))
    with running(tmp_path, engine) as daemon:
        append(tmp_path, [line.value for line in lines[:100]])
        until_placed(engine, 100)
        with refusal(postgres, name):
            append(tmp_path, [line.value for line in lines[100:200]])
            until(lambda: retries(daemon) > 0, 60, "the refusal noticed")
            assert daemon.live().ok
        append(tmp_path, [line.value for line in lines[200:]])
        until_placed(engine, 300)
        monkeypatch.undo()
    assert conservation(engine, tmp_path, lines) == []
    engine.dispose()


# --- SQLite --------------------------------------------------------------------------------------


def each_connection(engine, pragma):
    """Says a pragma on every connection from now on: those that are open are put away."""
    event.listen(engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))
    engine.dispose()


@contextmanager
def full(engine, folder):
    """The file may not grow beyond a few pages more than it has: a commit fails in its middle."""
    pages = (folder / "store.db").stat().st_size // PAGE_BYTES + 3
    each_connection(engine, f"max_page_count={pages}")
    yield
    each_connection(engine, "max_page_count=4294967294")


@contextmanager
def read_only(engine, folder):
    """As on a file system that the kernel has made read-only."""
    each_connection(engine, "query_only=ON")
    yield
    each_connection(engine, "query_only=OFF")


LOCKING = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('BEGIN IMMEDIATE'); print(); input()"
)


@contextmanager
def locked_by_another_process(engine, folder):
    command = [sys.executable, "-c", LOCKING, str(folder / "store.db")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        yield
        other.communicate(b"\n")


@pytest.mark.parametrize("refusal", [full, read_only, locked_by_another_process])
def test_what_a_file_refuses_for_a_while_is_waited_for(tmp_path, monkeypatch, calm, refusal):
    monkeypatch.setattr(monitor.store.engine, "_BUSY_TIMEOUT_MS", 200)
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    lines = list(stream(RECORDS))
    with watching(tmp_path, engine) as daemon:
        append(tmp_path, [line.value for line in lines[:500]])
        until(lambda: consumed(engine) == 500, 60, "the first part saved")
        with refusal(engine, tmp_path):
            append(tmp_path, [line.value for line in lines[500:1_000]])
            until(lambda: retries(daemon) > 0, 60, "the refusal noticed")
            assert daemon.live().ok
        append(tmp_path, [line.value for line in lines[1_000:]])
        until_placed(engine, RECORDS)
    assert conservation(engine, tmp_path, lines) == []
    assert alert_truth(calm, told(engine)) == []
    engine.dispose()


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 3 MiB, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", folder], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("no file system may be mounted here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_that_fills_up_again_and_again_loses_and_doubles_nothing(tmp_path, small_disk):
    chance = random.Random(SEED)
    print(f"seed {SEED}: BELLWETHER_TEST_SEED={SEED} repeats it")
    engine = open_engine(f"sqlite:///{small_disk / 'store.db'}")
    lines = list(stream(600))
    with running(tmp_path, engine) as daemon:
        pieces = feed(tmp_path, lines)
        for _ in range(3):
            next(pieces)
            filler = fill_up(small_disk, leave_bytes=chance.randrange(0, 120_000))
            before = retries(daemon)
            for _ in range(3):
                next(pieces)
            until(lambda before=before: retries(daemon) > before, 60, "the full disk noticed")
            filler.unlink()
        list(pieces)
        until_placed(engine, 600)
    assert conservation(engine, tmp_path, lines) == []
    engine.dispose()


def fill_up(folder, leave_bytes):
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        with suppress(OSError):
            while True:
                file.write(b"x" * PAGE_BYTES)
        file.truncate(max(0, file.tell() - leave_bytes))
    return filler


def test_a_file_system_that_only_reads_is_named_before_anything_runs(small_disk):
    url = f"sqlite:///{small_disk / 'store.db'}"
    open_engine(url).dispose()
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    with pytest.raises(StoreUnavailable, match=r"readonly|unable to open|read-only"):
        open_engine(url)


def test_a_damaged_page_ends_the_process_and_nothing_is_counted_on_top_of_it(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    engine = open_engine(url)
    lines = list(stream(600))
    append(tmp_path, [line.value for line in lines[:400]])
    with running(tmp_path, engine):
        until_placed(engine, 400)
    with writing(engine) as connection:
        (root,) = connection.execute(text("SELECT rootpage FROM sqlite_master WHERE name = 'log_partition'")).one()
    engine.dispose()
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with (tmp_path / "store.db").open("r+b") as file:
        file.seek((root - 1) * PAGE_BYTES)
        file.write(random.Random(SEED).randbytes(PAGE_BYTES))
    before = (tmp_path / "store.db").read_bytes()
    append(tmp_path, [line.value for line in lines[400:]])
    engine = open_engine(url)
    with running(tmp_path, engine, ends_with=3) as daemon:
        until(daemon._stop.is_set, 60, "the end of the daemon")
    engine.dispose()
    assert (tmp_path / "store.db").read_bytes() == before


def test_the_file_of_the_log_that_grew_behind_a_long_reading_becomes_small_again(tmp_path, monkeypatch):
    monkeypatch.setattr(monitor.store.engine, "_WAL_KEPT_BYTES", 1_048_576)
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with writing(engine) as connection:
        connection.execute(text("CREATE TABLE bulk (content BLOB)"))
    wal = tmp_path / "store.db-wal"

    def write(number):
        for _ in range(number):
            with writing(engine) as connection:
                connection.execute(text("INSERT INTO bulk VALUES (randomblob(500000))"))

    with reading(engine) as connection:
        connection.execute(text("SELECT count(*) FROM bulk"))
        write(20)
    grown_bytes = wal.stat().st_size
    write(10)
    kept_bytes = wal.stat().st_size
    engine.dispose()
    assert grown_bytes > 9_000_000
    # SQLite copies the log into the file at every thousand pages, and may begin a page too late.
    assert kept_bytes < 6_000_000
