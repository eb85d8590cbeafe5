"""The contract of a source, held against every implementation: a tailed file, and a real Kafka."""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import pytest
from kafka.errors import TopicAlreadyExistsError

from monitor.config import FileSettings, KafkaSettings
from monitor.errors import SourceError, SourceUnavailable
from monitor.sources.file import FileSource
from monitor.sources.kafka import KafkaSource
from monitor.sources.protocol import Interruption, InterruptionKind, Polled, Source
from monitor.types import Partition
from tests.kafka.reading import interruptions_of, read, read_all, settle, values, write
from tests.kafka.server import Kafka

Start = Literal["earliest", "latest"]


class Log(Protocol):
    """A log that a test can write to and open."""

    def write(self, *values: bytes) -> None: ...
    def open(self, start: Start = "earliest") -> Source: ...
    def open_unreadable(self) -> Source: ...
    def replace(self) -> None: ...


@dataclass
class FileLog:
    path: Path

    def write(self, *values: bytes) -> None:
        with self.path.open("ab") as file:
            file.writelines(value + b"\n" for value in values)

    def open(self, start: Start = "earliest") -> Source:
        return FileSource(FileSettings(path=str(self.path), start=start))

    def replace(self) -> None:
        self.path.unlink()

    def open_unreadable(self) -> Source:
        self.path.mkdir()
        return self.open()


@dataclass
class KafkaLog:
    kafka: Kafka
    topic: str
    group: str = field(default_factory=lambda: uuid.uuid4().hex)

    def write(self, *values: bytes) -> None:
        write(self.kafka.bootstrap, self.topic, values)

    def open(self, start: Start = "earliest") -> Source:
        settings = KafkaSettings(bootstrap_servers=(self.kafka.bootstrap,), topics=(self.topic,), group_id=self.group, start=start)
        return KafkaSource(settings)

    def replace(self) -> None:
        self.kafka.delete_topic(self.topic)
        deadline_s = time.monotonic() + 20
        while True:
            try:
                self.kafka.create_topic(self.topic)
            except TopicAlreadyExistsError:
                # The deletion takes its time.
                assert time.monotonic() < deadline_s
                time.sleep(0.2)
            else:
                return

    def open_unreadable(self) -> Source:
        self.topic = "nowhere-to-be-found"
        return self.open()


@pytest.fixture(params=["file", pytest.param("kafka", marks=pytest.mark.kafka)])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Log:
    if request.param == "file":
        return FileLog(tmp_path / "news.jsonl")
    kafka: Kafka = request.getfixturevalue("kafka")
    return KafkaLog(kafka, kafka.create_topic())


@pytest.fixture
def opened(log: Log) -> Iterator[Callable[..., Source]]:
    """Opens sources on the log and closes them after the test."""
    sources: list[Source] = []

    def open_source(start: Start = "earliest") -> Source:
        sources.append(log.open(start))
        return sources[-1]

    yield open_source
    for source in sources:
        source.close()


def test_records_come_in_order_and_their_offsets_form_a_chain(log: Log, opened: Callable[..., Source]) -> None:
    written = [b'{"n": %d}' % number for number in range(50)]
    log.write(*written)
    source = opened()
    (partition,) = settle(source)
    source.seek(partition, None, "")
    records = read(source, 50)
    assert values(records) == written
    assert {record.partition for record in records} == {partition}
    assert all(before.next_offset == after.offset for before, after in itertools.pairwise(records))
    assert records[0].offset == 0
    assert source.end_offsets() == {partition: records[-1].next_offset}


def test_a_partition_that_nobody_sought_is_read_from_its_beginning(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a", b"b")
    assert values(read(opened(), 2)) == [b"a", b"b"]


def test_a_record_carries_a_time_of_today(log: Log, opened: Callable[..., Source]) -> None:
    before_ms = time.time_ns() // 1_000_000
    log.write(b"a")
    (record,) = read(opened(), 1)
    assert before_ms - 1 <= record.time_ms <= time.time_ns() // 1_000_000


def test_seeking_back_delivers_the_same_records_again(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a", b"b", b"c")
    source = opened()
    (partition,) = settle(source)
    source.seek(partition, None, "")
    first = read(source, 3)
    source.seek(partition, first[1].offset, source.identity(partition))
    assert [(record.offset, record.value) for record in read(source, 2)] == [(record.offset, record.value) for record in first[1:]]
    source.seek(partition, None, "")
    assert values(read(source, 3)) == [b"a", b"b", b"c"]


def test_a_saved_position_is_resumed_exactly_by_a_new_source(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a", b"b", b"c")
    first = opened()
    (partition,) = settle(first)
    first.seek(partition, None, "")
    records = read(first, 3)
    identity = first.identity(partition)
    first.close()
    log.write(b"d")
    second = opened()
    (partition,) = settle(second)
    second.seek(partition, records[1].next_offset, identity)
    assert values(read(second, 2)) == [b"c", b"d"]


def test_the_end_as_a_saved_position_brings_only_what_is_new(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    first = opened()
    (partition,) = settle(first)
    (record,) = read(first, 1)
    identity = first.identity(partition)
    first.close()
    second = opened()
    (partition,) = settle(second)
    second.seek(partition, record.next_offset, identity)
    assert second.poll(0.1) == Polled()
    assert second.end_offsets() == {partition: record.next_offset}
    log.write(b"b")
    assert values(read(second, 1)) == [b"b"]


def test_records_fetched_before_a_seek_are_dropped(log: Log, opened: Callable[..., Source]) -> None:
    log.write(*(b"%d" % number for number in range(5_000)))
    source = opened()
    (partition,) = settle(source)
    source.seek(partition, None, "")
    polled = source.poll(5)
    while not polled.records:
        polled = source.poll(5)
    assert len(polled.records) < 5_000
    source.seek(partition, polled.records[7].offset, source.identity(partition))
    assert values(read(source, 4_993)) == [b"%d" % number for number in range(7, 5_000)]


def test_the_latest_start_skips_what_is_there(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"old")
    source = opened("latest")
    (partition,) = settle(source)
    source.seek(partition, None, "")
    source.poll(0.1)
    log.write(b"new")
    assert values(read(source, 1)) == [b"new"]


def test_the_end_moves_with_the_log_before_anything_is_read(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    source = opened()
    (partition,) = settle(source)
    source.seek(partition, None, "")
    (record,) = read(source, 1)
    log.write(b"b")
    assert source.end_offsets()[partition] > record.next_offset
    (record,) = read(source, 1)
    assert source.end_offsets() == {partition: record.next_offset}


def test_a_paused_source_brings_nothing_and_loses_nothing(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    source = opened()
    (partition,) = settle(source)
    source.seek(partition, None, "")
    assert values(read(source, 1)) == [b"a"]
    generation = source.assignment().generation
    source.pause()
    log.write(b"b")
    assert [source.poll(0.2) for _ in range(3)] == [Polled()] * 3
    assert source.assignment().generation == generation
    source.resume()
    assert values(read(source, 1)) == [b"b"]


def test_a_seek_while_paused_is_done_on_resuming(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a", b"b")
    source = opened()
    (partition,) = settle(source)
    records = read(source, 2)
    source.pause()
    source.seek(partition, records[1].offset, source.identity(partition))
    assert source.poll(0.1) == Polled()
    source.resume()
    assert values(read(source, 1)) == [b"b"]


def test_an_empty_poll_returns_within_its_time(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    source = opened()
    settle(source)
    read(source, 1)
    begun_s = time.monotonic()
    assert source.poll(0.3) == Polled()
    took_s = time.monotonic() - begun_s
    assert 0.2 < took_s < 3.0
    begun_s = time.monotonic()
    source.poll(0.0)
    assert time.monotonic() - begun_s < 1.0


def test_what_is_written_during_a_poll_ends_it(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    source = opened()
    settle(source)
    read(source, 1)
    log.write(b"b")
    begun_s = time.monotonic()
    assert values(source.poll(20).records) == [b"b"]
    assert time.monotonic() - begun_s < 10


def test_the_same_log_has_the_same_identity_when_opened_again(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    identities = []
    for _ in range(2):
        with closing(opened()) as source:
            (partition,) = settle(source)
            read(source, 1)
            source.seek(partition, 0, "")
            identities.append(source.identity(partition))
    assert identities[0] == identities[1] != ""


def test_another_log_under_the_same_name_is_read_from_its_beginning(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a", b"b")
    first = opened()
    (partition,) = settle(first)
    records = read(first, 2)
    identity = first.identity(partition)
    first.close()
    log.replace()
    log.write(b"c", b"d", b"e")
    second = opened()
    (partition,) = settle(second)
    second.seek(partition, records[0].next_offset, identity)
    again, interruptions = read_all(second, 3)
    assert interruptions == [Interruption(partition, InterruptionKind.REPLACED, records[0].next_offset, 0)]
    assert values(again) == [b"c", b"d", b"e"]
    assert second.identity(partition) != identity


def test_an_interruption_comes_once_and_before_the_records_behind_it(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    source = opened()
    (partition,) = settle(source)
    source.seek(partition, 1_000_000, "")
    (interruption,) = interruptions_of(source)
    assert interruption.partition == partition
    assert (interruption.expected_offset, interruption.next_offset) == (1_000_000, 0)
    source.seek(partition, 0, "")
    assert values(read(source, 1)) == [b"a"]


def test_the_assignment_keeps_its_generation_while_nothing_moves(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    source = opened()
    (partition,) = settle(source)
    before = source.assignment()
    read(source, 1)
    source.seek(partition, 0, source.identity(partition))
    read(source, 1)
    source.hint({partition: 1})
    source.end_offsets()
    assert source.assignment() == before
    assert before.partitions == {partition}


def test_every_partition_of_the_log_is_known_ours_or_not(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    source = opened()
    (partition,) = settle(source)
    assert source.partitions() == {partition}


def test_a_hint_never_raises(log: Log, opened: Callable[..., Source]) -> None:
    log.write(b"a")
    source = opened()
    source.hint({Partition("nowhere", 3): 5})
    (partition,) = settle(source)
    source.hint({partition: 0})
    read(source, 1)
    source.hint({partition: 1})
    source.hint({partition: -5})
    source.close()
    source.hint({partition: 1})


def test_a_log_that_cannot_be_read_is_a_source_error(log: Log) -> None:
    with pytest.raises(SourceError) as caught:
        log.open_unreadable()
    assert not isinstance(caught.value, SourceUnavailable)


def test_a_source_is_closed_twice_without_harm_and_not_polled_any_more(log: Log) -> None:
    log.write(b"a")
    source = log.open()
    settle(source)
    source.close()
    source.close()
    with pytest.raises(SourceUnavailable, match="closed"):
        source.poll(0.1)
