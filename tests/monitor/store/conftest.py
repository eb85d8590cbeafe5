"""What every test of the store may ask for."""

import pytest

from monitor.store.engine import open_engine


@pytest.fixture
def engine(database):
    """An engine on a new, empty database of either kind."""
    engine = open_engine(database)
    yield engine
    engine.dispose()
