"""Family 3: a batch takes the classifier longer than the group waits for a poll."""

import pytest

from tests.end_to_end.processes import until
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send, until_told
from tests.faults.mortal import Fault
from tests.faults.oracles import alert_truth, clean_log, conservation, consumed, told

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.slow]


@pytest.mark.parametrize("alone", [True, False], ids=["alone in the group", "beside another"])
def test_a_batch_longer_than_the_poll_interval_costs_only_time(tmp_path, kafka, postgres, news, alone):
    """Line: the batch longer than `max_poll_interval`; the member is put out, and joins again when the batch is done."""
    cluster = Cluster(
        tmp_path, kafka.bootstrap, new_topic(kafka, 3), postgres.create_database(), rules=FEW_RULES, session_s=3, batch=8
    )
    send(kafka, cluster.topic, news.lines)
    engine = cluster.engine()
    short = {"max_poll_interval": "4s", "session_timeout": "3s"}
    slow, other = cluster.instance("slow", kafka=short), cluster.instance("other", kafka=short)
    slow.begin(Fault("after-classify", 3, "9"))
    until(lambda: slow.events("fault.reached"), WAIT_S, "the long batch")
    if not alone:
        other.begin()
        until(lambda: other.events("partitions.claimed"), WAIT_S, "the partitions claimed by another")
    before = consumed(engine)
    assert before < len(news.lines)
    until(lambda: len(slow.events("partitions.claimed")) > 1, WAIT_S, "the slow one has partitions again")
    until_told(engine, news.lines)
    assert slow.terminate() == 0
    if not alone:
        assert other.terminate() == 0
    assert conservation(engine, news.lines) == []
    assert alert_truth(news.told, told(engine)) == []
    assert clean_log(slow.log) == []
