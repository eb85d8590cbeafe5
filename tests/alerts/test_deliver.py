"""The sender over a real outbox: when it tries again, when it gives up, what it never does."""

import threading
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.deliver import Sender, back_off_s, decide
from alerts.types import Attempt, AttemptResult, Delivery, DeliveryStatus, Evaluation
from monitor.store.engine import open_engine
from monitor.store.incidents import Incidents
from monitor.store.outbox import SqlOutbox
from tests.end_to_end.processes import until

DAY_MS = 86_400_000


@dataclass
class FakeChannel:
    """Answers with the next of `answers`, the last one again and again; remembers what it sent. `hold` keeps it from answering."""

    answers: list[AttemptResult]
    retry_for_ms: int = 3 * DAY_MS
    sent: list[str] = field(default_factory=list)
    hold: threading.Event | None = None

    def send(self, delivery, now_ms):
        self.sent.append(delivery.delivery_id)
        if self.hold is not None:
            assert self.hold.wait(10)
        result = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        return Attempt(result, None, f"{result}", 0.0)


def delivery(name, receiver="desk", incident=None, sequence=1):
    return Delivery(f"msg_{name}", receiver, incident or name, sequence, b"{}", 0, 0)


class World:
    """An outbox with these deliveries, a clock that a test turns, and a sender in a thread."""

    def __init__(self, folder, deliveries, channels):
        engine = open_engine(f"sqlite:///{folder / 'store.db'}")
        Incidents(engine).save([Evaluation(0, {}, ())], deliveries, 0)
        self.outbox = SqlOutbox(engine)
        self.now_ms = 0
        self.stop = threading.Event()
        self.sender = Sender(self.outbox, channels, wall_ms=lambda: self.now_ms, chance=lambda: 0.5)
        self.thread = threading.Thread(target=self.sender.run, args=(self.stop,))
        self.thread.start()

    def turn_clock(self, now_ms):
        self.now_ms = now_ms
        self.sender.notify()

    def statuses(self):
        return {row.delivery.delivery_id: (row.status, row.delivery.attempts) for row in self.outbox.rows()}

    def close(self):
        self.stop.set()
        self.sender.notify()
        self.thread.join(10)
        assert not self.thread.is_alive()


@pytest.fixture
def world(tmp_path):
    worlds = []

    def make(deliveries, channels):
        worlds.append(World(tmp_path, deliveries, channels))
        return worlds[-1]

    yield make
    for item in worlds:
        item.close()


def test_a_failure_is_tried_again_when_it_is_due_and_not_before(world):
    channel = FakeChannel([AttemptResult.REFUSED, AttemptResult.DELIVERED])
    here = world([delivery("a")], {"desk": channel})
    until(lambda: here.statuses()["msg_a"] == (DeliveryStatus.DUE, 1), 5, "a first failure")
    due_ms = here.outbox.next_due_at_ms()
    assert due_ms == 5_000
    here.turn_clock(due_ms)
    until(lambda: here.statuses()["msg_a"] == (DeliveryStatus.DELIVERED, 2), 5, "delivered")
    assert channel.sent == ["msg_a", "msg_a"]


def test_a_receiver_that_hangs_delays_nobody_else(world):
    hold = threading.Event()
    slow, quick = FakeChannel([AttemptResult.DELIVERED], hold=hold), FakeChannel([AttemptResult.DELIVERED])
    here = world([delivery("a", "slow"), delivery("b", "slow"), delivery("c", "quick")], {"slow": slow, "quick": quick})
    until(lambda: here.statuses()["msg_c"][0] is DeliveryStatus.DELIVERED, 5, "the quick one")
    assert len(slow.sent) == 1
    hold.set()
    until(lambda: here.outbox.waiting() == 0, 5, "all")


def test_410_disables_the_receiver_and_abandons_what_waits(world):
    channel = FakeChannel([AttemptResult.GONE])
    here = world([delivery("a"), delivery("b")], {"desk": channel})
    until(lambda: here.outbox.waiting() == 0, 5, "all abandoned")
    assert len(channel.sent) == 1
    assert {status for status, _ in here.statuses().values()} == {DeliveryStatus.ABANDONED}


def test_a_receiver_that_is_no_longer_configured_is_abandoned_with_that_reason(world):
    here = world([delivery("a", "former")], {"desk": FakeChannel([AttemptResult.DELIVERED])})
    until(lambda: here.outbox.waiting() == 0, 5, "abandoned")
    (row,) = here.outbox.rows()
    assert "no longer configured" in row.last_detail


@given(st.integers(1, 200), st.floats(0, 1, exclude_max=True))
def test_the_back_off_grows_is_jittered_and_bounded(attempts, chance):
    wait_s = back_off_s(attempts, chance)
    assert 1 <= wait_s <= 2 * 4 * 3_600
    assert back_off_s(attempts, 0.5) <= back_off_s(attempts + 1, 0.5)
    assert back_off_s(1, 0.5) == 5
    assert back_off_s(2, 0.5) == 15
    assert back_off_s(3, 0.5) == 45


@given(st.integers(0, 4 * DAY_MS), st.sampled_from(sorted(AttemptResult)), st.one_of(st.none(), st.floats(0, 1e7)))
def test_what_follows_from_an_attempt_is_decided_by_its_result_and_its_age_alone(at_ms, result, retry_after_s):
    attempt = Attempt(result, None, "", 0.0, retry_after_s)
    verdict = decide(delivery("a"), attempt, 3 * DAY_MS, at_ms, 0.5)
    if result is AttemptResult.DELIVERED:
        assert verdict.status is DeliveryStatus.DELIVERED
    elif result is AttemptResult.GONE or at_ms >= 3 * DAY_MS:
        assert verdict.status is DeliveryStatus.ABANDONED
    else:
        assert verdict.status is DeliveryStatus.DUE
        asked_ms = round(min(retry_after_s or 0, 86_400) * 1000)
        assert at_ms + asked_ms <= verdict.due_at_ms
        assert verdict.due_at_ms <= max(3 * DAY_MS, at_ms + asked_ms)
