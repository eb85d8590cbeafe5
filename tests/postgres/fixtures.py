"""The fixtures that lend a test a running PostgreSQL, or skip it and say loudly why; and a database of either kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

from tests.lending import Lender
from tests.postgres.server import VARIABLE, LocalPostgres, Postgres, PostgresAbsent, start_local

LENDER = Lender("PostgreSQL", start_local, PostgresAbsent, f"{VARIABLE}=postgresql://user@host:port")

MakeDatabase = Callable[[], str]
"""Gives the URL of a new, empty database."""


@pytest.fixture(scope="session")
def postgres(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    """A server that all tests share: the one that the environment names, or our own. Nobody stops it."""
    if os.environ.get(VARIABLE):
        yield Postgres(os.environ[VARIABLE])
        return
    server = LENDER.lend(request, tmp_path_factory)
    yield server
    server.stop()


@pytest.fixture
def fresh_postgres(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPostgres]:
    """A server for one test, which may stop, kill and restart it."""
    if os.environ.get(VARIABLE):
        pytest.skip(f"this test stops the server, and {VARIABLE} names one that is not ours")
    server = LENDER.lend(request, tmp_path_factory)
    yield server
    server.kill()


@pytest.fixture(scope="session", params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def make_database(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> MakeDatabase:
    """Makes databases of one kind; every test that asks runs once with each kind."""
    if request.param == "postgresql":
        server: Postgres = request.getfixturevalue("postgres")
        return server.create_database
    return lambda: f"sqlite:///{tmp_path_factory.mktemp('database') / 'store.db'}"


@pytest.fixture
def database(make_database: MakeDatabase) -> str:
    """The URL of a new, empty database of either kind."""
    return make_database()
