"""A database is made, recognised or refused; its faults get the names that decide whether waiting helps."""

import sqlite3
import threading

import psycopg
import pytest
from sqlalchemy import Column, Integer, MetaData, Table, Text, insert, select, text

from alerts.types import RuleKind
from monitor.errors import BellwetherError, ConfigurationError, SchemaMismatch, StoreError, StoreUnavailable
from monitor.store.engine import open_engine, open_when_it_answers, reading, writing
from monitor.store.incidents import Incidents
from monitor.store.ledger import Claim, Ledger
from monitor.store.rows import insert_new_rows, insert_or_add, insert_or_replace, insert_rows
from monitor.store.schema import SCHEMA_VERSION, dead_letter, document, meta, tally
from monitor.types import Partition
from monitor.watermark import Progress, Quiet


@pytest.fixture
def postgres_engine(postgres):
    engine = open_engine(postgres.create_database())
    yield engine
    engine.dispose()


TABLE = Table("trial", MetaData(), Column("key", Integer, primary_key=True), Column("number", Integer), Column("word", Text))


def rows_of(engine):
    with reading(engine) as connection:
        return [tuple(row) for row in connection.execute(select(TABLE).order_by(TABLE.c.key))]


def test_rows_are_added_kept_summed_and_replaced_alike_in_both_databases(engine):
    with writing(engine) as connection:
        TABLE.create(connection)
        insert_rows(connection, TABLE, [{"key": 2, "number": 20, "word": "b"}, {"key": 1, "number": 10, "word": None}])
    with writing(engine) as connection:
        insert_new_rows(connection, TABLE, [{"key": 2, "number": 9, "word": "x"}, {"key": 3, "number": 30, "word": "c"}])
    with writing(engine) as connection:
        insert_or_add(connection, TABLE, [{"key": 3, "number": 4, "word": "x"}, {"key": 4, "number": 40, "word": "d"}], ["number"])
    with writing(engine) as connection:
        insert_or_replace(connection, TABLE, [{"key": 4, "number": 1, "word": "z"}, {"key": 5, "number": 5, "word": "e"}], ["word"])
        for insert_nothing in (insert_rows, insert_new_rows):
            insert_nothing(connection, TABLE, [])
    assert rows_of(engine) == [(1, 10, None), (2, 20, "b"), (3, 34, "c"), (4, 40, "z"), (5, 5, "e")]
    with pytest.raises(StoreError), writing(engine) as connection:
        insert_rows(connection, TABLE, [{"key": 1, "number": 1, "word": "a"}])


def test_an_exception_in_a_transaction_leaves_nothing(engine):
    def broken():
        with writing(engine) as connection:
            connection.execute(insert(meta).values(key="a", value="b"))
            raise KeyError

    with pytest.raises(KeyError):
        broken()
    with reading(engine) as connection:
        assert connection.scalar(select(meta.c.value).where(meta.c.key == "a")) is None


def test_a_reading_sees_one_state_of_the_database_whatever_is_written_meanwhile(engine):
    statement = select(meta.c.value).where(meta.c.key == "seen")
    with reading(engine) as connection:
        assert connection.scalar(statement) is None
        with writing(engine) as other:
            other.execute(insert(meta).values(key="seen", value="now"))
        assert connection.scalar(statement) is None
    with reading(engine) as connection:
        assert connection.scalar(statement) == "now"


def test_instances_that_start_together_make_the_tables_once(database):
    failures, begin = [], threading.Barrier(4)

    def start():
        begin.wait()
        try:
            open_engine(database).dispose()
        except BellwetherError as error:
            failures.append(error)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_database_of_a_newer_version_is_refused_with_advice(engine, database):
    with writing(engine) as connection:
        connection.execute(meta.update().where(meta.c.key == "schema_version").values(value="99"))
    with pytest.raises(SchemaMismatch, match=r"version 99.*update Bellwether"):
        open_engine(database)


VERSION_4 = (
    "DROP TABLE publication",
    "DROP TABLE event_report",
    "ALTER TABLE incident DROP COLUMN decided_by",
    "ALTER TABLE incident DROP COLUMN sequence",
    "ALTER TABLE incident DROP COLUMN evidence",
    "DROP INDEX document_place",
    "ALTER TABLE document DROP COLUMN place",
    "ALTER TABLE document DROP COLUMN events",
)


def back_to_version_3(connection):
    """Takes away what version 4 brought."""
    for statement in VERSION_4:
        connection.execute(text(statement))


VERSION_2_PARTITION = """
CREATE TABLE log_partition (
    topic TEXT NOT NULL, number INTEGER NOT NULL, epoch BIGINT NOT NULL, owner TEXT NOT NULL, identity TEXT NOT NULL,
    next_offset BIGINT NOT NULL, time_ms BIGINT, consumed BIGINT NOT NULL, counted BIGINT NOT NULL, stale BIGINT NOT NULL,
    duplicate BIGINT NOT NULL, rejected BIGINT NOT NULL, PRIMARY KEY (topic, number)
)
"""


def test_a_database_of_version_2_is_brought_up_to_date_with_all_that_it_holds(engine, database):
    with writing(engine) as connection:
        for name in ("scored", "tally", "lease", "log_partition"):
            connection.execute(text(f"DROP TABLE {name}"))
        back_to_version_3(connection)
        connection.execute(text(VERSION_2_PARTITION))
        connection.execute(text("INSERT INTO log_partition VALUES ('news', 3, 7, 'me', 'log', 100, 5, 100, 80, 7, 6, 7)"))
        connection.execute(meta.update().where(meta.c.key == "schema_version").values(value="2"))
    engine.dispose()
    migrated = open_engine(database)
    ledger = Ledger(migrated)
    assert ledger.progress() == {Partition("news", 3): Progress(5, 100, Quiet(), 0)}
    assert ledger.claim(Partition("news", 3), "you") == Claim(Partition("news", 3), 8, 100, "log", 5)
    assert ledger.waiting((2**60, "", 0, 0), 10) == []
    with reading(migrated) as connection:
        assert connection.scalar(select(meta.c.value).where(meta.c.key == "schema_version")) == str(SCHEMA_VERSION)
        assert [tuple(row) for row in connection.execute(select(tally))] == [("news", 3, 80, 0, 7, 6)]
    migrated.dispose()


VERSION_3_DOCUMENT = """
INSERT INTO document (
    document_key, topic, number, "offset", received_ms, uri, version, source, language, status, headline, entities, standing, label,
    tone, score_units, model
) VALUES (1, 'news', 3, 9, 5, 'urn:1', '1', 'wire', 'en', 'usable', 'Halden falls', '["halden"]', 'stale', 'fraud',
    'negative', -9000, 'm')
"""


def test_a_document_of_version_3_tells_no_severe_event(engine, database):
    with writing(engine) as connection:
        back_to_version_3(connection)
        connection.execute(text(VERSION_3_DOCUMENT))
        connection.execute(meta.update().where(meta.c.key == "schema_version").values(value="3"))
    engine.dispose()
    migrated = open_engine(database)
    with reading(migrated) as connection:
        assert [tuple(row) for row in connection.execute(select(document.c.uri, document.c.events))] == [("urn:1", "[]")]
    migrated.dispose()


VERSION_3_INCIDENT = """
INSERT INTO incident (
    incident_id, rule, kind, name, severity, opened_at_ms, resolved_at_ms, summary, display, labels, annotations
) VALUES ('{}', 'tone', 'entity', 'halden', 'critical', 5, {}, 'bad', 'Halden', '{{}}', '{{}}')
"""


def test_an_incident_of_version_3_was_decided_by_a_threshold_and_goes_on_where_it_was(engine, database):
    with writing(engine) as connection:
        back_to_version_3(connection)
        connection.execute(text(VERSION_3_INCIDENT.format("open", "NULL")))
        connection.execute(text(VERSION_3_INCIDENT.format("over", "9")))
        connection.execute(meta.update().where(meta.c.key == "schema_version").values(value="3"))
    engine.dispose()
    migrated = open_engine(database)
    found = {one.incident_id: one for one in Incidents(migrated).incidents()}
    assert {name: (one.kind, one.sequence, one.evidence) for name, one in found.items()} == {
        "open": (RuleKind.THRESHOLD, 1, {}),
        "over": (RuleKind.THRESHOLD, 2, {}),
    }
    migrated.dispose()


def test_a_database_of_a_version_that_no_step_leads_from_is_refused(engine, database):
    with writing(engine) as connection:
        connection.execute(meta.update().where(meta.c.key == "schema_version").values(value="1"))
    with pytest.raises(SchemaMismatch, match=r"version 1.*use the version that wrote it"):
        open_engine(database)


def test_a_database_of_somebody_else_is_refused_and_left_as_it_is(tmp_path):
    url = f"sqlite:///{tmp_path / 'store.db'}"
    with sqlite3.connect(tmp_path / "store.db") as connection:
        connection.execute("CREATE TABLE theirs (x)")
    with pytest.raises(SchemaMismatch, match="not Bellwether's"):
        open_engine(url)
    with sqlite3.connect(tmp_path / "store.db") as connection:
        assert [name for (name,) in connection.execute("SELECT name FROM sqlite_master")] == ["theirs"]


def test_a_file_that_is_no_database_is_named_so(tmp_path):
    (tmp_path / "store.db").write_bytes(b"this is no database, but long enough to be read as one" * 100)
    with pytest.raises(StoreError, match="not a database"):
        open_engine(f"sqlite:///{tmp_path / 'store.db'}")


@pytest.mark.parametrize("url", ["nonsense", "oracle+nothing://x/y"])
def test_an_url_that_cannot_be_used_is_a_configuration_error_and_never_repeated(url):
    with pytest.raises(ConfigurationError) as caught:
        open_engine(url)
    assert url not in str(caught.value)


def test_sqlite_commits_survive_a_power_cut(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    engine.dispose()


# --- what passes and what does not, in PostgreSQL ------------------------------------------------


@pytest.mark.postgres
def test_a_server_that_is_not_there_is_waited_for(fresh_postgres):
    url = fresh_postgres.create_database()
    engine = open_engine(url)
    fresh_postgres.kill()
    with pytest.raises(StoreUnavailable), reading(engine) as connection:
        connection.execute(select(meta))
    with pytest.raises(StoreUnavailable):
        open_engine(url)
    fresh_postgres.start()
    with reading(engine) as connection:
        assert connection.scalar(select(meta.c.value).where(meta.c.key == "schema_version")) is not None
    engine.dispose()


@pytest.mark.postgres
def test_at_a_start_a_server_is_waited_for_and_a_file_is_not(fresh_postgres, tmp_path):
    url = fresh_postgres.create_database()
    fresh_postgres.kill()
    waits = []

    def sleep(wait_s):
        waits.append(wait_s)
        if len(waits) == 7:
            fresh_postgres.start()

    engine = open_when_it_answers(url, sleep)
    assert waits == [1, 2, 4, 8, 16, 30, 30]
    with reading(engine) as connection:
        assert connection.scalar(text("SELECT 1")) == 1
    engine.dispose()
    with pytest.raises(StoreUnavailable):
        open_when_it_answers(f"sqlite:///{tmp_path / 'nowhere' / 'x.db'}", sleep)


@pytest.mark.postgres
def test_a_transaction_that_the_server_ends_may_be_tried_again_and_left_nothing(postgres_engine, postgres):
    def ended():
        with writing(postgres_engine) as connection:
            connection.execute(insert(meta).values(key="half", value="done"))
            own = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar()
            with postgres.connect("postgres") as other:
                other.execute("SELECT pg_terminate_backend(%s)", (own,))
            connection.execute(insert(meta).values(key="other half", value="done"))

    with pytest.raises(StoreUnavailable):
        ended()
    with reading(postgres_engine) as connection:
        assert connection.scalar(select(meta.c.value).where(meta.c.key == "half")) is None


@pytest.mark.postgres
def test_of_two_transactions_in_each_others_way_one_may_be_tried_again(postgres_engine):
    with writing(postgres_engine) as connection:
        connection.execute(insert(meta), [{"key": key, "value": ""} for key in ("a", "b")])
    holding, outcomes = threading.Barrier(2), []

    def cross(first, second):
        try:
            with writing(postgres_engine) as connection:
                connection.execute(meta.update().where(meta.c.key == first).values(value=first))
                holding.wait()
                connection.execute(meta.update().where(meta.c.key == second).values(value=first))
            outcomes.append("done")
        except StoreUnavailable:
            outcomes.append("again")

    threads = [threading.Thread(target=cross, args=keys) for keys in (("a", "b"), ("b", "a"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["again", "done"]


@pytest.mark.postgres
def test_a_reading_cannot_write(postgres_engine):
    with pytest.raises(StoreUnavailable, match="read-only"), reading(postgres_engine) as connection:
        connection.execute(insert(meta).values(key="a", value="b"))


@pytest.mark.postgres
def test_what_is_wrong_for_good_is_not_waited_for_and_no_value_is_repeated(postgres_engine):
    row = {"topic": "t", "number": 2**40, "offset": 0, "received_ms": 0, "reason": "r", "detail": "secret text", "excerpt": b""}
    with pytest.raises(StoreError) as caught, writing(postgres_engine) as connection:
        connection.execute(insert(dead_letter).values(size=0, **row))
    assert not isinstance(caught.value, StoreUnavailable)
    assert "secret text" not in str(caught.value)


@pytest.mark.postgres
def test_the_url_may_say_how_long_to_wait(postgres):
    url = postgres.create_database()
    engine = open_engine(f"{url}?connect_timeout=3&application_name=desk")
    with reading(engine) as connection:
        assert connection.exec_driver_sql("SELECT current_setting('application_name')").scalar() == "desk"
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        assert driver.info.get_parameters()["connect_timeout"] == "3"
    engine.dispose()
