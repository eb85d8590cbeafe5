"""Family 11: two instances under one name; one instance, eight, one."""

import signal

import pytest

from tests.end_to_end.processes import until
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send, until_told
from tests.faults.oracles import alert_truth, clean_log, conservation, consumed, told

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.soak]


def test_two_instances_of_one_name_count_nothing_twice(tmp_path, kafka, postgres, news):
    """Line: two instances with the same identity: the group puts the first out when the second comes."""
    cluster = Cluster(
        tmp_path, kafka.bootstrap, new_topic(kafka, 3), postgres.create_database(), rules=FEW_RULES, session_s=3, batch=16
    )
    send(kafka, cluster.topic, news.lines)
    engine = cluster.engine()
    same = {"group_instance_id": "the-only-one", "max_poll_records": 20}
    first, second = cluster.instance("first", kafka=same), cluster.instance("second", kafka=same)
    first.begin()
    until(lambda: consumed(engine) > 0, WAIT_S, "the first records")
    second.begin()
    until(lambda: second.events("partitions.claimed"), WAIT_S, "the second has them")
    until(lambda: first.events("source.unavailable"), WAIT_S, "the first knows that it is out")
    assert first.terminate() == 0
    until_told(engine, news.lines)
    assert second.terminate() == 0
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
    assert clean_log(first.log + second.log) == []


def test_one_instance_eight_and_one_again_tell_what_one_tells(tmp_path, kafka, postgres, news):
    """Line: 1 -> 8 -> 1 instances under load; half of the seven that go are killed."""
    cluster = Cluster(
        tmp_path, kafka.bootstrap, new_topic(kafka, 6), postgres.create_database(), rules=FEW_RULES, session_s=3, batch=8
    )
    send(kafka, cluster.topic, news.lines)
    engine = cluster.engine()
    one = cluster.instance("one", kafka={"max_poll_records": 10})
    more = [cluster.instance(f"more-{number}", kafka={"max_poll_records": 10}) for number in range(7)]
    one.begin()
    until(lambda: consumed(engine) > 0, WAIT_S, "the first records")
    for each in more:
        each.begin()
    until(lambda: sum(bool(each.events("partitions.claimed")) for each in more) >= 5, WAIT_S, "partitions of their own")
    for number, each in enumerate(more):
        each.process.send_signal(signal.SIGKILL if number % 2 else signal.SIGTERM)
    for number, each in enumerate(more):
        assert each.until_ended(WAIT_S) == (-signal.SIGKILL if number % 2 else 0)
    until_told(engine, news.lines)
    assert one.terminate() == 0
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
    assert clean_log("".join(each.log for each in (one, *more)), ended_at_once=True) == []
