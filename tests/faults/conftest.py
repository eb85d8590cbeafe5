"""No fault test leaves a daemon running."""

import pytest

from tests.end_to_end.processes import RUNNING


@pytest.fixture(autouse=True)
def no_daemon_is_left():
    yield
    while RUNNING:
        process = RUNNING.pop()
        process.kill()
        process.wait()
