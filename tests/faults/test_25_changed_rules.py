"""Family 25: other rules at the next start. A rule that is gone ends what it opened, once; rules that are wrong change nothing."""

from dataclasses import replace
from datetime import timedelta

import pytest

from monitor.store.engine import open_engine
from tests.end_to_end.processes import until
from tests.end_to_end.stream import BEGIN
from tests.faults.oracles import delivery_truth, told
from tests.faults.tailing import append, desk, news, running
from tests.faults.test_10_database import RULE, WATCHED
from tests.faults.test_23_blind_and_flapping import about_the_bank
from tests.receiver import receiving


def later(minute):
    return news(f"later:{minute}", f"Nothing of note at minute {minute}", received_at=BEGIN + timedelta(minutes=minute))


@pytest.mark.parametrize("after", [(), (replace(RULE, name="another", level=999),)], ids=["no rule", "another rule"])
def test_a_rule_that_is_removed_while_it_fires_ends_its_incident_once(tmp_path, after):
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    append(tmp_path, [about_the_bank(minute, minute) for minute in range(14)])
    with receiving() as receiver:
        receivers = [desk(receiver.url)]
        with running(tmp_path, engine, rules=[RULE], receivers=receivers, watchlist=WATCHED):
            until(lambda: len(receiver.received) == 1, 60, "the alert")
        for minute in (16, 18):
            append(tmp_path, [later(minute), later(minute + 1)])
            engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
            with running(tmp_path, engine, rules=after, receivers=receivers, watchlist=WATCHED) as daemon:
                judged_ms = (BEGIN + timedelta(minutes=minute)).timestamp() * 1_000
                until(lambda at=judged_ms, one=daemon: (one.incidents.evaluated_until_ms() or 0) >= at, 60, "the minute judged")
                until(lambda one=daemon: one.outbox.waiting() == 0, 60, "all told")
        messages = receiver.first_of_each()
        assert [message["type"] for message in messages] == ["incident.opened", "incident.resolved"]
        assert messages[1]["data"]["resolve_reason"] == "rule_removed"
        assert delivery_truth(told(engine), receiver.received, receiver.unverified) == []
    engine.dispose()
