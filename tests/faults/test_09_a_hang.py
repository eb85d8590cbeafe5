"""Family 9: a poll never comes back: the watchdog ends the process, and the next one reads on."""

import time

import pytest

from monitor.daemon import EXIT_STALLED
from tests.end_to_end.processes import until
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send, until_told
from tests.faults.mortal import Fault
from tests.faults.oracles import alert_truth, conservation, told

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.soak]

LIMIT_S = 12.0


def test_a_poll_that_never_comes_back_ends_the_process_within_its_limit(tmp_path, kafka, postgres, news):
    """Line: poll hang; the watchdog exits within the limit (shortened here), while the web server and the sender are well."""
    cluster = Cluster(tmp_path, kafka.bootstrap, new_topic(kafka, 2), postgres.create_database(), rules=FEW_RULES, batch=32)
    send(kafka, cluster.topic, news.lines)
    engine = cluster.engine()
    daemon = cluster.instance("daemon", static=True, kafka={"max_poll_records": 100})
    daemon.begin(Fault("after-poll", 5, "3600"), {"monitor.daemon.STALL_AFTER_S": LIMIT_S})
    until(lambda: daemon.events("fault.reached"), WAIT_S, "the hang")
    begun_s = time.monotonic()
    assert daemon.until_ended(LIMIT_S + 60) == EXIT_STALLED
    assert time.monotonic() - begun_s > LIMIT_S - 2
    assert daemon.events("loop.stalled")
    daemon.begin()
    until_told(engine, news.lines)
    assert daemon.terminate() == 0
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
