"""Family 15: every kind of record that cannot be read, through a real Kafka. Each is one dead letter, and its neighbours count."""

from contextlib import contextmanager

import pytest
from kafka import KafkaProducer
from sqlalchemy import select

from monitor.config import KafkaSettings, SourceSettings
from monitor.store.engine import open_engine, reading
from monitor.store.schema import dead_letter, document
from tests.end_to_end.stream import BEGIN
from tests.faults.oracles import balance
from tests.faults.tailing import news, running, until_placed
from tests.monitor.test_decode import UNDECODABLE

MOST_BYTES = 300 * 2**20


def reading_kafka(folder, engine, kafka, topic):
    """A daemon that reads a topic, until the end of the block."""
    source = KafkaSettings(bootstrap_servers=(kafka.bootstrap,), topics=(topic,), group_id=f"group-{topic}")
    return running(folder, engine, source=SourceSettings(kind="kafka", kafka=source))


@contextmanager
def producing(kafka, **options):
    producer = KafkaProducer(bootstrap_servers=kafka.bootstrap, max_request_size=MOST_BYTES, **options)
    try:
        yield producer
        producer.flush(120)
    finally:
        producer.close(10)


@pytest.mark.kafka
def test_each_poison_is_one_dead_letter_with_its_reason_and_every_neighbour_counts(tmp_path, kafka):
    topic = kafka.create_topic(config={"max.message.bytes": str(MOST_BYTES), "retention.ms": "-1"})
    with producing(kafka) as producer:
        for number, (value, _, _) in enumerate(UNDECODABLE.values()):
            producer.send(topic, value, key=b"k")
            producer.send(topic, news(f"neighbour:{number}", f"Halden loses case {number}", received_at=BEGIN))
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with reading_kafka(tmp_path, engine, kafka, topic):
        until_placed(engine, 2 * len(UNDECODABLE))
    assert balance(engine) == []
    with reading(engine) as connection:
        letters = {row.offset: row.reason for row in connection.execute(select(dead_letter.c["offset"], dead_letter.c.reason))}
        uris = sorted(connection.scalars(select(document.c.uri)))
    engine.dispose()
    assert letters == {2 * number: str(reason) for number, (_, reason, _) in enumerate(UNDECODABLE.values())}
    assert uris == sorted(f"neighbour:{number}" for number in range(len(UNDECODABLE)))
