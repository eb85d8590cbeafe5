"""What every test may ask for."""

import pytest

from tests.kafka import fixtures as kafka_fixtures
from tests.kafka.fixtures import fresh_kafka, kafka, local_kafka
from tests.postgres import fixtures as postgres_fixtures
from tests.postgres.fixtures import database, fresh_postgres, make_database, postgres

__all__ = ["database", "fresh_kafka", "fresh_postgres", "kafka", "local_kafka", "make_database", "postgres"]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """What could not be tested here, and why."""
    for fixtures in (kafka_fixtures, postgres_fixtures):
        fixtures.report_absence(terminalreporter, exitstatus, config)
