"""What others build on: killed while it publishes, the daemon has published every placed document, and once by its key."""

import json
import random
import time
from contextlib import closing

import jsonschema
import pytest
from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import select

from monitor.config import KafkaSettings
from monitor.publish import publish
from monitor.scored_output import document_id
from monitor.store.engine import open_engine, reading
from monitor.store.schema import document, publication
from tests.end_to_end.processes import Bellwether, until
from tests.end_to_end.stream import ENTITIES, stream
from tests.faults.cluster import SEED, WAIT_S
from tests.monitor.test_scored_output import SCHEMA, read_back

RECORDS, PARTITIONS, KILLS = 3_000, 3, 3
LINES = list(stream(RECORDS))
EXPECTED = sum(line.outcome == "counted" for line in LINES)


def installation(folder, kafka, topic, output):
    source = {
        "kind": "kafka",
        "kafka": {
            "bootstrap_servers": [kafka.bootstrap],
            "topics": [topic],
            "group_id": f"group-{output}",
            "group_instance_id": "only",
            "session_timeout": "6s",
        },
    }
    sections = {
        "batch": {"max_documents": 64, "max_wait": "100ms"},
        "time": {"idle_after": "2s"},
        "output": {"topic": output},
    }
    return Bellwether(folder, source, entities=ENTITIES, sections=sections)


def published(bellwether):
    """How many documents the database knows to be published; 0 before the first."""
    if not bellwether.database.exists():
        return 0
    engine = open_engine(bellwether.url)
    with reading(engine) as connection:
        found = connection.scalar(select(publication.c.published))
    engine.dispose()
    return found or 0


def kill_while_it_publishes(bellwether, kafka, output, wait_s):
    """Starts the daemon, and kills it `wait_s` after the broker has more messages than before; how many it has then.

    Without a wait the database often does not know of them yet.
    """
    with closing(Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "looks-on"})) as consumer:

        def stored():
            assert bellwether.process.poll() is None, bellwether.log[-3000:]
            return consumer.get_watermark_offsets(TopicPartition(output, 0))[1]

        bellwether.start()
        before = stored()
        until(lambda: stored() > before or published(bellwether) >= EXPECTED, WAIT_S, "something published")
        time.sleep(wait_s)
        bellwether.kill()
        return consumer.get_watermark_offsets(TopicPartition(output, 0))[1]


def placed(bellwether):
    """The documents of the database, in the order in which they were placed."""
    engine = open_engine(bellwether.url)
    with reading(engine) as connection:
        found = connection.execute(select(document.c.document_key, document.c.uri).order_by(document.c.place)).all()
    engine.dispose()
    return [(document_id(key), uri) for key, uri in found]


def first_of_each(messages):
    """Each key's first message, in order; fails where one that repeats it is not the same bytes."""
    found = {}
    for key, value in messages:
        assert found.setdefault(key, value) == value
    return found


@pytest.mark.kafka
@pytest.mark.soak
@pytest.mark.timeout(1_200)
def test_killed_while_it_publishes_every_placed_document_is_there_once_by_its_key(tmp_path, kafka):
    chance = random.Random(SEED)
    print(f"seed {SEED}: BELLWETHER_TEST_SEED={SEED} repeats it")
    topic = kafka.create_topic(partitions=PARTITIONS, config={"retention.ms": "-1"})
    outputs = [kafka.create_topic() for _ in range(2)]
    sent = publish((line.value + b"\n" for line in LINES), KafkaSettings(bootstrap_servers=(kafka.bootstrap,)), topic)
    assert (sent.sent, sent.failed) == (RECORDS, 0)

    calm, stormy = (
        installation(tmp_path / name, kafka, topic, name_of) for name, name_of in zip(("calm", "stormy"), outputs, strict=True)
    )
    calm.start()
    until(lambda: published(calm) >= EXPECTED, WAIT_S, "everything published")
    assert calm.terminate() == 0, calm.log[-3000:]

    published_at_kill, stored_at_kill = [], []
    for _ in range(KILLS):
        stored_at_kill.append(kill_while_it_publishes(stormy, kafka, outputs[1], chance.choice([0.0, 0.0, 0.1])))
        published_at_kill.append(published(stormy))
    stormy.start()
    until(lambda: published(stormy) >= EXPECTED, WAIT_S, "everything published")
    assert stormy.terminate() == 0, stormy.log[-3000:]
    print(f"published at each kill: {published_at_kill}; stored by the broker: {stored_at_kill}")
    assert published_at_kill == sorted(published_at_kill)

    told = []
    for bellwether, output in zip((calm, stormy), outputs, strict=True):
        messages = read_back(kafka.bootstrap, output)
        print(f"{len(messages)} messages for {EXPECTED} documents")
        once = first_of_each(messages)
        assert [key.decode() for key in once] == [key for key, _ in placed(bellwether)]
        said = [json.loads(value) for value in once.values()]
        assert [item["uri"] for item in said] == [uri for _, uri in placed(bellwether)]
        assert len(said) == EXPECTED
        validator = jsonschema.Draft202012Validator(SCHEMA)
        for item in said[::50]:
            validator.validate(item)
        told.append(once)
    # Of one log two databases tell the same, in the same order, in the same bytes.
    assert list(told[0].items()) == list(told[1].items())
