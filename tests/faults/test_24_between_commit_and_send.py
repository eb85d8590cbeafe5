"""Family 24: kill -9 while a message is on its way, and before the next one is. Each is told after the restart, under its id."""

from collections import Counter

import pytest

from monitor.store.engine import open_engine
from monitor.store.outbox import SqlOutbox
from tests.alerts.server import Server, answer, hang
from tests.end_to_end.processes import until
from tests.end_to_end.stream import IN_THE_NEWS, stream
from tests.faults.oracles import delivery_truth, told
from tests.faults.tailing import append, conservation, installation, until_placed
from tests.receiver import SECRET, Receiver

RECORDS = 1_500
RULES = [
    IN_THE_NEWS,
]


@pytest.mark.soak
def test_a_message_that_was_decided_is_told_after_a_kill_whether_it_was_on_its_way_or_not(tmp_path):
    lines = list(stream(RECORDS))
    with Server(hang) as server:
        receiver = {
            "name": "desk",
            "url": f"http://127.0.0.1:{server.port}/",
            "secret": SECRET,
            "allow_http": True,
            "allow_private_addresses": True,
            "timeout": "3s",
        }
        instance = installation(tmp_path, RULES, sections={"receivers": [receiver]})
        append(tmp_path, [line.value for line in lines])
        instance.start()
        until(lambda: server.received, 120, "a message on its way")
        engine = open_engine(instance.url)
        until(lambda: len(told(engine).incidents) >= 2, 60, "another decided")
        instance.kill()
        unanswered = len(server.received)
        decided = SqlOutbox(engine).waiting()
        assert decided >= 2
        server.behaviour = answer(204, body=b"")
        instance.start()
        until_placed(engine, RECORDS)
        until(lambda: SqlOutbox(engine).waiting() == 0, 60, "all told")
        assert instance.terminate() == 0
    verified = Receiver()
    for request in server.received:
        verified.take(request.headers, request.body)
    assert delivery_truth(told(engine), verified.received, verified.unverified) == []
    times = Counter(item.webhook_id for item in verified.received)
    assert sum(times.values()) - len(times) == unanswered, "only what was unanswered came twice"
    assert conservation(engine, tmp_path, lines) == []
    engine.dispose()
