"""Family 2: SIGSTOP for longer than session and lease last, then SIGCONT: the database refuses what the zombie writes."""

import signal

import pytest

from monitor.store.schema import scored
from tests.end_to_end.processes import until
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send, until_told
from tests.faults.mortal import Fault
from tests.faults.oracles import alert_truth, clean_log, conservation, consumed, rows, told

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.soak]

READER, LEADER = "claim.lost", "leader.deposed"
FAULTS = {READER: Fault("after-classify", 3, "stop"), LEADER: Fault("before-a-settle", 2, "stop")}


@pytest.mark.parametrize("refused", [READER, LEADER])
def test_what_a_zombie_writes_is_refused(tmp_path, kafka, postgres, news, refused):
    """Line: zombie writes; the fence must refuse them, a reader's with a batch in hand, a leader's about to settle."""
    cluster = Cluster(
        tmp_path, kafka.bootstrap, new_topic(kafka, 3), postgres.create_database(), rules=FEW_RULES, session_s=3, batch=8
    )
    send(kafka, cluster.topic, news.lines)
    engine = cluster.engine()
    zombie, heir = cluster.instance("zombie"), cluster.instance("heir")
    zombie.begin(FAULTS[refused])
    until(lambda: zombie.events("fault.reached"), WAIT_S, "the fault")
    until(lambda: zombie.stalled, 10, "the stall")
    assert consumed(engine) < len(news.lines)
    heir.begin()
    until(lambda: heir.events("partitions.claimed"), WAIT_S, "the partitions of the zombie claimed")
    until(lambda: heir.events("leader.elected"), WAIT_S, "the zombie's lead taken over")
    zombie.process.send_signal(signal.SIGCONT)
    until(lambda: zombie.events(refused), WAIT_S, f"{refused}: the zombie's write was not refused")
    until_told(engine, news.lines)
    assert [one.terminate() for one in (zombie, heir)] == [0, 0]
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
    assert clean_log(zombie.log + heir.log) == []


def test_a_zombie_in_the_middle_of_a_transaction_keeps_nobody_waiting_for_ever(tmp_path, kafka, postgres, news):
    """Line: the same with the partition's row locked; the database ends the idle transaction after its time."""
    cluster = Cluster(
        tmp_path, kafka.bootstrap, new_topic(kafka, 1), postgres.create_database(), rules=FEW_RULES, session_s=3, batch=8
    )
    send(kafka, cluster.topic, news.lines)
    engine = cluster.engine()
    zombie, heir = cluster.instance("zombie"), cluster.instance("heir")
    limits = {"monitor.store.engine._STATEMENT_TIMEOUT_MS": 12_000, "monitor.store.engine._BUSY_TIMEOUT_MS": 4_000}
    zombie.begin(Fault("inside-the-transaction", 3, "stop"), limits)
    until(lambda: zombie.events("fault.reached"), WAIT_S, "the fault")
    heir.begin(limits=limits)
    until(lambda: heir.events("partitions.claimed"), WAIT_S, "the partition claimed")
    zombie.process.send_signal(signal.SIGCONT)
    until_told(engine, news.lines)
    assert [one.terminate() for one in (zombie, heir)] == [0, 0]
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []


def test_leaders_whose_work_takes_longer_than_their_lease_get_on_all_the_same(tmp_path, kafka, postgres, news):
    """Line: the same without a stop: every placement is slow, and the lease is kept meanwhile."""
    cluster = Cluster(tmp_path, kafka.bootstrap, new_topic(kafka, 2), postgres.create_database(), rules=FEW_RULES)
    send(kafka, cluster.topic, news.lines[:600])
    engine = cluster.engine()
    slow = Fault("before-a-settle", deed="4", again=True)
    limits = {"monitor.store.lease.LASTS_MS": 2_000, "monitor.leading._AT_ONCE": 200}
    instances = [cluster.instance(name) for name in ("first", "second")]
    for one in instances:
        one.begin(slow, limits)
    until(lambda: consumed(engine) == 600, WAIT_S, "everything read")
    until(lambda: not rows(engine, scored), 45, "everything placed")
    assert [one.terminate() for one in instances] == [0, 0]
    assert conservation(engine, news.lines[:600]) == []
