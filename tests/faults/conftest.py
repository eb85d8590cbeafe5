"""No fault test leaves a daemon or a connection behind; and the stream that most of them read, with its truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from tests.end_to_end.processes import RUNNING
from tests.end_to_end.stream import Line, stream
from tests.faults.cluster import FEW_RULES, OPENED, calm
from tests.faults.oracles import Told


@dataclass(frozen=True, slots=True)
class News:
    """Lines, and the incidents that they hold under `FEW_RULES`."""

    lines: Sequence[Line]
    told: Told


@pytest.fixture(scope="session")
def news(tmp_path_factory):
    lines = list(stream(2_400))
    found = calm(tmp_path_factory.mktemp("calm") / "calm", lines, FEW_RULES)
    assert len(found.incidents) >= 5
    return News(lines, found)


@pytest.fixture(autouse=True)
def nothing_is_left():
    yield
    while OPENED:
        OPENED.pop().dispose()
    while RUNNING:
        process = RUNNING.pop()
        process.kill()
        process.wait()
