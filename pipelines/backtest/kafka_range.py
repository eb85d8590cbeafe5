"""A range of a Kafka log in, its records in the order of stream time out: read beside every consumer group, committing nothing."""

from __future__ import annotations

import heapq
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from monitor.config import KafkaSettings
from monitor.decode import received_time_ms
from monitor.errors import ConfigurationError, SourceUnavailable
from monitor.sources.kafka_client import (
    check_codecs,
    connection_options,
    describe,
    milliseconds,
    open_client,
    pin_logging,
    require_topics,
)
from monitor.sources.times import wall_clock_ms
from monitor.types import Partition, Record
from pipelines.backtest.archive import ARCHIVE

_ENOUGH: Final = 5_000
"""A partition of which so many records wait is not asked for more: another one is behind."""
_POLL_MS: Final = 500
_SILENT_S: Final = 60.0


@dataclass(slots=True)
class _Reading:
    """One partition: where it ends for us, the records that wait, and how far its time is."""

    partition: Partition
    begin: int
    end: int
    waiting: deque[tuple[int, int, bytes | None]] = field(default_factory=deque)
    time_ms: int | None = None
    done: bool = False


@dataclass(slots=True)
class KafkaRange:
    """What of a log is read: `offsets` maps a partition to its first offset and the one behind its last; None: all partitions, as
    the times say. Times are the records' own, `from_ms` up to and without `until_ms`; None: as far as the log goes.

    It ends where the log ended when reading began. `records` and `read` count what there is to read and what was read.
    """

    settings: KafkaSettings
    from_ms: int | None = None
    until_ms: int | None = None
    offsets: Mapping[int, tuple[int, int]] | None = None
    max_ahead_ms: int = 300_000
    records: int = 0
    read: int = 0

    def merged(self) -> Iterator[Record]:
        """The records as those of one log, in the order in which a leader would place them: by time, topic, partition, offset.

        Raises SourceError, SourceUnavailable when Kafka does not answer, ConfigurationError for a partition that does not exist.
        """
        check_codecs()
        pin_logging()
        options = connection_options(self.settings) | {
            "group_id": None,
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            "max_poll_records": self.settings.max_poll_records,
            "metrics_enabled": False,
        }
        consumer, client = open_client(KafkaConsumer, options)
        with closing(consumer):
            timeout_ms = milliseconds(self.settings.request_timeout)
            require_topics(client, self.settings.topics, self.settings.bootstrap_servers, timeout_ms)
            with _translated():
                readings = self._begin(consumer)
            self.records = sum(reading.end - reading.begin for reading in readings.values())
            for offset, (time_ms, _, _, value) in enumerate(self._in_order(consumer, readings)):
                yield Record(ARCHIVE, offset, offset + 1, time_ms, value)

    def _begin(self, consumer: Any) -> dict[TopicPartition, _Reading]:
        """Assigns the partitions and seeks to where each begins; those with nothing to read are left out."""
        theirs = [
            TopicPartition(topic, number)
            for topic in self.settings.topics
            for number in sorted(consumer.partitions_for_topic(topic) or ())
        ]
        if self.offsets is not None:
            known = {partition.partition for partition in theirs}
            unknown = sorted(self.offsets.keys() - known)
            if unknown:
                raise ConfigurationError("--offsets", [f"there is no partition {number}" for number in unknown])
            theirs = [partition for partition in theirs if partition.partition in self.offsets]
        consumer.assign(theirs)
        begins, ends = consumer.beginning_offsets(theirs), consumer.end_offsets(theirs)
        after_from = {} if self.from_ms is None else consumer.offsets_for_times(dict.fromkeys(theirs, self.from_ms))
        readings = {}
        for partition in theirs:
            begin, end = begins[partition], ends[partition]
            if self.offsets is not None:
                first, behind = self.offsets[partition.partition]
                begin, end = max(begin, first), min(end, behind)
            if self.from_ms is not None:
                found = after_from[partition]
                begin = end if found is None else max(begin, found.offset)
            if begin < end:
                readings[partition] = _Reading(Partition(partition.topic, partition.partition), begin, end)
        consumer.assign(list(readings))
        for partition, reading in readings.items():
            consumer.seek(partition, reading.begin)
        return readings

    def _in_order(
        self, consumer: Any, readings: Mapping[TopicPartition, _Reading]
    ) -> Iterator[tuple[int, Partition, int, bytes | None]]:
        heads: list[tuple[int, Partition, int, bytes | None]] = []
        lacking = list(readings.values())
        while True:
            while lacking:
                lacking = [reading for reading in lacking if not self._offer(reading, heads)]
                if lacking:
                    self._fill(consumer, readings)
            if not heads:
                return
            head = heapq.heappop(heads)
            yield head
            lacking = [readings[TopicPartition(head[1].topic, head[1].number)]]

    def _offer(self, reading: _Reading, heads: list[tuple[int, Partition, int, bytes | None]]) -> bool:
        """Lays the partition's next record beside those of the others; whether nothing more is to be read for that."""
        if reading.waiting:
            time_ms, offset, value = reading.waiting.popleft()
            heapq.heappush(heads, (time_ms, reading.partition, offset, value))
            return True
        return reading.done

    def _fill(self, consumer: Any, readings: Mapping[TopicPartition, _Reading]) -> None:
        """Reads on where little waits. Raises SourceUnavailable when nothing comes for a minute."""
        hungry = [partition for partition, reading in readings.items() if not reading.done and len(reading.waiting) < _ENOUGH]
        full = [partition for partition in readings if partition not in hungry]
        deadline_s = time.monotonic() + _SILENT_S
        with _translated():
            consumer.pause(*full)
            consumer.resume(*hungry)
            while True:
                fetched = consumer.poll(timeout_ms=_POLL_MS)
                for partition, messages in fetched.items():
                    self._take(readings[partition], messages)
                for partition in hungry:
                    # Behind the last record there may be markers of transactions, which are no records.
                    readings[partition].done |= consumer.position(partition) >= readings[partition].end
                if fetched or any(readings[partition].done for partition in hungry):
                    return
                if time.monotonic() > deadline_s:
                    raise SourceUnavailable(f"Kafka has brought nothing for {_SILENT_S:.0f} s")

    def _take(self, reading: _Reading, messages: Sequence[Any]) -> None:
        for message in messages:
            if reading.done or message.offset >= reading.end:
                reading.done = True
                return
            self.read += 1
            reading.time_ms, _ = received_time_ms(message.timestamp, reading.time_ms, wall_clock_ms(), self.max_ahead_ms)
            if self.until_ms is not None and reading.time_ms >= self.until_ms:
                reading.done = True
                return
            if self.from_ms is None or reading.time_ms >= self.from_ms:
                reading.waiting.append((reading.time_ms, message.offset, message.value))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except KafkaError as error:
        raise SourceUnavailable(f"Kafka does not answer: {describe(error)}") from error
