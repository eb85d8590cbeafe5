"""Family 6: members come and go during batches, partitions are added, a topic is made anew."""

import random
from contextlib import closing

import pytest
from kafka.admin import NewPartitions
from kafka.errors import TopicAlreadyExistsError

from monitor.store.schema import interruption, log_partition
from tests.end_to_end.processes import until
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send, until_told
from tests.faults.oracles import alert_truth, clean_log, conservation, consumed, rows, told

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.soak]


def test_members_that_flap_during_batches_cost_only_time(tmp_path, kafka, postgres, news):
    """Lines: add, remove, flap a member; restart of a static member."""
    chance = random.Random(6)
    cluster = Cluster(
        tmp_path, kafka.bootstrap, new_topic(kafka, 6), postgres.create_database(), rules=FEW_RULES, session_s=3, batch=4
    )
    send(kafka, cluster.topic, news.lines)
    engine = cluster.engine()
    steady = cluster.instance("steady", kafka={"max_poll_records": 10})
    flapping = [cluster.instance("dynamic"), cluster.instance("static", static=True)]
    steady.begin()
    until(lambda: consumed(engine) > 0, WAIT_S, "the first records")
    moves = 0
    while consumed(engine) < len(news.lines) and moves < 8:
        one = flapping[moves % 2]
        had = len(one.events("partitions.claimed"))
        one.begin()
        until(lambda one=one, had=had: len(one.events("partitions.claimed")) > had, WAIT_S, "its part of the partitions")
        if chance.random() < 0.5:
            one.kill()
        else:
            assert one.terminate() == 0
        moves += 1
    assert moves >= 2
    until_told(engine, news.lines)
    assert steady.terminate() == 0
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
    assert clean_log(steady.log) == []


def test_partitions_that_are_added_are_read_from_their_beginning(tmp_path, kafka, postgres, news):
    """Line: the number of partitions is increased; nobody restarts anything."""
    cluster = Cluster(tmp_path, kafka.bootstrap, new_topic(kafka, 2), postgres.create_database(), rules=FEW_RULES)
    half = len(news.lines) // 2
    send(kafka, cluster.topic, news.lines[:half])
    engine = cluster.engine()
    daemon = cluster.instance("daemon")
    daemon.begin()
    until(lambda: consumed(engine) == half, WAIT_S, "the first half")
    with closing(kafka.admin()) as admin:
        admin.create_partitions({cluster.topic: NewPartitions(5)})
    send(kafka, cluster.topic, news.lines[half:])
    until(lambda: consumed(engine) == len(news.lines), WAIT_S, "the second half, in all partitions")
    assert {row.number for row in rows(engine, log_partition)} == set(range(5))
    until_told(engine, news.lines)
    assert daemon.terminate() == 0
    assert conservation(engine, news.lines) == []


def test_a_topic_made_anew_is_read_from_its_beginning_and_the_break_is_recorded(tmp_path, kafka, postgres, news):
    """Line: the topic is deleted and recreated, its offsets begin again; never a silent skip."""
    cluster = Cluster(tmp_path, kafka.bootstrap, new_topic(kafka, 2), postgres.create_database(), rules=FEW_RULES)
    # The clock may carry stream time on while the topic is away: what comes then is later than that.
    first = news.lines[: len(news.lines) // 2]
    second = [line for line in news.lines if line.time_ms > first[-1].time_ms + 1_800_000]
    while second[0].outcome != "counted":
        second.pop(0)
    send(kafka, cluster.topic, first)
    engine = cluster.engine()
    daemon = cluster.instance("daemon")
    daemon.begin()
    until(lambda: consumed(engine) == len(first), WAIT_S, "the first half")
    ends = {row.number: row.next_offset for row in rows(engine, log_partition)}
    kafka.delete_topic(cluster.topic)

    def made_anew():
        try:
            return kafka.create_topic(cluster.topic, partitions=2, config={"retention.ms": "-1"})
        except TopicAlreadyExistsError:
            return None

    until(made_anew, WAIT_S, "the topic made anew")
    send(kafka, cluster.topic, second)
    until(lambda: consumed(engine) == len(first) + len(second), WAIT_S, "the second half")
    found = [(row.number, row.kind, row.expected_offset, row.next_offset) for row in rows(engine, interruption)]
    assert sorted(found) == [(number, "replaced", end, 0) for number, end in sorted(ends.items())]
    assert daemon.metrics()['bellwether_source_interruptions_total{kind="replaced"}'] == 2
    until_told(engine, [*first, *second])
    assert daemon.terminate() == 0
    assert conservation(engine, [*first, *second]) == []
