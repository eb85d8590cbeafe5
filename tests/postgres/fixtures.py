"""The fixtures that lend a test a running PostgreSQL, or skip it and say loudly why; and a database of either kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.postgres.server import VARIABLE, LocalPostgres, Postgres, PostgresAbsent, start_local

ABSENT = pytest.StashKey[str]()
LOGS = pytest.StashKey[list[str]]()

MakeDatabase = Callable[[], str]
"""Gives the URL of a new, empty database."""


def _start(request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> LocalPostgres:
    absent = request.config.stash.get(ABSENT, "")
    if not absent:
        try:
            server = start_local(factory.mktemp("postgres"))
        except PostgresAbsent as error:
            absent = request.config.stash[ABSENT] = str(error)
        else:
            request.config.stash.setdefault(LOGS, []).append(str(server.log))
            return server
    pytest.skip(f"no PostgreSQL: {absent}; or set {VARIABLE}=postgresql://user@host:port")


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that all tests share: the one that the environment names, or our own. Nobody stops it."""
    if os.environ.get(VARIABLE):
        yield Postgres(os.environ[VARIABLE])
        return
    server = _start(request, tmp_path_factory)
    yield server
    server.stop()


@pytest.fixture
def fresh_postgres(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """A server for one test, which may stop, kill and restart it."""
    if os.environ.get(VARIABLE):
        pytest.skip(f"this test stops the server, and {VARIABLE} names one that is not ours")
    server = _start(request, tmp_path_factory)
    yield server
    server.kill()


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def make_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeDatabase:
    """Makes databases of one kind; every test that asks runs once with each kind."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.create_database
    return lambda: f"sqlite:///{_folder(tmp_path_factory) / 'store.db'}"


@pytest.fixture
def database(make_database: MakeDatabase) -> str:
    """The URL of a new, empty database of either kind."""
    return make_database()


def _folder(factory: pytest.TempPathFactory) -> Path:
    return factory.mktemp("database")


def report_absence(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Says what was not tested for want of a PostgreSQL, and where its log lies when something failed."""
    if absent := config.stash.get(ABSENT, ""):
        terminalreporter.write_line(f"NOT TESTED against a real PostgreSQL: {absent}", red=True, bold=True)
    if exitstatus:
        for log in config.stash.get(LOGS, []):
            terminalreporter.write_line(f"log of the PostgreSQL of this run: {log}")
