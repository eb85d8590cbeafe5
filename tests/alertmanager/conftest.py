"""Lends a test a running Alertmanager and what it notifies, or skips it and says loudly why."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pytest

from tests.alertmanager.server import Alertmanager, AlertmanagerAbsent, start_local
from tests.lending import Lender
from tests.receiver import taking_posts

LendAlertmanager = Callable[..., Alertmanager]

LENDER = Lender("Alertmanager", start_local, AlertmanagerAbsent, "PATH to the folder of its programs")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """What could not be tested here, and why."""
    LENDER.report(terminalreporter, exitstatus, config)


@dataclass
class Recorder:
    """What Alertmanager posted to its own receiver, in order."""

    url: str = ""
    posts: list[dict[str, Any]] = field(default_factory=list)
    changed: threading.Condition = field(default_factory=threading.Condition)

    def take(self, body: bytes) -> None:
        with self.changed:
            self.posts.append(json.loads(body))
            self.changed.notify_all()

    def wait_for(self, holds: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
        """The posts, once they are so."""
        with self.changed:
            assert self.changed.wait_for(lambda: holds(self.posts), timeout=30), f"it never came to that: {self.posts}"
            return list(self.posts)


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    """A receiver of Alertmanager's own webhooks, on loopback."""
    found = Recorder()

    def take(_: dict[str, str], body: bytes) -> int:
        found.take(body)
        return 200

    with taking_posts(take) as url:
        found.url = url
        yield found


@pytest.fixture
def lend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, recorder: Recorder
) -> Iterator[LendAlertmanager]:
    """Starts Alertmanagers for one test, with settings of `Alertmanager`, and stops them."""
    lent: list[Alertmanager] = []

    def start(**settings: Any) -> Alertmanager:
        lender = replace(LENDER, start=partial(start_local, notify_url=recorder.url, **settings))
        server = lender.lend(request, tmp_path_factory)
        lent.append(server)
        return server

    yield start
    for server in lent:
        server.stop()


@pytest.fixture
def alertmanager(lend: LendAlertmanager) -> Alertmanager:
    """A running Alertmanager with its usual `resolve_timeout`."""
    return lend()
