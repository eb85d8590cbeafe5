"""Family 1: kill -9 between any two steps of the path."""

import random
import signal
import time

import pytest

from tests.end_to_end.processes import until
from tests.faults.cluster import FEW_RULES, SEED, WAIT_S, Cluster, end_the_lease, new_topic, send, until_told
from tests.faults.mortal import Fault
from tests.faults.oracles import alert_truth, clean_log, conservation, consumed, delivery_truth, told
from tests.receiver import receiving

pytestmark = [pytest.mark.kafka, pytest.mark.slow]

KILLS = 8
OF_A_READER = (
    Fault("after-poll", 2),
    Fault("after-decode", 2),
    Fault("after-classify", 2),
    Fault("inside-the-transaction", 2),
    Fault("after-the-commit", 2),
    Fault("during-a-claim", 2),
    Fault("during-a-rebalance"),
)
OF_A_LEADER = (
    Fault("after-the-election"),
    Fault("before-a-settle"),
    Fault("during-a-settle"),
    Fault("after-a-settle"),
    Fault("during-a-judgement"),
    Fault("after-a-judgement"),
    Fault("before-a-delivery"),
    Fault("during-a-delivery"),
)


@pytest.mark.postgres
def test_a_reader_killed_at_every_step_loses_and_doubles_nothing(tmp_path, kafka, postgres, news):
    """Lines: after poll, after decode, after classify, in the transaction, after the commit, during a claim, during a rebalance."""
    cluster = Cluster(tmp_path, kafka.bootstrap, new_topic(kafka, 6), postgres.create_database(), rules=FEW_RULES, batch=8)
    send(kafka, cluster.topic, news.lines)
    engine = cluster.engine()
    victim = cluster.instance("victim", static=True, kafka={"max_poll_records": 40})
    for fault in OF_A_READER:
        victim.begin(fault)
        assert victim.until_ended(WAIT_S) == -signal.SIGKILL, victim.log[-3000:]
    saved = consumed(engine)
    assert saved < len(news.lines), "the last kills met no record"
    victim.begin()
    until_told(engine, news.lines)
    assert victim.terminate() == 0
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
    assert len(victim.events("fault.reached")) == len(OF_A_READER)
    assert clean_log(victim.log) == []


@pytest.mark.postgres
def test_a_leader_killed_at_every_step_is_followed_by_one_that_tells_the_same(tmp_path, kafka, postgres, news):
    """Line: during a settle, a judgement and a webhook send (each before, within and after its transaction)."""
    with receiving() as receiver:
        cluster = Cluster(tmp_path, kafka.bootstrap, new_topic(kafka, 2), postgres.create_database(), receiver.url, rules=FEW_RULES)
        send(kafka, cluster.topic, news.lines)
        engine = cluster.engine()
        victim = cluster.instance("victim", static=True)
        for fault in OF_A_LEADER:
            end_the_lease(engine)
            victim.begin(fault)
            assert victim.until_ended(WAIT_S) == -signal.SIGKILL, victim.log[-3000:]
        end_the_lease(engine)
        victim.begin()
        until(lambda: victim.events("leader.elected"), WAIT_S, "a leader")
        until_told(engine, news.lines)
        assert victim.terminate() == 0
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
    assert delivery_truth(news.told, receiver.received, receiver.unverified) == []
    assert len(victim.events("fault.reached")) == len(OF_A_LEADER)
    assert clean_log(victim.log) == []


def test_kills_at_random_times_lose_and_double_nothing_in_sqlite(tmp_path, kafka, news):
    """Line: random points; the other database, one instance, and what was saved never goes back."""
    print(f"seed {SEED}: BELLWETHER_TEST_SEED={SEED} repeats it")
    chance = random.Random(SEED)
    with receiving() as receiver:
        url = f"sqlite:///{tmp_path / 'store.db'}"
        cluster = Cluster(tmp_path, kafka.bootstrap, new_topic(kafka, 4), url, receiver.url, rules=FEW_RULES, batch=16)
        send(kafka, cluster.topic, news.lines)
        engine = cluster.engine()
        victim = cluster.instance("victim", static=True, kafka={"max_poll_records": 50})
        saved = []
        for kill in range(KILLS):
            victim.begin()
            until(lambda kill=kill: len(victim.events("partitions.claimed")) > kill, WAIT_S, "partitions claimed")
            time.sleep(chance.uniform(0.0, 0.4))
            victim.kill()
            saved.append(consumed(engine))
        assert saved == sorted(saved)
        assert saved[0] < len(news.lines), "no kill met a record"
        victim.begin()
        until_told(engine, news.lines)
        assert victim.terminate() == 0
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
    assert delivery_truth(news.told, receiver.received, receiver.unverified) == []
