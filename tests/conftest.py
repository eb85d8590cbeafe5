"""What every test may ask for."""

import pytest
from hypothesis import settings

from tests.kafka.fixtures import LENDER as KAFKA
from tests.kafka.fixtures import fresh_kafka, kafka, local_kafka
from tests.postgres.fixtures import LENDER as POSTGRES
from tests.postgres.fixtures import database, fresh_postgres, make_database, postgres

__all__ = ["database", "fresh_kafka", "fresh_postgres", "kafka", "local_kafka", "make_database", "postgres"]


def pytest_configure() -> None:
    """How long an example takes says something of the machine, not of us."""
    parent = settings.get_profile(settings.get_current_profile_name())
    settings.register_profile("patient", parent=parent, deadline=None)
    settings.load_profile("patient")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """What could not be tested here, and why."""
    for lender in (KAFKA, POSTGRES):
        lender.report(terminalreporter, exitstatus, config)
