"""Family 4: the broker is not there at the start, is killed under load, is restarted."""

import pytest

from tests.end_to_end.processes import until
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send, until_told
from tests.faults.oracles import alert_truth, clean_log, conservation, consumed, recovery_s, told

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.soak]


def test_a_broker_that_is_away_at_the_start_and_dies_under_load_costs_only_time(tmp_path, fresh_kafka, postgres, news):
    """Lines: an outage at start-up, a broker that is killed, a clean restart; one broker is its own controller and coordinator."""
    cluster = Cluster(
        tmp_path, fresh_kafka.bootstrap, new_topic(fresh_kafka, 3), postgres.create_database(), rules=FEW_RULES, batch=4
    )
    send(fresh_kafka, cluster.topic, news.lines)
    fresh_kafka.stop()
    instances = [cluster.instance(name, kafka={"request_timeout": "8s", "max_poll_records": 20}) for name in ("first", "second")]
    for one in instances:
        one.begin()
        until(lambda one=one: one.events("source.unavailable"), WAIT_S, "it waits for the broker")
        assert (one.get("/livez")[0], one.get("/readyz")[0]) == (200, 503)
    fresh_kafka.start()
    engine = cluster.engine()
    recovery_s(lambda: consumed(engine), WAIT_S)
    fresh_kafka.kill()
    saved = consumed(engine)
    assert saved < len(news.lines), "the broker was killed too late to matter"
    fresh_kafka.start()
    recovery_s(lambda: consumed(engine), WAIT_S)
    fresh_kafka.restart()
    until_told(engine, news.lines)
    assert [one.terminate() for one in instances] == [0, 0]
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
    assert clean_log("".join(one.log for one in instances)) == []
