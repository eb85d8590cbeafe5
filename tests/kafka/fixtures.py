"""The fixtures that lend a test a running Kafka, or skip it and say loudly why."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kafka.server import VARIABLE, Kafka, KafkaAbsent, LocalKafka, start_local

ABSENT = pytest.StashKey[str]()
LOGS = pytest.StashKey[list[str]]()


def _start(request: pytest.FixtureRequest, factory: pytest.TempPathFactory) -> LocalKafka:
    absent = request.config.stash.get(ABSENT, "")
    if not absent:
        try:
            server = start_local(factory.mktemp("kafka"))
        except KafkaAbsent as error:
            absent = request.config.stash[ABSENT] = str(error)
        else:
            request.config.stash.setdefault(LOGS, []).append(str(server.log))
            return server
    pytest.skip(f"no Kafka: {absent}; or set {VARIABLE}=host:port")


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker that all tests share: the one that the environment names, or our own. Nobody stops it."""
    if os.environ.get(VARIABLE):
        yield Kafka(bootstrap=os.environ[VARIABLE])
        return
    server = _start(request, tmp_path_factory)
    yield server
    server.stop()


@pytest.fixture
def fresh_kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker for one test, which may stop, kill and restart it."""
    if os.environ.get(VARIABLE):
        pytest.skip(f"this test stops the broker, and {VARIABLE} names one that is not ours")
    server = _start(request, tmp_path_factory)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def local_kafka(kafka: Kafka) -> LocalKafka:
    """The shared broker where it is our own, with its SASL listener."""
    if not isinstance(kafka, LocalKafka):
        pytest.skip(f"this test needs a listener that the broker of {VARIABLE} may not have")
    return kafka


def report_absence(terminalreporter: pytest.TerminalReporter, exitstatus: int, config: pytest.Config) -> None:
    """Says what was not tested for want of a Kafka, and where its log lies when something failed."""
    if absent := config.stash.get(ABSENT, ""):
        terminalreporter.write_line(f"NOT TESTED against a real Kafka: {absent}", red=True, bold=True)
    if exitstatus:
        for log in config.stash.get(LOGS, []):
            terminalreporter.write_line(f"log of the Kafka of this run: {log}")
