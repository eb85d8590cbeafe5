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
from tests.faults.cluster import SEED
from tests.monitor.test_scored_output import SCHEMA, read_back

RECORDS, PARTITIONS, KILLS = 3_000, 3, 4


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


def stored(kafka, output):
    """How many messages the broker holds."""
    with closing(Consumer({"bootstrap.servers": kafka.bootstrap, "group.id": "looks-on"})) as consumer:
        return consumer.get_watermark_offsets(TopicPartition(output, 0))[1]


def placed(bellwether):
    """The documents of the database, in the order in which they were placed."""
    engine = open_engine(bellwether.url)
    with reading(engine) as connection:
        found = connection.execute(select(document.c.document_key, document.c.uri).order_by(document.c.place)).all()
    engine.dispose()
    return [(document_id(key), uri) for key, uri in found]


def first_of_each(messages):
    """Each key's first message, in order; that those which repeat it are the same bytes was asked before."""
    found = {}
    for key, value in messages:
        assert found.setdefault(key, value) == value
    return found


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_while_it_publishes_every_placed_document_is_there_once_by_its_key(tmp_path, kafka):
    chance = random.Random(SEED)
    print(f"seed {SEED}: BELLWETHER_TEST_SEED={SEED} repeats it")
    topic = kafka.create_topic(partitions=PARTITIONS, config={"retention.ms": "-1"})
    outputs = [kafka.create_topic() for _ in range(2)]
    lines = list(stream(RECORDS))
    expected = sum(line.outcome == "counted" for line in lines)
    sent = publish((line.value + b"\n" for line in lines), KafkaSettings(bootstrap_servers=(kafka.bootstrap,)), topic)
    assert (sent.sent, sent.failed) == (RECORDS, 0)

    calm, stormy = (
        installation(tmp_path / name, kafka, topic, name_of) for name, name_of in zip(("calm", "stormy"), outputs, strict=True)
    )
    calm.start()
    until(lambda: published(calm) >= expected, 240, "everything published")
    assert calm.terminate() == 0, calm.log[-3000:]

    published_at_kill, stored_at_kill = [], []
    for _ in range(KILLS):
        before = stored(kafka, outputs[1])
        stormy.start()
        # The broker has some of it, and the database does not know that yet, or does; then comes the end.
        until(lambda before=before: stored(kafka, outputs[1]) > before or before >= expected, 120, "something published")
        time.sleep(chance.choice([0.0, 0.0, 0.1]))
        stormy.kill()
        published_at_kill.append(published(stormy))
        stored_at_kill.append(stored(kafka, outputs[1]))
    stormy.start()
    until(lambda: published(stormy) >= expected, 240, "everything published")
    assert stormy.terminate() == 0, stormy.log[-3000:]
    print(f"published at each kill: {published_at_kill}; stored by the broker: {stored_at_kill}")
    assert published_at_kill == sorted(published_at_kill)

    told = []
    for bellwether, output in zip((calm, stormy), outputs, strict=True):
        messages = read_back(kafka.bootstrap, output)
        print(f"{len(messages)} messages for {expected} documents")
        once = first_of_each(messages)
        assert [key.decode() for key in once] == [key for key, _ in placed(bellwether)]
        said = [json.loads(value) for value in once.values()]
        assert [item["uri"] for item in said] == [uri for _, uri in placed(bellwether)]
        assert len(said) == expected
        validator = jsonschema.Draft202012Validator(SCHEMA)
        for item in said[::50]:
            validator.validate(item)
        told.append(once)
    # Of one log two databases tell the same, in the same order, in the same bytes.
    assert list(told[0].items()) == list(told[1].items())
