"""Family 7: the log was shortened beyond where we are: a recorded gap and a metric, never a silent skip."""

import pytest

from monitor.store.schema import interruption, log_partition
from tests.end_to_end.processes import until
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send
from tests.faults.oracles import balance, consumed, rows

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]


def test_what_retention_took_while_nobody_read_is_a_recorded_gap(tmp_path, kafka, postgres, news):
    """Line: `delete_records` passes our offset while the daemon is down; it tells the gap and reads on behind it."""
    cluster = Cluster(tmp_path, kafka.bootstrap, new_topic(kafka, 1), postgres.create_database(), rules=FEW_RULES)
    send(kafka, cluster.topic, news.lines[:400])
    engine = cluster.engine()
    daemon = cluster.instance("daemon", static=True)
    daemon.begin()
    until(lambda: consumed(engine) == 400, WAIT_S, "the first part")
    daemon.kill()
    send(kafka, cluster.topic, news.lines[400:800])
    kafka.delete_records(cluster.topic, 550)
    daemon.begin()
    until(lambda: consumed(engine) == 650, WAIT_S, "what is left of the second part")
    (gap,) = rows(engine, interruption)
    assert (gap.kind, gap.expected_offset, gap.next_offset) == ("expired", 400, 550)
    (saved,) = rows(engine, log_partition)
    assert saved.next_offset == 800
    assert daemon.metrics()['bellwether_source_interruptions_total{kind="expired"}'] == 1
    assert [(event["kind"], event["expected_offset"]) for event in daemon.events("source.interrupted")] == [("expired", 400)]
    assert daemon.terminate() == 0
    assert balance(engine) == []
