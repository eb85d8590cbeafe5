"""The fixtures that lend a test a running Kafka, or skip it and say loudly why."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.kafka.server import VARIABLE, Kafka, KafkaAbsent, LocalKafka, start_local
from tests.lending import Lender

LENDER = Lender("Kafka", start_local, KafkaAbsent, f"{VARIABLE}=host:port")


@pytest.fixture(scope="session")
def kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kafka]:
    """A broker that all tests share: the one that the environment names, or our own. Nobody stops it."""
    if os.environ.get(VARIABLE):
        yield Kafka(bootstrap=os.environ[VARIABLE])
        return
    server = LENDER.lend(request, tmp_path_factory)
    yield server
    server.stop()


@pytest.fixture
def fresh_kafka(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalKafka]:
    """A broker for one test, which may stop, kill and restart it."""
    if os.environ.get(VARIABLE):
        pytest.skip(f"this test stops the broker, and {VARIABLE} names one that is not ours")
    server = LENDER.lend(request, tmp_path_factory)
    yield server
    server.kill()


@pytest.fixture(scope="session")
def local_kafka(kafka: Kafka) -> LocalKafka:
    """The shared broker where it is our own, with its SASL listener."""
    if not isinstance(kafka, LocalKafka):
        pytest.skip(f"this test needs a listener that the broker of {VARIABLE} may not have")
    return kafka
