"""Killed at any moment, the daemon has counted every record once, and told every incident once."""

import os
import random
import time
from collections import Counter

import pytest
from sqlalchemy import select

from monitor.config import KafkaSettings
from monitor.publish import publish
from monitor.store.dead_letters import DeadLetters
from monitor.store.engine import open_engine, reading
from monitor.store.incidents import Incidents
from monitor.store.ledger import Ledger
from monitor.store.outbox import SqlOutbox
from monitor.store.schema import document, log_partition, tally
from monitor.types import ALL_SERIES
from tests.end_to_end.processes import Bellwether, until
from tests.end_to_end.stream import ENTITIES, stream
from tests.receiver import receiving

RECORDS = int(os.environ.get("BELLWETHER_TEST_CRASH_RECORDS", "20000"))
KILLS = int(os.environ.get("BELLWETHER_TEST_CRASH_KILLS", "30"))
SEED = int(os.environ.get("BELLWETHER_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
PARTITIONS = 4
RULES = [
    {
        "name": "in-the-news",
        "metric": "stories",
        "series": "entity",
        "window": "10m",
        "comparison": ">=",
        "level": 40,
        "clear_level": 10,
        "minimum_sources": 2,
        "for": "1m",
        "severity": "warning",
    }
]


def installation(folder, kafka, topic, receiver_url=None):
    source = {
        "kind": "kafka",
        "kafka": {
            "bootstrap_servers": [kafka.bootstrap],
            "topics": [topic],
            "group_id": f"group-{folder.name}-{topic}",
            # Static membership: a restarted member has its partitions back at once, dead for however short a time.
            "group_instance_id": "only",
            "session_timeout": "6s",
        },
    }
    # Small batches: many transactions, so that a kill meets every stage of one.
    sections = {"batch": {"max_documents": 32, "max_wait": "100ms"}, "time": {"idle_after": "2s"}}
    return Bellwether(folder, source, RULES, ENTITIES, receiver_url, sections)


def consumed(bellwether):
    """How many records are saved; 0 before the first."""
    if not bellwether.database.exists():
        return 0
    engine = open_engine(bellwether.url)
    with reading(engine) as connection:
        total = sum(connection.scalars(select(log_partition.c.consumed)))
    engine.dispose()
    return total


def history(bellwether):
    """Every incident as (id, rule, series, opened, resolved), in order."""
    engine = open_engine(bellwether.url)
    found = sorted(
        (item.incident_id, item.rule, str(item.series), item.opened_at_ms, item.resolved_at_ms)
        for item in Incidents(engine).incidents()
    )
    engine.dispose()
    return found


def run_to_the_end(bellwether, total):
    bellwether.start()
    bellwether.until_ready()
    until(lambda: consumed(bellwether) >= total, 300, "all records saved")
    # The last minutes of stream time are judged once the log has confirmed its silence.
    last_ms = max(line.time_ms for line in stream(RECORDS)) // 60_000 * 60_000
    engine = open_engine(bellwether.url)
    until(lambda: (Incidents(engine).evaluated_until_ms() or 0) >= last_ms, 60, "the last minute judged")
    until(lambda: SqlOutbox(engine).waiting() == 0, 60, "the outbox empty")
    engine.dispose()
    assert bellwether.terminate() == 0, bellwether.log[-3000:]


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.timeout(1_500)
def test_kill_9_at_random_points_loses_and_doubles_nothing(tmp_path, kafka):
    chance = random.Random(SEED)
    print(f"seed {SEED}: BELLWETHER_TEST_SEED={SEED} repeats it")
    # The records keep their own times, which are old: a broker that keeps a week would delete them under the test.
    topic = kafka.create_topic(partitions=PARTITIONS, config={"retention.ms": "-1"})
    lines = list(stream(RECORDS))
    sent = publish((line.value + b"\n" for line in lines), KafkaSettings(bootstrap_servers=(kafka.bootstrap,)), topic)
    assert (sent.sent, sent.failed) == (RECORDS, 0)
    truth = Counter(line.outcome for line in lines)

    calm = installation(tmp_path / "calm", kafka, topic)
    run_to_the_end(calm, RECORDS)
    expected = history(calm)
    assert len(expected) >= 5

    with receiving() as receiver:
        stormy = installation(tmp_path / "stormy", kafka, topic, receiver.url)
        saved_at_kill = []
        for kill in range(KILLS):
            stormy.start()
            until(lambda kill=kill: len(stormy.events("partitions.claimed")) > kill, 60, "partitions claimed")
            time.sleep(chance.uniform(0.0, 0.7))
            stormy.kill()
            saved_at_kill.append(consumed(stormy))
        run_to_the_end(stormy, RECORDS)
    print(f"saved at each kill: {saved_at_kill}")
    assert saved_at_kill == sorted(saved_at_kill)

    engine = open_engine(stormy.url)
    with reading(engine) as connection:
        rows = connection.execute(select(log_partition)).all()
        tallies = {row.number: row for row in connection.execute(select(tally))}
        documents = [tuple(row) for row in connection.execute(select(document.c.number, document.c.offset))]
    letters = [(letter.partition.number, letter.offset) for letter in DeadLetters(engine).letters()]
    # Conservation: every offset below the saved one is counted once, or is one dead letter, or repeats a known document.
    assert sum(row.next_offset for row in rows) == RECORDS
    for row in rows:
        placed = tallies[row.number]
        told = placed.stories + placed.copies + placed.stale + placed.duplicates
        assert row.consumed == row.next_offset == told + row.rejected
    found = {
        "counted": sum(placed.stories + placed.copies for placed in tallies.values()),
        "duplicate": sum(placed.duplicates for placed in tallies.values()),
        "rejected": sum(row.rejected for row in rows),
    }
    assert found == dict(truth)
    assert len(set(letters)) == len(letters) == truth["rejected"]
    assert len(set(documents)) == len(documents) == truth["counted"]
    assert not set(documents) & set(letters)
    counts = [bucket.count for bucket in Ledger(engine).buckets(0) if bucket.series == ALL_SERIES]
    assert sum(sum(count.stories) + sum(count.copies) for count in counts) == truth["counted"]
    engine.dispose()

    # Alert truth: the incidents of the calm run, no more and no less; each change told, under one id and with one body.
    assert history(stormy) == expected
    assert not receiver.unverified
    bodies = {}
    for item in receiver.received:
        assert bodies.setdefault(item.webhook_id, item.body) == item.body
    told = Counter((message["type"], message["data"]["incident_id"]) for message in receiver.first_of_each())
    wanted = Counter(("incident.opened", item[0]) for item in expected)
    wanted.update(("incident.resolved", item[0]) for item in expected if item[4] is not None)
    assert told == wanted
    assert len(receiver.received) - len(bodies) <= KILLS
