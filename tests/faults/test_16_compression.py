"""Family 16: a few bytes that unpack to very many. The record is a dead letter, its neighbours count, and memory comes back."""

import psutil
import pytest
from sqlalchemy import select

from monitor.store.engine import open_engine, reading
from monitor.store.schema import dead_letter, document
from tests.end_to_end.processes import until
from tests.end_to_end.stream import BEGIN
from tests.faults.oracles import balance, consumed
from tests.faults.tailing import news, until_placed
from tests.faults.test_15_poison import producing, reading_kafka

UNPACKED_BYTES = 100 * 2**20


@pytest.mark.kafka
@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_a_bomb_is_one_dead_letter_and_the_memory_that_it_took_comes_back(tmp_path, kafka, codec):
    topic = kafka.create_topic(config={"retention.ms": "-1"})
    good = [news(f"urn:{number}", f"Halden loses case {number}", received_at=BEGIN) for number in range(20)]
    bomb = b'{"uri": "bomb", "headline": "' + b" " * UNPACKED_BYTES + b'"}'
    with producing(kafka, compression_type=codec) as producer:
        for value in (*good[:10], bomb, *good[10:]):
            producer.send(topic, value)
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    process = psutil.Process()
    before, most = process.memory_info().rss, 0
    with reading_kafka(tmp_path, engine, kafka, topic):

        def done():
            nonlocal most
            most = max(most, process.memory_info().rss)
            return consumed(engine) == len(good) + 1

        until(done, 120, "everything saved")
        until_placed(engine, len(good) + 1)
        until(lambda: process.memory_info().rss - before < UNPACKED_BYTES, 30, "the memory given back")
    assert balance(engine) == []
    with reading(engine) as connection:
        assert connection.execute(select(dead_letter.c.reason, dead_letter.c.size)).all() == [("too_large", len(bomb))]
        assert len(connection.scalars(select(document.c.uri)).all()) == len(good)
    engine.dispose()
    print(f"{codec}: at most {(most - before) / 2**20:.0f} MiB for a record of {len(bomb) / 2**20:.0f} MiB")
    assert most - before < 5 * UNPACKED_BYTES
