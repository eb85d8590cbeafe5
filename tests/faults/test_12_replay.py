"""Family 12: the topic is read from its beginning by another group, into the same database."""

import json
from datetime import UTC, datetime

import pytest

from tests.end_to_end.processes import until
from tests.end_to_end.stream import Line, stamp
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send, until_told
from tests.faults.oracles import alert_truth, conservation, told

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.soak]


def test_another_group_on_the_same_database_counts_nothing_again(tmp_path, kafka, postgres, news):
    """Line: the same topic from 0 with a new group into the same database; counts unchanged, and what is new is counted."""
    topic, url = new_topic(kafka, 3), postgres.create_database()
    first = Cluster(tmp_path / "first", kafka.bootstrap, topic, url, rules=FEW_RULES)
    second = Cluster(tmp_path / "second", kafka.bootstrap, topic, url, rules=FEW_RULES, group="another")
    # The counter-proof that the second group was at work: it alone can have read this one.
    later_ms = news.lines[-1].time_ms + 3_600_000
    received_at = stamp(datetime.fromtimestamp(later_ms / 1000, UTC))
    last = Line(later_ms, json.dumps({"uri": "the-last", "headline": "one more", "received_at": received_at}).encode(), "counted")
    send(kafka, topic, news.lines)
    engine = first.engine()
    before = first.instance("daemon")
    before.begin()
    until_told(engine, news.lines)
    assert before.terminate() == 0
    found = told(engine)
    assert alert_truth(news.told, found) == []
    after = second.instance("daemon")
    after.begin()
    until(lambda: after.events("partitions.claimed"), WAIT_S, "partitions claimed by the other group")
    send(kafka, topic, [last])
    until_told(engine, [*news.lines, last])
    assert after.terminate() == 0
    assert conservation(engine, [*news.lines, last]) == []
    assert [row[0] for row in told(engine).incidents] == [row[0] for row in found.incidents]
