"""What tests of sources do again and again: settle in a group, read so many records, write so many messages."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing

from kafka import KafkaProducer

from monitor.sources.protocol import Interruption, Source
from monitor.types import Partition, Record

LIMIT_S = 40.0


def settle(source: Source, partitions: int = 1) -> list[Partition]:
    """The partitions of the source, once there are so many."""
    deadline_s = time.monotonic() + LIMIT_S
    while len(source.assignment().partitions) != partitions:
        assert time.monotonic() < deadline_s, f"not settled: {source.assignment()}"
        source.poll(0.2)
    return sorted(source.assignment().partitions)


def read(source: Source, count: int) -> list[Record]:
    """The next `count` records; fails on more, and on an interruption."""
    records, interruptions = read_all(source, count)
    assert interruptions == []
    return records


def read_all(source: Source, count: int) -> tuple[list[Record], list[Interruption]]:
    """The next `count` records and the interruptions among them."""
    records: list[Record] = []
    interruptions: list[Interruption] = []
    deadline_s = time.monotonic() + LIMIT_S
    while len(records) < count:
        assert time.monotonic() < deadline_s, f"only {len(records)} of {count} records came"
        polled = source.poll(0.2)
        records.extend(polled.records)
        interruptions.extend(polled.interruptions)
    assert len(records) == count
    return records, interruptions


def interruptions_of(source: Source) -> list[Interruption]:
    """What the next poll that is not empty says was broken."""
    deadline_s = time.monotonic() + LIMIT_S
    while True:
        assert time.monotonic() < deadline_s, "nothing came"
        polled = source.poll(0.2)
        if polled.records or polled.interruptions:
            return list(polled.interruptions)


def values(records: Iterable[Record]) -> list[bytes | None]:
    """The bytes of the records."""
    return [record.value for record in records]


def write(bootstrap: str, topic: str, messages: Iterable[bytes | None], *, partition: int = 0, codec: str | None = None) -> None:
    """Appends messages to a partition and waits until they are stored."""
    with closing(KafkaProducer(bootstrap_servers=bootstrap, compression_type=codec, linger_ms=20)) as producer:
        outcomes = [producer.send(topic, message, key=b"key", partition=partition) for message in messages]
        producer.flush(30)
        for outcome in outcomes:
            outcome.get(timeout=30)
