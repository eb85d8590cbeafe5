"""Family 8: far more comes than can be read, or nothing can be saved: memory is bounded, and the rest catches up."""

import time

import pytest

from tests.end_to_end.processes import until
from tests.end_to_end.stream import stream
from tests.faults.cluster import FEW_RULES, WAIT_S, Cluster, new_topic, send
from tests.faults.oracles import Memory, balance, consumed

pytestmark = [pytest.mark.kafka, pytest.mark.postgres, pytest.mark.soak]

BURST = 15_000
BEFORE = 1_500
ALLOWED_MEBIBYTES = 48


def test_a_burst_and_a_database_that_stands_still_cost_no_memory(tmp_path, kafka, fresh_postgres):
    """Lines: a tenfold burst, paused partitions (nothing is read while nothing can be saved), bounded memory."""
    # The burst repeats what is known already: stories are kept for two days, and what is measured is what waits.
    known = list(stream(BEFORE))
    lines = known * (1 + BURST // BEFORE)
    cluster = Cluster(tmp_path, kafka.bootstrap, new_topic(kafka, 3), fresh_postgres.create_database(), rules=FEW_RULES)
    engine = cluster.engine()
    daemon = cluster.instance("daemon")
    send(kafka, cluster.topic, known)
    daemon.begin()
    until(lambda: consumed(engine) == BEFORE, WAIT_S, "what came before the burst")
    memory = Memory(daemon.process.pid)
    memory.look()
    calm_bytes = memory.resident_bytes[0]
    fresh_postgres.stop()
    send(kafka, cluster.topic, lines[BEFORE:])
    waits_until_s = time.monotonic() + 4
    until(lambda: memory.look() or time.monotonic() > waits_until_s, 10, "some time without a database")
    fresh_postgres.start()
    until(lambda: memory.look() or consumed(engine) == len(lines), WAIT_S, "the burst read")
    assert max(memory.resident_bytes) - calm_bytes < ALLOWED_MEBIBYTES * 1_048_576, memory.resident_bytes
    assert memory.plateau(ALLOWED_MEBIBYTES / 2) == []
    assert daemon.terminate() == 0
    assert balance(engine) == []
