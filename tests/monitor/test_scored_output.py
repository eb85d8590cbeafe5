"""What is placed becomes messages that keep to the published schema, and stays what it is while the broker is away."""

import json
import os
import threading
import time
import uuid
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import timedelta

import jsonschema
import pytest
from confluent_kafka import Consumer, TopicPartition
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from sqlalchemy import text

from monitor.checking import check_topics
from monitor.config import KafkaSettings, Settings
from monitor.errors import SourceError, SourceUnavailable
from monitor.metrics import Metrics
from monitor.scored_output import ScoredOutput, document_id, message
from monitor.sources.kafka_topic import KafkaTopic
from monitor.store.engine import open_engine, writing
from monitor.store.lease import Lease
from monitor.store.ledger import Ledger
from monitor.store.publications import PUBLISHER, PlacedDocument, Publications
from monitor.store.schema import document
from monitor.stories import Placed, Placement, Standing
from monitor.types import TONES, Partition, PublicationStatus, SevereEvent, Stance
from tests.fakes import a_scored
from tests.readme import README

SCHEMA = json.loads((README.parent / "monitor" / "schemas" / "news.scored.v1.json").read_text(encoding="utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
BEGIN_MS = 1_772_431_200_000
WHOLE = PlacedDocument(
    document_key=0x4C9F0F7C03F9D2AB,
    partition=Partition("news.raw", 3),
    offset=1_048,
    received_ms=BEGIN_MS,
    published_ms=BEGIN_MS - 1_750,
    uri="urn:1",
    version="2",
    source="wire",
    language="zh",
    status="usable",
    headline="哈尔登银行 “falls”",
    standing="copy",
    story_id=7,
    topic="fraud",
    stance=Stance("negative", -9_113),
    toward=(("norvik", Stance("uncertain", 0)), ("halden", Stance("positive", 10_000))),
    events=(("halden", "fraud", "critical"),),
    model="model",
)


@pytest.fixture
def engine(database):
    engine = open_engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def file_engine(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    yield engine
    engine.dispose()


def scored(key, received_ms=BEGIN_MS, **changes):
    return a_scored(key, Partition("news.raw", 0), received_ms, **changes)


def settle(engine, *items, standing=Standing.STORY):
    """Places documents as a leader does."""
    lease = Lease(engine, "leader")
    assert lease.acquire()
    placed = [Placed(item, standing, None if standing is Standing.STALE else item.document_key) for item in items]
    Ledger(engine).settle(Placement(tuple(placed)), (), lease)
    lease.release()


def keys(pending):
    return [item.document_key for item in pending.documents]


# --- the message --------------------------------------------------------------------------------


def test_a_message_says_all_that_is_known_of_a_document():
    assert json.loads(message(WHOLE)) == {
        "schema_version": 1,
        "id": "4c9f0f7c03f9d2ab",
        "uri": "urn:1",
        "version": "2",
        "record": {"topic": "news.raw", "partition": 3, "offset": 1_048},
        "received_at": "2026-03-02T06:00:00.000Z",
        "published_at": "2026-03-02T05:59:58.250Z",
        "source": "wire",
        "language": "zh",
        "pubstatus": "usable",
        "headline": "哈尔登银行 “falls”",
        "standing": "copy",
        "story_id": "0000000000000007",
        "topic": "fraud",
        "tone": "negative",
        "score": -0.9113,
        "entities": [{"id": "norvik", "tone": "uncertain", "score": 0.0}, {"id": "halden", "tone": "positive", "score": 1.0}],
        "events": [{"entity": "halden", "category": "fraud", "severity": "critical"}],
        "model": "model",
    }


def test_the_schema_describes_every_field_and_holds_its_own_examples():
    VALIDATOR.check_schema(SCHEMA)
    said = json.loads(message(WHOLE))
    assert list(said) == list(SCHEMA["properties"])
    for name in ("entities", "events"):
        assert said[name][0].keys() == SCHEMA["properties"][name]["items"]["properties"].keys()
    assert said["record"].keys() == SCHEMA["properties"]["record"]["properties"].keys()
    for example in SCHEMA["examples"]:
        VALIDATOR.validate(example)


lines = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20)
stances = st.builds(Stance, st.sampled_from(TONES), st.integers(-10_000, 10_000))
times = st.one_of(st.integers(0, 2 * BEGIN_MS), st.sampled_from([-62_135_596_800_001, -62_200_000_000_000, 253_402_300_800_000]))
documents = st.builds(
    PlacedDocument,
    document_key=st.integers(0, 2**63 - 1),
    partition=st.builds(Partition, lines, st.integers(0, 9)),
    offset=st.integers(0, 2**63 - 1),
    received_ms=times,
    published_ms=st.none() | times,
    uri=lines,
    version=lines,
    source=lines,
    language=lines,
    status=st.sampled_from([str(status) for status in PublicationStatus]),
    headline=lines,
    standing=st.sampled_from(["story", "copy"]),
    story_id=st.integers(0, 2**63 - 1),
    topic=lines,
    stance=stances,
    toward=st.lists(st.tuples(lines, stances), max_size=3).map(tuple),
    events=st.lists(st.tuples(lines, lines, st.sampled_from(["critical", "warning"])), max_size=2).map(tuple),
    model=lines,
)


@given(documents, st.booleans())
def test_every_message_keeps_to_the_schema(placed, stale):
    if stale:
        placed = replace(placed, standing="stale", story_id=None)
    said = json.loads(message(placed))
    VALIDATOR.validate(said)
    assert (said["uri"], said["headline"], int(said["id"], 16)) == (placed.uri, placed.headline, placed.document_key)
    assert round(said["score"] * 10_000) == placed.stance.score_units


def test_what_is_no_message_does_not_keep_to_the_schema():
    said = json.loads(message(WHOLE))
    wrong = [
        {"schema_version": 2},
        {"id": "7"},
        {"score": 1.1},
        {"standing": "duplicate"},
        {"standing": "stale"},
        {"received_at": "2026-03-02"},
        {"entities": [{"id": "halden"}]},
    ]
    assert all(not VALIDATOR.is_valid(said | change) for change in wrong)
    assert not any(VALIDATOR.is_valid({name: said[name] for name in said if name != missing}) for missing in SCHEMA["required"])


# --- what comes next ----------------------------------------------------------------------------


def test_a_document_is_published_as_it_was_placed(engine):
    toward = (("norvik", Stance("uncertain", 0)), ("halden", Stance("positive", 10_000)))
    event = SevereEvent("halden", "fraud", "critical", 9_000)
    settle(engine, scored(5, published_ms=BEGIN_MS - 1_750, toward=toward, events=(event,)), standing=Standing.COPY)
    settle(engine, scored(6, toward=toward), standing=Standing.STALE)
    publications = Publications(engine, "news.scored")
    publications.begin()
    counted, stale = publications.pending(10).documents
    assert (counted.toward, counted.events, counted.story_id) == (toward, (("halden", "fraud", "critical"),), 5)
    assert (counted.published_ms, counted.topic, counted.stance) == (BEGIN_MS - 1_750, "fraud", Stance("negative", -9_000))
    assert (stale.toward, stale.standing, stale.story_id) == (toward, "stale", None)


def test_a_late_document_comes_after_those_that_were_placed_before_it(engine):
    publications, lease = Publications(engine, "news.scored"), Lease(engine, "me", PUBLISHER)
    publications.begin()
    settle(engine, scored(1, BEGIN_MS), scored(2, BEGIN_MS + 60_000))
    first = publications.pending(10)
    assert lease.acquire()
    publications.confirm(first.until, lease)
    settle(engine, scored(3, BEGIN_MS - 3_600_000))
    assert (keys(first), keys(publications.pending(10))) == ([1, 2], [3])


def test_a_topic_that_is_new_gets_what_is_kept_and_each_topic_has_its_own_cursor(engine):
    settle(engine, scored(1), scored(2))
    with writing(engine) as connection:
        connection.execute(document.delete().where(document.c.document_key == 1))
    one, other, lease = Publications(engine, "one"), Publications(engine, "other"), Lease(engine, "me", PUBLISHER)
    one.begin()
    settle(engine, scored(3))
    found = one.pending(10)
    assert (keys(found), found.lost, found.waiting) == ([2, 3], 0, 2)
    assert lease.acquire()
    one.confirm(found.until, lease)
    one.begin()
    other.begin()
    assert (keys(one.pending(10)), keys(other.pending(10))) == ([], [2, 3])


def test_what_an_older_version_placed_is_not_published_and_what_comes_after_it_is(engine):
    settle(engine, scored(1), scored(2))
    with writing(engine) as connection:
        connection.execute(text("UPDATE document SET place = NULL"))
    publications = Publications(engine, "news.scored")
    publications.begin()
    assert publications.pending(10).waiting == 0
    settle(engine, scored(3))
    found = publications.pending(10)
    assert (keys(found), found.lost, found.waiting) == ([3], 0, 1)


def test_a_repeated_document_leaves_no_gap_that_would_look_like_a_loss(engine):
    publications = Publications(engine, "news.scored")
    publications.begin()
    settle(engine, scored(1))
    settle(engine, scored(1), standing=Standing.DUPLICATE)
    settle(engine, scored(2))
    found = publications.pending(10)
    assert (keys(found), found.lost) == ([1, 2], 0)


# --- the thread ---------------------------------------------------------------------------------


@dataclass
class Broker:
    """Takes messages, but for the times that it is away."""

    away: int = 0
    log: list = field(default_factory=list)
    opened: int = 0

    def open(self):
        self.opened += 1
        if self.away > 0:
            self.away -= 1
            raise SourceUnavailable("nobody answers")
        return self

    def append(self, messages):
        self.log.extend(messages)

    def close(self):
        pass


def output(engine, open_topic, topic="news.scored", **changes):
    fields = {
        "publications": Publications(engine, topic),
        "lease": Lease(engine, "me", PUBLISHER),
        "open_topic": open_topic,
        "metrics": Metrics(CollectorRegistry(), [], []),
        "wall_ms": lambda: BEGIN_MS + 90_000,
    }
    return ScoredOutput(**(fields | changes))


def metric(output, name):
    return output.metrics.registry.get_sample_value(f"bellwether_output_{name}")


def test_while_the_broker_is_away_it_waits_says_for_how_long_and_goes_on(engine):
    broker = Broker(away=1)
    settle(engine, scored(1), scored(2))
    found = output(engine, broker.open)
    with pytest.raises(SourceUnavailable):
        found.turn()
    assert [metric(found, name) for name in ("waiting", "age_seconds", "published_total")] == [2, 90, 0]
    assert not found.turn()
    assert [metric(found, name) for name in ("waiting", "age_seconds", "published_total")] == [0, 0, 2]
    assert [key for key, _ in broker.log] == [document_id(number).encode() for number in (1, 2)]


def test_an_instance_that_does_not_publish_looks_on(engine):
    brokers = [Broker(), Broker()]
    one, other = (output(engine, broker.open) for broker in brokers)
    one.turn()
    settle(engine, scored(1))
    other.turn()
    assert (brokers[1].log, metric(other, "waiting")) == ([], 0)
    one.turn()
    assert len(brokers[0].log) == 1


def test_the_thread_outlives_a_broker_that_is_away_and_publishes_the_rest_at_the_end(engine):
    broker, stop = Broker(away=1), threading.Event()
    settle(engine, *(scored(number) for number in range(25)))
    found = output(engine, broker.open, at_once=10)
    thread = threading.Thread(target=found.run, args=(stop,))
    thread.start()
    deadline_s = time.monotonic() + 60
    while metric(found, "failures_total") == 0:
        assert time.monotonic() < deadline_s, "it did not try"
        time.sleep(0.01)
    stop.set()
    thread.join(60)
    assert not thread.is_alive()
    assert [key for key, _ in broker.log] == [document_id(number).encode() for number in range(25)]
    # Its lease is free at once: the next instance need not wait.
    assert Lease(engine, "you", PUBLISHER).acquire()


# --- the configuration --------------------------------------------------------------------------


def test_a_topic_that_is_read_is_not_written():
    source = {"kind": "kafka", "kafka": {"topics": ["news.raw", "news.scored"]}}
    with pytest.raises(ValueError, match=r"must not be one of source\.kafka\.topics"):
        Settings(source=source, output={"topic": "news.scored"})
    assert Settings(source=source | {"kind": "file"}, output={"topic": "news.scored"}).output.topic == "news.scored"


# --- Kafka itself -------------------------------------------------------------------------------


def kafka_settings(kafka, **changes):
    return KafkaSettings(bootstrap_servers=(kafka.bootstrap,), **changes)


def read_back(bootstrap, topic):
    """All messages of a topic, as a client of another make sees them: (key, value) by partition and offset."""
    with closing(Consumer({"bootstrap.servers": bootstrap, "group.id": uuid.uuid4().hex})) as consumer:
        partitions = [TopicPartition(topic, number, 0) for number in consumer.list_topics(topic).topics[topic].partitions]
        expected = sum(consumer.get_watermark_offsets(partition)[1] for partition in partitions)
        consumer.assign(partitions)
        found, deadline_s = [], time.monotonic() + 60
        while len(found) < expected:
            assert time.monotonic() < deadline_s, f"only {len(found)} of {expected} messages came"
            found.extend(consumer.consume(num_messages=1_000, timeout=0.5))
    assert all(item.error() is None for item in found)
    return [(item.key(), item.value()) for item in sorted(found, key=lambda item: (item.partition(), item.offset()))]


@pytest.mark.kafka
def test_a_topic_of_kafka_has_what_it_took_and_another_client_reads_it(kafka, file_engine):
    name = kafka.create_topic(partitions=1)
    settle(file_engine, *(scored(number) for number in range(250)))
    with closing(KafkaTopic(kafka_settings(kafka), name)) as topic:
        found = output(file_engine, lambda: topic, name, at_once=100)
        while found.turn():
            pass
    messages = read_back(kafka.bootstrap, name)
    assert [key for key, _ in messages] == [document_id(number).encode() for number in range(250)]
    for key, value in messages:
        said = json.loads(value)
        VALIDATOR.validate(said)
        assert said["id"].encode() == key


@pytest.mark.kafka
def test_topics_that_do_not_exist_are_named_before_anything_is_sent(kafka):
    name = f"absent-{uuid.uuid4().hex}"
    with pytest.raises(SourceError, match=f"no such topic: {name}"):
        KafkaTopic(kafka_settings(kafka), name)
    there = kafka.create_topic()
    source = {"kind": "kafka", "kafka": {"bootstrap_servers": [kafka.bootstrap], "topics": [there]}}
    with pytest.raises(SourceError, match=f"no such topic: {name}"):
        check_topics(Settings(source=source, output={"topic": name}))
    assert check_topics(Settings(source=source)) == [there]
    assert check_topics(Settings(source=source | {"kind": "file"})) == []


@pytest.mark.kafka
def test_a_message_that_the_topic_does_not_take_is_no_success(kafka):
    name = kafka.create_topic(config={"max.message.bytes": "1000"})
    with closing(KafkaTopic(kafka_settings(kafka), name)) as topic:
        topic.append([(b"key", b"small")])
        with pytest.raises(SourceUnavailable, match="took 0 of 1"):
            topic.append([(b"key", os.urandom(16_000))])


@pytest.mark.kafka
@pytest.mark.slow
def test_a_broker_that_is_killed_in_the_middle_costs_time_and_no_message(fresh_kafka, file_engine):
    name = fresh_kafka.create_topic(partitions=3)
    kafka = kafka_settings(fresh_kafka, request_timeout=timedelta(seconds=2))
    settle(file_engine, *(scored(number) for number in range(400)))
    found, stop = output(file_engine, lambda: KafkaTopic(kafka, name), name, at_once=20), threading.Event()
    thread = threading.Thread(target=found.run, args=(stop,))
    thread.start()
    deadline_s = time.monotonic() + 120
    while not metric(found, "published_total"):
        assert time.monotonic() < deadline_s, "nothing was published"
    fresh_kafka.kill()
    while metric(found, "waiting") and not metric(found, "failures_total"):
        assert time.monotonic() < deadline_s, "nobody noticed"
        time.sleep(0.01)
    fresh_kafka.restart()
    while metric(found, "published_total") < 400:
        assert time.monotonic() < deadline_s, "it did not go on"
        time.sleep(0.05)
    stop.set()
    thread.join(60)
    messages = dict(read_back(fresh_kafka.bootstrap, name))
    assert messages.keys() == {document_id(number).encode() for number in range(400)}
