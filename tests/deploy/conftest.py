"""The programs that judge deployment files; a test whose program is absent is skipped, and the run says so at its end."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.objects import OVERLAYS, Installation, built, in_compose, in_kubernetes
from tests.deploy.programs import Program, ProgramAbsent, find, run

ABSENT = pytest.StashKey[dict[str, str]]()

Judge = Callable[..., str]


def skip(request: pytest.FixtureRequest, absent: ProgramAbsent) -> None:
    request.config.stash.setdefault(ABSENT, {})[absent.program.name] = absent.program.install
    pytest.skip(str(absent))


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Judge:
    """Runs a program, which must be content, and gives back what it printed; skips the test where the program is absent."""

    def judge(program: Program, *arguments: object, folder: Path | None = None, allowed: Sequence[int] = (0,)) -> str:
        try:
            done = run(program, *arguments, folder=folder)
        except ProgramAbsent as absent:
            skip(request, absent)
        printed = done.stdout + done.stderr
        assert done.returncode in allowed, f"{' '.join(map(str, done.args))}\n{printed}"
        return printed

    return judge


@pytest.fixture
def where(request: pytest.FixtureRequest) -> Callable[[Program], str]:
    """Where a program lies; skips the test where it is absent."""

    def where(program: Program) -> str:
        try:
            return find(program)
        except ProgramAbsent as absent:
            skip(request, absent)
            raise

    return where


def objects_of(overlay: str, request: pytest.FixtureRequest) -> tuple[dict[str, Any], ...]:
    try:
        return built(overlay)
    except ProgramAbsent as absent:
        skip(request, absent)
        raise


@pytest.fixture(params=OVERLAYS)
def objects(request: pytest.FixtureRequest) -> tuple[dict[str, Any], ...]:
    """The objects of each overlay in turn."""
    return objects_of(request.param, request)


@pytest.fixture
def single(request: pytest.FixtureRequest) -> tuple[dict[str, Any], ...]:
    """The objects of the overlay with one pod."""
    return objects_of("single", request)


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> tuple[dict[str, Any], ...]:
    """The objects of the overlay with several pods."""
    return objects_of("cluster", request)


@pytest.fixture(params=["compose", *OVERLAYS])
def installation(request: pytest.FixtureRequest) -> Installation:
    """Every place where a daemon is deployed."""
    try:
        return in_compose() if request.param == "compose" else in_kubernetes(request.param)
    except ProgramAbsent as absent:
        skip(request, absent)
        raise


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Says which deployment files nobody has judged."""
    for name, install in sorted(config.stash.get(ABSENT, {}).items()):
        terminalreporter.write_line(f"NOT TESTED by {name}: it is not installed; {install}", red=True, bold=True)
