"""A real server to the tests of a run: started once it is asked for, or its tests skip and the end of the run says loudly why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import pytest


class Lendable(Protocol):
    """A server that runs."""

    @property
    def log(self) -> Path:
        """Where it writes what it does."""


Server = TypeVar("Server", bound=Lendable)


@dataclass(frozen=True)
class Lender(Generic[Server]):
    """Lends servers of one kind: `start` gives a running one in a folder, or raises `absent` with what is missing.

    `instead` says how a run can be pointed at a server of somebody else.
    """

    kind: str
    start: Callable[[Path], Server]
    absent: type[Exception]
    instead: str
    _absence: pytest.StashKey[str] = field(default_factory=pytest.StashKey)
    _logs: pytest.StashKey[list[str]] = field(default_factory=pytest.StashKey)

    def lend(self, request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> Server:
        """A running server in a folder of its own; where there can be none, the test skips."""
        stash = request.config.stash
        absence = stash.get(self._absence, "")
        if not absence:
            try:
                server = self.start(factory.mktemp(self.kind.lower()))
            except self.absent as error:
                absence = stash[self._absence] = str(error)
            else:
                stash.setdefault(self._logs, []).append(str(server.log))
                return server
        pytest.skip(f"no {self.kind}: {absence}; or set {self.instead}")

    def report(self, terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
        """Says what was not tested for want of a server, and where its logs lie when something failed."""
        if absence := config.stash.get(self._absence, ""):
            terminalreporter.write_line(f"NOT TESTED against a real {self.kind}: {absence}", red=True, bold=True)
        if exitstatus:
            for log in config.stash.get(self._logs, []):
                terminalreporter.write_line(f"log of the {self.kind} of this run: {log}")
