"""Kafka as a source: membership, outages, retention, transactions and damage, on a real broker."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka import KafkaProducer, TopicPartition
from pydantic import SecretStr

from monitor.config import KafkaSettings
from monitor.errors import MissingCodec, SourceError, SourceUnavailable
from monitor.sources.kafka import KafkaSource, landing
from monitor.sources.kafka_client import check_codecs, connection_options, pin_logging
from monitor.sources.protocol import Interruption, InterruptionKind, Polled
from monitor.types import Partition, Record
from tests.kafka.reading import LIMIT_S, interruptions_of, read, read_all, settle, values, write
from tests.kafka.server import PASSWORD, USER, Kafka, LocalKafka, free_port

EXPIRED, REPLACED, TRUNCATED = InterruptionKind.EXPIRED, InterruptionKind.REPLACED, InterruptionKind.TRUNCATED


def kafka_settings(kafka: Kafka, topic: str, **changes: object) -> KafkaSettings:
    defaults = {"bootstrap_servers": (kafka.bootstrap,), "topics": (topic,), "group_id": uuid.uuid4().hex}
    return KafkaSettings(**(defaults | changes))


def wait_for(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not happen"
        time.sleep(0.05)


@pytest.fixture
def opened() -> Iterator[Callable[[KafkaSettings], KafkaSource]]:
    sources: list[KafkaSource] = []

    def open_source(settings: KafkaSettings) -> KafkaSource:
        sources.append(KafkaSource(settings))
        return sources[-1]

    yield open_source
    for source in sources:
        source.close()


Opened = Callable[[KafkaSettings], KafkaSource]


# --- where a saved position leads --------------------------------------------------------------


@pytest.mark.parametrize(
    ("offset", "saved", "now", "expected"),
    [
        (None, "", "A", (10, None)),
        (None, "B", "A", (10, None)),
        (10, "A", "A", (10, None)),
        (15, "A", "A", (15, None)),
        (20, "A", "A", (20, None)),
        (9, "A", "A", (10, EXPIRED)),
        (21, "A", "A", (20, TRUNCATED)),
        (15, "B", "A", (10, REPLACED)),
        (9, "B", "A", (10, REPLACED)),
        (15, "", "A", (15, None)),
        (15, "A", "", (15, None)),
        (21, "", "A", (10, REPLACED)),
        (21, "A", "", (10, REPLACED)),
        (9, "", "", (10, EXPIRED)),
    ],
)
def test_a_saved_position_leads_to(offset: int | None, saved: str, now: str, expected: tuple[int, InterruptionKind | None]) -> None:
    assert landing(offset, saved, identity=now, begin=10, end=20, start="earliest") == expected


def test_without_a_saved_position_the_start_decides() -> None:
    assert landing(None, "", identity="A", begin=10, end=20, start="latest") == (20, None)


@given(
    offset=st.none() | st.integers(0, 30),
    saved=st.sampled_from(["", "A", "B"]),
    now=st.sampled_from(["", "A"]),
    begin=st.integers(0, 20),
    length=st.integers(0, 10),
)
def test_reading_goes_on_within_the_log_and_a_move_is_always_told(
    offset: int | None, saved: str, now: str, begin: int, length: int
) -> None:
    goal, broken = landing(offset, saved, identity=now, begin=begin, end=begin + length, start="earliest")
    assert begin <= goal <= begin + length
    if offset is not None and goal != offset:
        assert broken is not None


# --- what is checked before a connection -------------------------------------------------------


def test_every_missing_codec_is_named() -> None:
    with pytest.raises(MissingCodec, match="lz4, python-snappy;"):
        check_codecs(lambda module: None if module in {"lz4", "snappy"} else module)
    check_codecs()


def test_the_client_never_logs_at_debug_because_passwords_would_show() -> None:
    names = ("kafka", "kafka.protocol.parser", "kafkaesque")
    before = [logging.getLogger(name).level for name in names]
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.DEBUG)
        pin_logging()
        assert [logging.getLogger(name).level for name in names] == [logging.INFO, logging.INFO, logging.DEBUG]
        logging.getLogger("kafka").setLevel(logging.ERROR)
        pin_logging()
        assert logging.getLogger("kafka").level == logging.ERROR
    finally:
        for name, level in zip(names, before, strict=True):
            logging.getLogger(name).setLevel(level)


def test_security_settings_reach_the_client(tmp_path: Path) -> None:
    (tmp_path / "password").write_text("from-a-file\n")
    options = connection_options(
        KafkaSettings(
            security_protocol="SASL_SSL",
            ssl_cafile=Path("/ca.pem"),
            ssl_certfile=Path("/cert.pem"),
            ssl_keyfile=Path("/key.pem"),
            ssl_key_password=SecretStr("key-password"),
            sasl_username="reader",
            sasl_password_file=tmp_path / "password",
            request_timeout=timedelta(seconds=7),
        )
    )
    assert (
        options.items()
        >= {
            "security_protocol": "SASL_SSL",
            "ssl_cafile": "/ca.pem",
            "ssl_certfile": "/cert.pem",
            "ssl_keyfile": "/key.pem",
            "ssl_password": "key-password",
            "sasl_mechanism": "SCRAM-SHA-512",
            "sasl_plain_username": "reader",
            "sasl_plain_password": "from-a-file",
            "request_timeout_ms": 7_000,
            "bootstrap_timeout_ms": 7_000,
            "allow_auto_create_topics": False,
        }.items()
    )
    plain = connection_options(KafkaSettings(ssl_cafile=Path("/ca.pem")))
    assert not [name for name in plain if name.startswith(("ssl", "sasl"))]


def test_a_cluster_that_is_down_is_unavailable_in_bounded_time_and_leaves_no_thread() -> None:
    before = threading.active_count()
    settings = KafkaSettings(bootstrap_servers=(f"127.0.0.1:{free_port()}",), request_timeout=timedelta(seconds=2))
    begun_s = time.monotonic()
    with pytest.raises(SourceUnavailable, match="does not answer"):
        KafkaSource(settings)
    assert time.monotonic() - begun_s < 10
    assert threading.active_count() == before


def test_time_limits_that_contradict_each_other_are_a_source_error() -> None:
    with pytest.raises(SourceError, match="with these settings") as caught:
        KafkaSource(KafkaSettings(request_timeout=timedelta(milliseconds=200)))
    assert not isinstance(caught.value, SourceUnavailable)


# --- records -----------------------------------------------------------------------------------


@pytest.mark.kafka
def test_a_missing_topic_is_named_with_the_way_to_create_it(kafka: Kafka, opened: Opened) -> None:
    settings = kafka_settings(kafka, kafka.create_topic())
    before = threading.active_count()
    with pytest.raises(SourceError, match="no such topic: nowhere") as caught:
        opened(settings.model_copy(update={"topics": (*settings.topics, "nowhere")}))
    assert "--create --topic nowhere" in str(caught.value)
    assert threading.active_count() == before


@pytest.mark.kafka
@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_read(kafka: Kafka, opened: Opened, codec: str | None) -> None:
    topic = kafka.create_topic()
    messages: list[bytes | None] = [b'{"headline": "bank %d"}' % number for number in range(500)]
    write(kafka.bootstrap, topic, messages, codec=codec)
    assert values(read(opened(kafka_settings(kafka, topic)), 500)) == messages


@pytest.mark.kafka
def test_poison_arrives_as_the_bytes_that_it_is(kafka: Kafka, opened: Opened) -> None:
    topic = kafka.create_topic()
    poison = [b"\xff\xfe", b"", None, b"\x00" * 10, b"{", b'{"fine": true}', b"x" * 900_000]
    write(kafka.bootstrap, topic, poison)
    records = read(opened(kafka_settings(kafka, topic)), len(poison))
    assert values(records) == poison
    assert {record.key for record in records} == {b"key"}


@pytest.mark.kafka
def test_several_topics_are_read_together(kafka: Kafka, opened: Opened) -> None:
    topics = (kafka.create_topic(), kafka.create_topic(partitions=2))
    write(kafka.bootstrap, topics[0], [b"a"])
    write(kafka.bootstrap, topics[1], [b"b"], partition=1)
    source = opened(kafka_settings(kafka, topics[0], topics=topics))
    assert len(settle(source, 3)) == 3
    records = read(source, 2)
    assert {(record.partition, record.value) for record in records} == {
        (Partition(topics[0], 0), b"a"),
        (Partition(topics[1], 1), b"b"),
    }
    assert set(source.end_offsets().values()) == {0, 1}


@pytest.mark.kafka
def test_aborted_records_are_not_news_and_markers_are_no_loss(kafka: Kafka, opened: Opened) -> None:
    topic = kafka.create_topic()
    with closing(KafkaProducer(bootstrap_servers=kafka.bootstrap, transactional_id=uuid.uuid4().hex)) as producer:
        producer.init_transactions()
        for value, good in ((b"a", True), (b"bad", False), (b"b", True), (b"worse", False)):
            producer.begin_transaction()
            producer.send(topic, value).get(timeout=30)
            if good:
                producer.commit_transaction()
            else:
                producer.abort_transaction()
    source = opened(kafka_settings(kafka, topic))
    (partition,) = settle(source)
    source.seek(partition, 0, source.identity(partition))
    records = read(source, 2)
    assert [(record.offset, record.value) for record in records] == [(0, b"a"), (4, b"b")]
    # The log ends at 8, behind what will never be delivered; a reader of all that there is must find itself at the end.
    wait_for(lambda: source.poll(0.1) == Polled() and source.end_offsets() == {partition: 5})
    write(kafka.bootstrap, topic, [b"c"])
    assert [(record.offset, record.value) for record in read(source, 1)] == [(8, b"c")]


# --- positions ---------------------------------------------------------------------------------


@pytest.mark.kafka
def test_retention_that_passed_the_saved_position_is_told(kafka: Kafka, opened: Opened) -> None:
    topic = kafka.create_topic()
    write(kafka.bootstrap, topic, [b"%d" % number for number in range(10)])
    kafka.delete_records(topic, 7)
    source = opened(kafka_settings(kafka, topic))
    (partition,) = settle(source)
    source.seek(partition, 3, source.identity(partition))
    records, interruptions = read_all(source, 3)
    assert interruptions == [Interruption(partition, EXPIRED, 3, 7)]
    assert values(records) == [b"7", b"8", b"9"]


@pytest.mark.kafka
@pytest.mark.parametrize("left", [2, 0])
def test_retention_that_overtakes_a_reader_is_told(kafka: Kafka, opened: Opened, left: int) -> None:
    topic = kafka.create_topic()
    write(kafka.bootstrap, topic, [b"0", b"1"])
    source = opened(kafka_settings(kafka, topic))
    (partition,) = settle(source)
    source.seek(partition, 0, source.identity(partition))
    read(source, 2)
    source.pause()
    # Long enough for the request that is under way: it would bring what is written next.
    source.poll(1.5)
    write(kafka.bootstrap, topic, [b"%d" % number for number in range(2, 10)])
    kafka.delete_records(topic, 10 - left)
    source.resume()
    if left:
        records, interruptions = read_all(source, left)
        assert values(records) == [b"8", b"9"]
    else:
        interruptions = interruptions_of(source)
    assert interruptions == [Interruption(partition, EXPIRED, 2, 10 - left)]
    assert source.end_offsets() == {partition: 10}
    assert source.poll(0.2) == Polled()


@pytest.mark.kafka
def test_a_topic_that_is_made_anew_while_it_is_read_is_another_log(kafka: Kafka, opened: Opened) -> None:
    topic = kafka.create_topic()
    write(kafka.bootstrap, topic, [b"a", b"b", b"c"])
    source = opened(kafka_settings(kafka, topic))
    (partition,) = settle(source)
    source.seek(partition, 0, source.identity(partition))
    read(source, 3)
    identity = source.identity(partition)
    kafka.delete_topic(topic)
    wait_for(lambda: topic_is_made(kafka, topic))
    write(kafka.bootstrap, topic, [b"d"])
    records, interruptions = read_all(source, 1)
    # If the client notices the gap, it loses the partition for a moment; then it is for the new claim to tell.
    if interruptions:
        assert interruptions == [Interruption(partition, REPLACED, 3, 0)]
    assert [(record.offset, record.value) for record in records] == [(0, b"d")]
    assert source.identity(partition) not in {identity, ""}


def topic_is_made(kafka: Kafka, topic: str) -> bool:
    from kafka.errors import TopicAlreadyExistsError

    try:
        kafka.create_topic(topic)
    except TopicAlreadyExistsError:
        return False
    return True


@pytest.mark.kafka
def test_a_topic_that_is_gone_makes_the_source_unavailable(kafka: Kafka) -> None:
    topic = kafka.create_topic()
    source = KafkaSource(kafka_settings(kafka, topic), gone_after_s=0.5)
    settle(source)
    kafka.delete_topic(topic)
    deadline_s = time.monotonic() + LIMIT_S
    with pytest.raises(SourceUnavailable, match="gone"):  # noqa: PT012 (which poll it is depends on the cluster)
        while time.monotonic() < deadline_s:
            source.poll(0.2)
    with pytest.raises(SourceUnavailable, match="gone"):
        source.poll(0.2)
    source.close()


@pytest.mark.kafka
def test_a_position_that_is_not_ours_is_not_sought(kafka: Kafka, opened: Opened) -> None:
    topic = kafka.create_topic()
    write(kafka.bootstrap, topic, [b"a"])
    source = opened(kafka_settings(kafka, topic))
    (partition,) = settle(source)
    source.seek(Partition("elsewhere", 5), 3, "")
    source.seek(partition, 0, "")
    assert values(read(source, 1)) == [b"a"]


@pytest.mark.kafka
def test_a_hint_is_what_lag_tools_see(kafka: Kafka, opened: Opened) -> None:
    topic = kafka.create_topic()
    write(kafka.bootstrap, topic, [b"a", b"b"])
    settings = kafka_settings(kafka, topic)
    source = opened(settings)
    (partition,) = settle(source)
    read(source, 2)
    source.hint({partition: 1})

    def committed() -> int | None:
        with closing(kafka.admin()) as admin:
            found = admin.list_group_offsets(settings.group_id)
        offset = found.get(settings.group_id, found).get(TopicPartition(topic, 0))
        return None if offset is None else offset.offset

    wait_for(lambda: committed() == 1)


# --- the group ---------------------------------------------------------------------------------


@dataclass
class Member:
    """A member of a group that polls in a thread of its own and notes what it is given."""

    settings: KafkaSettings
    generations: list[tuple[int, frozenset[Partition]]] = field(default_factory=list)
    records: list[Record] = field(default_factory=list)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    @property
    def partitions(self) -> frozenset[Partition]:
        return self.generations[-1][1] if self.generations else frozenset()

    def _run(self) -> None:
        try:
            with closing(KafkaSource(self.settings)) as source:
                while not self._leaving.is_set():
                    self.records += source.poll(0.2).records
                    assignment = source.assignment()
                    if not self.generations or self.generations[-1][0] != assignment.generation:
                        self.generations.append((assignment.generation, assignment.partitions))
                        for partition in assignment.partitions:
                            source.seek(partition, None, "")
        except Exception as error:  # noqa: BLE001 (told to the test)
            self.error = error

    def leave(self) -> None:
        self._leaving.set()
        self._thread.join(LIMIT_S)
        assert self.error is None


@pytest.mark.kafka
def test_members_share_the_partitions_and_every_move_is_a_new_generation(kafka: Kafka) -> None:
    topic = kafka.create_topic(partitions=2)
    both = frozenset({Partition(topic, 0), Partition(topic, 1)})
    settings = kafka_settings(kafka, topic)
    first = Member(settings)
    wait_for(lambda: first.partitions == both)
    second = Member(settings)
    wait_for(lambda: len(first.partitions) == len(second.partitions) == 1)
    assert first.partitions | second.partitions == both
    write(kafka.bootstrap, topic, [b"a"], partition=0)
    write(kafka.bootstrap, topic, [b"b"], partition=1)
    wait_for(lambda: len(first.records) == len(second.records) == 1)
    second.leave()
    wait_for(lambda: first.partitions == both)
    # Every claim is void now, so the partition that stayed is read anew as well, from where the claim says.
    wait_for(lambda: len(first.records) == 3)
    first.leave()
    numbers = [generation for generation, _ in first.generations]
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= 4, "a join must not set off another"


@pytest.mark.kafka
def test_a_member_that_was_put_out_knows_it_before_it_polls_again(local_kafka: LocalKafka, opened: Opened) -> None:
    topic = local_kafka.create_topic()
    write(local_kafka.bootstrap, topic, [b"a"])
    short = {"session_timeout": timedelta(seconds=3), "max_poll_interval": timedelta(seconds=2)}
    source = opened(kafka_settings(local_kafka, topic, **short))
    (partition,) = settle(source)
    before = source.assignment()
    assert before.partitions == {partition}
    wait_for(lambda: source.assignment() != before)
    assert source.assignment().generation > before.generation
    assert source.assignment().partitions == frozenset()
    out = source.assignment().generation
    source.seek(partition, 0, "")
    settle(source)
    assert source.assignment().generation > out
    assert values(read(source, 1)) == [b"a"]


@pytest.mark.kafka
def test_the_poll_in_which_partitions_become_ours_brings_no_record(kafka: Kafka, opened: Opened) -> None:
    topic = kafka.create_topic()
    write(kafka.bootstrap, topic, [b"a", b"b"])
    source = opened(kafka_settings(kafka, topic))
    while not source.assignment().partitions:
        assert source.poll(0.2) == Polled()
    assert values(read(source, 2)) == [b"a", b"b"]


# --- outages and damage ------------------------------------------------------------------------


@pytest.mark.kafka
def test_a_broker_that_restarts_is_waited_for(fresh_kafka: LocalKafka, opened: Opened) -> None:
    topic = fresh_kafka.create_topic()
    write(fresh_kafka.bootstrap, topic, [b"a", b"b"])
    source = opened(kafka_settings(fresh_kafka, topic, session_timeout=timedelta(seconds=10)))
    (partition,) = settle(source)
    source.seek(partition, 0, source.identity(partition))
    read(source, 2)
    fresh_kafka.kill()
    for _ in range(3):
        begun_s = time.monotonic()
        assert source.poll(0.3) == Polled()
        assert time.monotonic() - begun_s < 3
    begun_s = time.monotonic()
    source.hint({partition: 2})
    with pytest.raises(SourceUnavailable):
        source.end_offsets()
    assert time.monotonic() - begun_s < 10
    source.seek(partition, 1, source.identity(partition))
    assert source.poll(0.3) == Polled()
    fresh_kafka.start()
    write(fresh_kafka.bootstrap, topic, [b"c"])
    records = read(source, 2)
    assert [(record.offset, record.value) for record in records] == [(1, b"b"), (2, b"c")]
    fresh_kafka.stop()
    begun_s = time.monotonic()
    source.close()
    assert time.monotonic() - begun_s < 8


@pytest.mark.kafka
def test_a_damaged_batch_makes_the_source_unavailable_and_never_spins(fresh_kafka: LocalKafka, opened: Opened) -> None:
    topic = fresh_kafka.create_topic()
    write(fresh_kafka.bootstrap, topic, [b"good"])
    write(fresh_kafka.bootstrap, topic, [b"to be damaged"])
    fresh_kafka.stop()
    (segment,) = (fresh_kafka.folder / "data" / f"{topic}-0").glob("*.log")
    segment.write_bytes(segment.read_bytes().replace(b"to be damaged", b"to be DAMAGED"))
    fresh_kafka.start()
    source = opened(kafka_settings(fresh_kafka, topic))
    assert values(read(source, 1)) == [b"good"]
    deadline_s = time.monotonic() + LIMIT_S
    with pytest.raises(SourceUnavailable, match="crc"):  # noqa: PT012 (which poll meets it depends on the fetch)
        while time.monotonic() < deadline_s:
            assert source.poll(0.2) == Polled()
    with pytest.raises(SourceUnavailable):
        source.poll(0.2)


# --- who may read ------------------------------------------------------------------------------


@pytest.mark.kafka
def test_a_password_lets_us_in_and_stays_secret(local_kafka: LocalKafka, opened: Opened, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    topic = local_kafka.create_topic()
    write(local_kafka.bootstrap, topic, [b"a"])
    settings = kafka_settings(
        local_kafka,
        topic,
        bootstrap_servers=(local_kafka.sasl_bootstrap,),
        security_protocol="SASL_PLAINTEXT",
        sasl_mechanism="PLAIN",
        sasl_username=USER,
        sasl_password=SecretStr(PASSWORD),
        request_timeout=timedelta(seconds=4),
    )
    assert values(read(opened(settings), 1)) == [b"a"]
    wrong = settings.model_copy(update={"sasl_password": SecretStr("a-wrong-password")})
    with pytest.raises(SourceUnavailable) as caught:
        opened(wrong)
    assert caplog.records
    for secret in (PASSWORD, "a-wrong-password"):
        assert secret not in caplog.text
        assert secret not in str(caught.value)
