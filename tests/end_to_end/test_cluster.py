"""Three instances on one PostgreSQL, killed, stalled and restarted at random, tell what one instance in peace tells."""

import os
import random
import signal
import time
from collections import Counter

import pytest
from sqlalchemy import select

from monitor.config import KafkaSettings
from monitor.publish import publish
from monitor.store.dead_letters import DeadLetters
from monitor.store.engine import open_engine, reading
from monitor.store.incidents import Incidents
from monitor.store.outbox import SqlOutbox
from monitor.store.schema import document, incident, incident_change, log_partition, scored, tally
from tests.end_to_end.processes import Bellwether, until
from tests.end_to_end.stream import ENTITIES, stream
from tests.end_to_end.test_crash import RULES
from tests.receiver import receiving

RECORDS = int(os.environ.get("BELLWETHER_TEST_CLUSTER_RECORDS", "12000"))
FAULTS = int(os.environ.get("BELLWETHER_TEST_CLUSTER_FAULTS", "12"))
SEED = int(os.environ.get("BELLWETHER_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
PARTITIONS, INSTANCES = 6, 3
SESSION_S = 6


def instance(folder, *, kafka, topic, group, store_url, receiver_url=None):
    source = {
        "kind": "kafka",
        "kafka": {
            "bootstrap_servers": [kafka.bootstrap],
            "topics": [topic],
            "group_id": group,
            "session_timeout": f"{SESSION_S}s",
        },
    }
    sections = {"batch": {"max_documents": 64, "max_wait": "100ms"}, "time": {"idle_after": "3s"}}
    return Bellwether(folder, source, RULES, ENTITIES, receiver_url, sections, store_url=store_url)


def rows(engine, table, *columns):
    with reading(engine) as connection:
        return sorted(map(tuple, connection.execute(select(*columns) if columns else select(table))), key=repr)


def consumed(engine):
    return sum(number for (number,) in rows(engine, log_partition, log_partition.c.consumed))


def until_all_is_told(engine, last_ms):
    until(lambda: consumed(engine) >= RECORDS, 240, "all records saved")
    until(lambda: not rows(engine, scored), 60, "every document placed")
    until(lambda: (Incidents(engine).evaluated_until_ms() or 0) >= last_ms, 60, "the last minute judged")
    until(lambda: SqlOutbox(engine).waiting() == 0, 90, "the outbox empty")


def told(engine):
    """The incidents and their changes, but for what no two databases have in common."""
    return rows(engine, incident), rows(engine, incident_change)


@pytest.mark.kafka
@pytest.mark.postgres
@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_instances_that_are_killed_and_stalled_tell_what_one_in_peace_tells(tmp_path, kafka, postgres):
    chance = random.Random(SEED)
    print(f"seed {SEED}: BELLWETHER_TEST_SEED={SEED} repeats it")
    topic = kafka.create_topic(partitions=PARTITIONS, config={"retention.ms": "-1"})
    lines = list(stream(RECORDS))
    sent = publish((line.value + b"\n" for line in lines), KafkaSettings(bootstrap_servers=(kafka.bootstrap,)), topic)
    assert (sent.sent, sent.failed) == (RECORDS, 0)
    truth = Counter(line.outcome for line in lines)
    last_ms = max(line.time_ms for line in lines) // 60_000 * 60_000

    calm = instance(tmp_path / "calm", kafka=kafka, topic=topic, group=f"calm-{topic}", store_url=postgres.create_database())
    calm.start()
    engine = open_engine(calm.url)
    until_all_is_told(engine, last_ms)
    assert calm.terminate() == 0, calm.log[-3000:]
    expected = told(engine)
    engine.dispose()
    assert len(expected[0]) >= 5

    url = postgres.create_database()
    engine = open_engine(url)
    with receiving() as receiver:
        cluster = [
            instance(
                tmp_path / f"instance-{number}",
                kafka=kafka,
                topic=topic,
                group=f"cluster-{topic}",
                store_url=url,
                receiver_url=receiver.url,
            )
            for number in range(INSTANCES)
        ]
        for one in cluster:
            one.start()
        for _ in range(FAULTS):
            time.sleep(chance.uniform(0.2, 2.0))
            one = chance.choice(cluster)
            if chance.random() < 0.7:
                one.kill()
                one.start()
            else:
                # Longer than the group and the lease wait: when it goes on, others have its partitions and the lead.
                one.process.send_signal(signal.SIGSTOP)
                time.sleep(SESSION_S + 5)
                one.process.send_signal(signal.SIGCONT)
        until_all_is_told(engine, last_ms)
        for one in cluster:
            assert one.terminate() == 0, one.log[-3000:]

    saved = {(row.topic, row.number): row for row in _named(engine, log_partition)}
    placed = {(row.topic, row.number): row for row in _named(engine, tally)}
    documents = rows(engine, document, document.c.number, document.c["offset"])
    letters = [(letter.partition.number, letter.offset) for letter in DeadLetters(engine).letters()]
    # Conservation: every offset below the saved one is a story, a copy, a duplicate or one dead letter.
    assert sum(row.next_offset for row in saved.values()) == RECORDS
    for key, row in saved.items():
        one = placed[key]
        assert row.consumed == row.next_offset == one.stories + one.copies + one.stale + one.duplicates + row.rejected
    assert len(set(letters)) == len(letters) == truth["rejected"]
    assert len(set(documents)) == len(documents) == truth["counted"]
    # Alert truth: the very same incidents, and each change told under one id with one body.
    assert told(engine) == expected
    assert not receiver.unverified
    bodies = {}
    for item in receiver.received:
        assert bodies.setdefault(item.webhook_id, item.body) == item.body
    assert len(bodies) == len(expected[1])
    engine.dispose()


def _named(engine, table):
    with reading(engine) as connection:
        return connection.execute(select(table)).all()
