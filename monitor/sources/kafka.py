"""Kafka topics, shared among a consumer group, in; records from exactly the saved positions out.

Errors of the client that it calls retriable are ridden out as empty polls. Every other error of its own, and any error of the
codec libraries below it (a batch that fails its checksum or cannot be unpacked), is `SourceUnavailable`: the client is unusable
from then on, because it would spin on such a batch for ever.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.errors import KafkaError
from kafka.structs import MemberState

from monitor.config import KafkaSettings
from monitor.errors import SourceError, SourceUnavailable
from monitor.sources.kafka_client import (
    check_codecs,
    connection_options,
    describe,
    milliseconds,
    open_client,
    pin_logging,
    refresh_metadata,
    require_topics,
    topic_id,
)
from monitor.sources.protocol import Assignment, Interruption, InterruptionKind, Polled
from monitor.sources.times import wall_clock_ms
from monitor.types import Partition, Record

JOIN_S: Final = 15.0
"""A poll waits so long for the group: joining must not be left half done while other work goes on."""

JOIN_SLICE_S: Final = 0.5
ANSWER_S: Final = 5.0
CLOSE_MS: Final = 5_000
RETRY_S: Final = 0.1
GONE_AFTER_S: Final = 30.0
"""A topic that the cluster has not known for so long is gone."""

Answer = TypeVar("Answer")


@dataclass(slots=True)
class Reading:
    """How far a partition was read since it was last sought.

    `read_offset` is the next offset of the log to be looked at, `given_offset` where the last record given out ended: what lies
    between them holds no record (transaction markers, compacted records).
    """

    read_offset: int
    given_offset: int
    identity: str
    leader_epoch: int = -1


def landing(
    offset: int | None,
    saved_identity: str,
    *,
    identity: str,
    begin: int,
    end: int,
    start: Literal["earliest", "latest"],
) -> tuple[int, InterruptionKind | None]:
    """Where reading goes on in a log that holds [begin, end) for a position saved under `saved_identity`, and what is broken.

    A log that ends before the position is a log that was cut off, if it is known to be the same one; reading it from its
    beginning would count all of it twice, so it goes on at its end. Otherwise it is another log, and all of it is new.
    """
    known = bool(saved_identity and identity)
    if offset is None:
        return (begin if start == "earliest" else end), None
    if known and saved_identity != identity:
        return begin, InterruptionKind.REPLACED
    if offset < begin:
        return begin, InterruptionKind.EXPIRED
    if offset > end:
        return (end, InterruptionKind.TRUNCATED) if known else (begin, InterruptionKind.REPLACED)
    return offset, None


class KafkaSource:
    """A `Source` over topics of Kafka, as one member of a consumer group.

    Positions live elsewhere; what the group keeps of them (`hint`) is for lag tools. A partition that was never sought since it
    became ours is read from there, else from its earliest record. A poll in which partitions became ours brings no records.
    Raises MissingCodec, SourceError for a topic that does not exist, SourceUnavailable when the cluster does not answer within
    the request timeout, ConfigurationError for a secret that cannot be read.
    """

    def __init__(
        self,
        settings: KafkaSettings,
        *,
        clock_ms: Callable[[], int] = wall_clock_ms,
        gone_after_s: float = GONE_AFTER_S,
    ) -> None:
        check_codecs()
        pin_logging()
        self._settings = settings
        self._clock_ms = clock_ms
        self._gone_after_s = gone_after_s
        self._assignment = Assignment(0, frozenset())
        self._membership: tuple[int, str, frozenset[Partition]] | None = None
        self._readings: dict[Partition, Reading] = {}
        self._sought: dict[Partition, tuple[int | None, str]] = {}
        self._paused = False
        self._closed = False
        self._failure: str | None = None
        self._topic_missing_since_s: float | None = None
        self._consumer, self._client = open_client(KafkaConsumer, _consumer_options(settings))
        try:
            self._consumer.subscribe(list(settings.topics))
            require_topics(self._client, settings.topics, settings.bootstrap_servers, milliseconds(settings.request_timeout))
        except (SourceError, KafkaError, ValueError) as error:
            self.close()
            if isinstance(error, SourceError):
                raise
            raise SourceError(f"the topics cannot be subscribed to: {describe(error)}") from error

    def poll(self, wait_s: float) -> Polled:
        """As `Source.poll`. While the group forms it takes up to `JOIN_S` seconds, or `wait_s` if that is longer."""
        self._refuse_if_unusable()
        self._observe()
        interruptions: list[Interruption] = []
        if self._paused:
            self._consumer.pause(*self._consumer.assignment())
        else:
            interruptions = self._land(wait_s)
        fetched = self._fetch(0.0 if interruptions else wait_s)
        self._refuse_missing_topics()
        if self._observe() or self._paused:
            self._give_back(fetched)
            return Polled()
        return self._polled(fetched, interruptions)

    def assignment(self) -> Assignment:
        """As `Source.assignment`: empty, under a new generation, as soon as the group has put us out."""
        self._observe()
        return self._assignment

    def partitions(self) -> frozenset[Partition]:
        """As `Source.partitions`; a topic that is gone has none."""
        return frozenset(
            Partition(topic, number)
            for topic in self._settings.topics
            for number in self._client.cluster.partitions_for_topic(topic) or ()
        )

    def identity(self, partition: Partition) -> str:
        """The id of the partition's topic; "" where the cluster is too old to give one."""
        reading = self._readings.get(partition)
        return reading.identity if reading is not None and reading.identity else topic_id(self._client, partition.topic)

    def seek(self, partition: Partition, offset: int | None, identity: str) -> None:
        """As `Source.seek`; the cluster is asked by the next poll. A partition that is not ours any more is left alone."""
        if partition in self._assignment.partitions:
            self._sought[partition] = (offset, identity)

    @property
    def exhausted(self) -> bool:
        """A topic never ends."""
        return False

    def positions(self) -> Mapping[Partition, int]:
        """As `Source.positions`: the end of the last record given, since `end_offsets` leaves out what is no record too."""
        return {partition: reading.given_offset for partition, reading in self._readings.items() if partition not in self._sought}

    def end_offsets(self) -> Mapping[Partition, int]:
        """As `Source.end_offsets`, within `ANSWER_S` seconds; where no record is left to read, the end of the last one given."""
        self._refuse_if_unusable()
        partitions = self._assignment.partitions
        ends = self._ask(lambda: self._consumer.end_offsets(_theirs(partitions), timeout_ms=int(ANSWER_S * 1_000)))
        if ends is None:
            raise SourceUnavailable("Kafka does not tell where the partitions end")
        return {partition: self._end(partition, ends[_its(partition)]) for partition in partitions}

    def hint(self, positions: Mapping[Partition, int]) -> None:
        """As `Source.hint`: an asynchronous commit whose outcome nobody waits for."""
        offsets = {
            _its(partition): OffsetAndMetadata(offset, "", self._readings[partition].leader_epoch)
            for partition, offset in positions.items()
            if partition in self._readings
        }
        if offsets and not self._closed and self._membership is not None:
            # Whatever is wrong with the group, the next poll says so; the positions that count are saved elsewhere.
            with contextlib.suppress(Exception):
                self._consumer.commit_async(offsets)

    def pause(self) -> None:
        """As `Source.pause`."""
        self._paused = True

    def resume(self) -> None:
        """As `Source.resume`."""
        self._paused = False
        self._consumer.resume(*self._consumer.assignment())

    def close(self) -> None:
        """As `Source.close`, within about `CLOSE_MS` milliseconds."""
        if self._closed:
            return
        self._closed = True
        # Leaving is a courtesy to the group: if it fails, the session timeout does the same.
        with contextlib.suppress(Exception):
            self._consumer.close(autocommit=False, timeout_ms=CLOSE_MS)

    # --- membership ----------------------------------------------------------------------------

    def _observe(self) -> bool:
        """Takes note of who we are in the group now; whether that changed, which makes all that was sought void."""
        group = self._consumer.group_metadata()
        if group.generation_id >= 0 and group.state == MemberState.REBALANCING:
            # The next generation has begun and we do not know our part of it: until we do, the last one is what we have.
            return False
        joined = group.generation_id >= 0 and group.state == MemberState.STABLE
        partitions = self._assigned() if joined else frozenset()
        membership = (group.generation_id, group.member_id, partitions) if joined else None
        if membership == self._membership:
            return False
        self._membership = membership
        self._assignment = Assignment(self._assignment.generation + 1, partitions)
        self._readings.clear()
        self._sought.clear()
        return True

    def _assigned(self) -> frozenset[Partition]:
        return frozenset(Partition(its.topic, its.partition) for its in self._consumer.assignment())

    def _refuse_if_unusable(self) -> None:
        if self._closed:
            raise SourceUnavailable("the source is closed")
        if self._failure is not None:
            raise SourceUnavailable(self._failure)

    def _refuse_missing_topics(self) -> None:
        if all(self._client.cluster.partitions_for_topic(topic) for topic in self._settings.topics):
            self._topic_missing_since_s = None
            return
        now_s = time.monotonic()
        if self._topic_missing_since_s is None:
            self._topic_missing_since_s = now_s
        if now_s - self._topic_missing_since_s >= self._gone_after_s:
            raise self._fail("a topic is gone from the cluster")

    # --- reading -------------------------------------------------------------------------------

    def _fetch(self, wait_s: float) -> dict[TopicPartition, list[Any]]:
        """What the client has. It is polled without a pause while the group forms, else it begins to join again and again."""
        begun_s = time.monotonic()
        slice_s = wait_s if self._stable() else JOIN_SLICE_S
        while True:
            fetched = self._ask(lambda: self._consumer.poll(timeout_ms=int(slice_s * 1_000)))  # noqa: B023 (called at once)
            if fetched:
                return dict(fetched)
            if self._stable() or time.monotonic() - begun_s >= max(wait_s, JOIN_S):
                if fetched is None:
                    time.sleep(min(wait_s, RETRY_S))
                return {}
            if fetched is None:
                time.sleep(RETRY_S)
            slice_s = JOIN_SLICE_S

    def _stable(self) -> bool:
        return bool(self._consumer.group_metadata().state == MemberState.STABLE)

    def _give_back(self, fetched: Mapping[TopicPartition, list[Any]]) -> None:
        for theirs, batch in fetched.items():
            self._consumer.seek(theirs, batch[0].offset)

    def _polled(self, fetched: Mapping[TopicPartition, list[Any]], interruptions: list[Interruption]) -> Polled:
        batches = {Partition(theirs.topic, theirs.partition): batch for theirs, batch in fetched.items()}
        reached: dict[Partition, int] = {}
        for partition in self._assigned() - self._sought.keys():
            batch = batches.get(partition)
            offset = batch[0].offset if batch else self._position(partition)
            if offset is not None and self._is_out_of_step(partition, offset):
                reached[partition] = offset
        interruptions = interruptions + self._judge_gaps(reached)
        records: list[Record] = []
        for partition, batch in batches.items():
            if partition not in self._sought:
                records.extend(self._records(partition, batch))
        return Polled(tuple(records), tuple(interruptions))

    def _is_out_of_step(self, partition: Partition, offset: int) -> bool:
        """Whether the client stands further on than we have read. Where it stands on another log, or before, it is sought anew."""
        identity = topic_id(self._client, partition.topic)
        reading = self._readings.get(partition)
        if reading is None:
            self._readings[partition] = Reading(offset, offset, identity)
            return False
        if offset < reading.read_offset or (reading.identity and identity and identity != reading.identity):
            self._sought[partition] = (reading.given_offset, reading.identity)
            return False
        return offset > reading.read_offset

    def _judge_gaps(self, reached: Mapping[Partition, int]) -> list[Interruption]:
        """The gaps that are losses: the log begins behind where we were. All others are markers or compacted records."""
        if not reached:
            return []
        begins = self._ask(lambda: self._consumer.beginning_offsets(_theirs(reached), timeout_ms=int(ANSWER_S * 1_000)))
        expired = []
        for partition, offset in reached.items():
            reading = self._readings[partition]
            if begins is None:
                self._sought[partition] = (reading.given_offset, reading.identity)
                continue
            begin = begins[_its(partition)]
            if begin > reading.read_offset:
                next_offset = min(begin, offset)
                expired.append(Interruption(partition, InterruptionKind.EXPIRED, reading.given_offset, next_offset))
                reading.given_offset = next_offset
            reading.read_offset = offset
        return expired

    def _records(self, partition: Partition, batch: Iterable[Any]) -> list[Record]:
        records = [self._record(partition, found) for found in batch]
        reading = self._readings[partition]
        reading.read_offset = reading.given_offset = records[-1].next_offset
        return records

    def _record(self, partition: Partition, found: Any) -> Record:
        self._readings[partition].leader_epoch = found.leader_epoch
        time_ms = found.timestamp if found.timestamp >= 0 else self._clock_ms()
        return Record(partition, found.offset, found.offset + 1, time_ms, found.value, found.key)

    def _position(self, partition: Partition) -> int | None:
        return self._ask(lambda: self._consumer.position(_its(partition), timeout_ms=0))

    def _end(self, partition: Partition, end: int) -> int:
        reading = self._readings.get(partition)
        return reading.given_offset if reading is not None and reading.read_offset >= end else end

    # --- seeking -------------------------------------------------------------------------------

    def _land(self, wait_s: float) -> list[Interruption]:
        """Goes to the positions that were sought; the cluster not answering, they stay sought."""
        if not self._sought or not self._assigned() >= self._sought.keys():
            # What a beginning rebalance has taken from the client cannot be sought; if it stays ours, it will be sought again.
            return []
        bounds = self._ask(lambda: self._bounds(self._sought, time.monotonic() + min(max(wait_s, 1.0), ANSWER_S)))
        if bounds is None:
            return []
        interruptions = []
        for partition, (offset, saved_identity) in self._sought.items():
            begin, end = bounds[partition]
            identity = topic_id(self._client, partition.topic)
            goal, broken = landing(offset, saved_identity, identity=identity, begin=begin, end=end, start=self._settings.start)
            self._consumer.seek(_its(partition), goal)
            self._readings[partition] = Reading(goal, goal, identity)
            if broken is not None and offset is not None:
                interruptions.append(Interruption(partition, broken, offset, goal))
        self._sought.clear()
        return interruptions

    def _bounds(self, partitions: Iterable[Partition], deadline_s: float) -> dict[Partition, tuple[int, int]]:
        """The first offset that each partition holds and the one behind its last. Raises KafkaError."""

        def left_ms() -> int:
            return max(1, int((deadline_s - time.monotonic()) * 1_000))

        theirs = _theirs(partitions)
        # The topic may have been created anew since the client last looked.
        refresh_metadata(self._client, left_ms())
        begins = self._consumer.beginning_offsets(theirs, timeout_ms=left_ms())
        ends = self._consumer.end_offsets(theirs, timeout_ms=left_ms())
        return {Partition(its.topic, its.partition): (begins[its], ends[its]) for its in theirs}

    # --- errors --------------------------------------------------------------------------------

    def _ask(self, ask: Callable[[], Answer]) -> Answer | None:
        """The client's answer; None when it failed in a way that passes by itself. Raises SourceUnavailable."""
        try:
            return ask()
        except KafkaError as error:
            if error.retriable:
                return None
            raise self._fail(describe(error)) from error
        except Exception as error:
            # Decompression and parsing raise what their libraries raise.
            raise self._fail(describe(error)) from error

    def _fail(self, reason: str) -> SourceUnavailable:
        self._failure = f"Kafka cannot be read on: {reason}"
        return SourceUnavailable(self._failure)


def _consumer_options(settings: KafkaSettings) -> dict[str, Any]:
    session_ms = milliseconds(settings.session_timeout)
    return connection_options(settings) | {
        "group_id": settings.group_id,
        "group_instance_id": settings.group_instance_id,
        # The positions that count are saved with what was made of the records.
        "enable_auto_commit": False,
        # What stays ours in a rebalance is read on while the rest moves (KIP-429).
        "partition_assignment_strategy": [CooperativeStickyAssignor],
        "auto_offset_reset": "earliest",
        "isolation_level": "read_committed",
        "session_timeout_ms": session_ms,
        "heartbeat_interval_ms": min(3_000, session_ms // 3),
        "max_poll_interval_ms": milliseconds(settings.max_poll_interval),
        "max_poll_records": settings.max_poll_records,
        "fetch_max_bytes": 8_388_608,
        "max_partition_fetch_bytes": 1_048_576,
        "metrics_enabled": False,
    }


def _its(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)


def _theirs(partitions: Iterable[Partition]) -> list[TopicPartition]:
    return [_its(partition) for partition in partitions]
