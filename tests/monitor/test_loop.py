"""One batch with the classifier, the next already read: and still every record is saved once, in order, or read again."""

import itertools
import json
import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from monitor.config import BatchSettings, Settings, WebSettings
from monitor.daemon import Daemon, Parts
from monitor.errors import DeviceLost, SourceUnavailable, StoreUnavailable
from monitor.sources.protocol import Assignment, Interruption, InterruptionKind, Polled
from monitor.store.engine import open_engine, reading
from monitor.store.ledger import Ledger
from monitor.store.schema import document
from monitor.types import Partition, Record
from monitor.watchlist import WatchList
from tests.fakes import FakeClassifier

NEWS = Partition("news", 0)


@dataclass
class Log:
    """A log of one partition in memory. `move` voids all claims, as when a group forms anew."""

    records: list[Record] = field(default_factory=list)
    position: int = 0
    generation: int = 1
    at_once: int = 2
    broken: bool = False
    lost: bool = False
    interruption: Interruption | None = None
    exhausted: bool = False

    def write(self, number):
        for offset in range(len(self.records), len(self.records) + number):
            value = {"uri": f"news:{offset}", "headline": f"Halden gains number {offset} of a kind"}
            self.records.append(Record(NEWS, offset, offset + 1, 60_000 + offset, json.dumps(value).encode()))

    def move(self):
        self.generation += 1

    def poll(self, wait_s):
        if self.broken:
            self.broken = False
            raise SourceUnavailable("broken")
        interruptions = () if self.interruption is None else (self.interruption,)
        self.interruption = None
        records = tuple(self.records[self.position : self.position + self.at_once])
        self.position += len(records)
        return Polled(records, interruptions)

    def assignment(self):
        return Assignment(self.generation, frozenset() if self.lost else frozenset({NEWS}))

    def partitions(self):
        return frozenset({NEWS})

    def identity(self, partition):
        return "log"

    def seek(self, partition, offset, identity):
        self.position = offset or 0

    def positions(self):
        return {NEWS: self.position}

    def end_offsets(self):
        return {} if self.lost else {NEWS: len(self.records)}

    def hint(self, positions): ...

    def pause(self): ...

    def resume(self): ...

    def close(self): ...


class Gated(FakeClassifier):
    """Answers only while the gate is open; `asked` is set when it was asked something."""

    def __init__(self):
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Event()
        self.error = None
        self.look = lambda: None

    def classify(self, prepared):
        self.look()
        self.asked.set()
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error
        return super().classify(prepared)


class Flaky(Ledger):
    """A ledger whose database does not answer while it is down."""

    down = False

    def save(self, saving):
        if self.down:
            raise StoreUnavailable("down")
        super().save(saving)


@dataclass
class Turned:
    """A loop over a log, turned by hand."""

    log: Log
    classifier: Gated
    daemon: Daemon
    loop: object
    engine: object

    def saved(self):
        with reading(self.engine) as connection:
            return sorted(offset for (offset,) in connection.execute(select(document.c["offset"])))

    def turn_until(self, true, turns=200):
        for _ in range(turns):
            if true():
                return
            self.loop.turn()
        raise AssertionError("not within so many turns")


@pytest.fixture
def build(tmp_path):
    built = []

    def make(name="store", max_documents=2):
        engine = open_engine(f"sqlite:///{tmp_path / name}.db")
        log, classifier = Log(), Gated()
        wanted = Settings(web=WebSettings(port=0), batch=BatchSettings(max_documents=max_documents))
        daemon = Daemon(Parts(wanted, engine, classifier, WatchList(), (), (), lambda: log))
        daemon._loop.ledger = Flaky(engine)
        built.append(daemon)
        return Turned(log, classifier, daemon, daemon._loop, engine)

    yield make
    for daemon in built:
        daemon._loop.batcher.take_all()
        daemon._web.close()
        daemon._parts.engine.dispose()


def test_the_next_batch_is_read_and_tokenised_while_the_classifier_has_one(build):
    turned = build()
    turned.log.write(3)
    turned.classifier.gate.clear()
    with turned.loop.opened():
        turned.turn_until(lambda: turned.log.position == 3)
        assert turned.classifier.asked.wait(10)
        assert len(turned.loop.batcher) == 1
        assert turned.saved() == []
        turned.classifier.gate.set()
        turned.turn_until(lambda: turned.saved() == [0, 1])
        turned.loop.drain()
    assert turned.saved() == [0, 1, 2]


def test_no_more_than_a_batch_is_read_ahead(build):
    turned = build()
    turned.log.write(20)
    turned.classifier.gate.clear()
    opened = threading.Timer(0.3, turned.classifier.gate.set)
    with turned.loop.opened():
        opened.start()
        for _ in range(3):
            turned.loop.turn()
        # The second turn found a full batch waiting, and waited for the first one's answer.
        assert turned.classifier.gate.is_set()
        assert turned.saved()[:2] == [0, 1]
        turned.loop.drain()
    opened.join()


def test_what_the_classifier_has_when_claims_change_is_read_again_and_saved_once(build):
    turned = build()
    turned.log.write(5)
    with turned.loop.opened():
        turned.turn_until(turned.classifier.asked.is_set)
        turned.log.move()
        turned.turn_until(lambda: len(turned.saved()) >= 4)
        turned.loop.drain()
    assert turned.saved() == [0, 1, 2, 3, 4]
    assert turned.daemon.metrics.balance.consumed == 5


def test_a_write_that_is_refused_drops_what_was_read_after_it(build):
    turned = build()
    turned.log.write(7)
    with turned.loop.opened():
        turned.turn_until(lambda: turned.saved() == [0, 1])
        # Another instance takes the partition over, and gives it back.
        Ledger(turned.engine).claim(NEWS, "another")
        turned.turn_until(lambda: len(turned.saved()) >= 6)
        turned.loop.drain()
    assert turned.saved() == list(range(7))
    assert turned.daemon.metrics.balance.consumed == 7


def test_a_stop_while_the_database_is_down_saves_nothing_over_the_gap(build):
    turned = build()
    turned.log.write(9)
    with turned.loop.opened():
        turned.turn_until(lambda: turned.saved() == [0, 1])
        turned.loop.ledger.down = True
        turned.daemon.stop()
        with pytest.raises(StoreUnavailable):
            turned.turn_until(lambda: False)
        turned.loop.ledger.down = False
        turned.loop.drain()
    assert turned.saved() == [0, 1]
    again = Daemon(
        Parts(Settings(web=WebSettings(port=0)), turned.engine, FakeClassifier(), WatchList(), (), (), lambda: turned.log)
    )
    with again._loop.opened():
        for _ in range(8):
            again._loop.turn()
        again._loop.drain()
    again._web.close()
    assert turned.saved() == list(range(9))


def test_a_lost_device_ends_the_loop_before_anything_is_saved(build):
    turned = build()
    turned.log.write(2)
    turned.classifier.error = DeviceLost("gone")
    with pytest.raises(DeviceLost, match="gone"), turned.loop.opened():
        turned.turn_until(lambda: False, turns=1_000_000)  # until the classifier has said so
    assert turned.saved() == []


def test_every_batch_of_a_long_turn_is_a_sign_of_life(build):
    turned = build()
    turned.log.at_once = 10
    turned.log.write(10)
    clock, seen = itertools.count(1.0), []
    turned.loop.clock_s = lambda: next(clock)
    turned.classifier.look = lambda: seen.append(turned.loop.turned_s)
    with turned.loop.opened():
        turned.turn_until(lambda: turned.saved() == list(range(10)))
    assert len(seen) == 5
    assert seen == sorted(set(seen))


def test_the_lag_of_a_partition_that_went_to_another_instance_is_not_told_any_more(build):
    turned = build()
    turned.log.write(3)

    def lag():
        return turned.daemon.registry.get_sample_value(
            "bellwether_source_lag", {"topic": NEWS.topic, "partition": str(NEWS.number)}
        )

    with turned.loop.opened():
        turned.turn_until(lambda: lag() is not None)
        turned.log.lost = True
        turned.log.move()
        turned.loop.turn()
        assert lag() is None


def test_a_break_in_the_log_is_recorded_after_all_that_was_read_before_it(build):
    turned = build()
    turned.log.write(3)
    with turned.loop.opened():
        turned.turn_until(lambda: turned.log.position == 3)
        turned.log.write(1)
        turned.log.position = 3
        turned.log.interruption = Interruption(NEWS, InterruptionKind.ROTATED, 3, 3)
        turned.loop.turn()
        assert turned.saved()[:3] == [0, 1, 2]
        turned.loop.drain()
    assert turned.saved() == [0, 1, 2, 3]


EVENTS = st.lists(st.sampled_from(["turn", "turn", "turn", "write", "move", "break", "steal"]), max_size=25)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(EVENTS, st.integers(1, 3))
def test_whatever_happens_every_record_is_saved_once(build_fresh, events, at_once):
    turned = build_fresh()
    turned.log.at_once = at_once
    turned.log.write(4)
    left = list(events)
    while True:
        try:
            with turned.loop.opened():
                while left:
                    event = left.pop(0)
                    if event == "turn":
                        turned.loop.turn()
                    elif event == "write":
                        turned.log.write(2)
                    elif event == "move":
                        turned.log.move()
                    elif event == "break":
                        turned.log.broken = True
                    else:
                        Ledger(turned.engine).claim(NEWS, "another")
                turned.turn_until(lambda: len(turned.saved()) == len(turned.log.records))
                turned.loop.drain()
                break
        except SourceUnavailable:
            continue
    assert turned.saved() == list(range(len(turned.log.records)))
    assert turned.daemon.metrics.balance.consumed == len(turned.log.records)


@pytest.fixture
def build_fresh(build):
    """A new store for every example."""
    numbers = iter(range(10_000))
    return lambda: build(f"example-{next(numbers)}")
