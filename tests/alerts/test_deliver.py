"""What follows from an attempt, and that a message is sent until it arrived, is given up, or nobody wants it."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.deliver import Sender, Verdict, back_off_s, decide
from alerts.types import AttemptResult, DeliveryStatus
from monitor.errors import StoreUnavailable
from tests.alerts.building import MemoryOutbox, ScriptedChannel, a_delivery, an_attempt

DUE, DELIVERED, ABANDONED = DeliveryStatus.DUE, DeliveryStatus.DELIVERED, DeliveryStatus.ABANDONED
HOUR_MS, DAY_MS = 3_600_000, 86_400_000
FAILURES = [result for result in AttemptResult if result not in {AttemptResult.DELIVERED, AttemptResult.GONE}]
FAILED = an_attempt(AttemptResult.REFUSED, status_code=500)

# --- the back-off ----------------------------------------------------------------------------------


def test_the_first_pauses_are_short_and_the_last_ones_hours():
    means = [back_off_s(attempts, 0.5) for attempts in range(1, 12)]
    assert means == [5, 15, 45, 135, 405, 1_215, 3_645, 10_935, 14_400, 14_400, 14_400]


@given(st.integers(1, 10**6), st.floats(0, 1, exclude_max=True))
def test_a_pause_is_never_nothing_and_never_more_than_eight_hours(attempts, chance):
    assert 1 <= back_off_s(attempts, chance) <= 8 * 3_600


def test_chance_spreads_the_pauses_evenly():
    assert [back_off_s(2, chance / 4) for chance in range(4)] == [1, 8, 15, 22]


# --- what follows from an attempt ------------------------------------------------------------------


def test_what_arrived_is_finished():
    assert decide(a_delivery(), an_attempt(), DAY_MS, 10 * DAY_MS, 0.5) == Verdict(DELIVERED)


@pytest.mark.parametrize("result", FAILURES)
def test_what_failed_is_tried_again_after_the_pause(result):
    delivery = replace(a_delivery(), attempts=2, created_at_ms=1_000)
    assert decide(delivery, an_attempt(result), DAY_MS, 2_000, 0.5) == Verdict(DUE, 2_000 + 45_000)


def test_what_nobody_wants_any_more_is_abandoned_at_once():
    assert decide(a_delivery(), an_attempt(AttemptResult.GONE), DAY_MS, 0, 0.5) == Verdict(ABANDONED)


@pytest.mark.parametrize(("asked_s", "wait_s"), [(None, 5), (0.0, 5), (5.5, 5.5), (600.0, 600), (86_400.0, 86_400), (1e9, 86_400)])
def test_a_receiver_that_asks_for_a_pause_gets_it_within_bounds(asked_s, wait_s):
    attempt = an_attempt(AttemptResult.THROTTLED, retry_after_s=asked_s)
    assert decide(a_delivery(), attempt, 3 * DAY_MS, 0, 0.5) == Verdict(DUE, round(wait_s * 1_000))


@pytest.mark.parametrize(
    ("at_ms", "expected"),
    [
        (HOUR_MS - 5_001, Verdict(DUE, HOUR_MS - 1)),
        (HOUR_MS - 5_000, Verdict(DUE, HOUR_MS)),
        (HOUR_MS - 4_999, Verdict(DUE, HOUR_MS)),
        (HOUR_MS - 1, Verdict(DUE, HOUR_MS)),
        (HOUR_MS, Verdict(ABANDONED)),
        (10 * HOUR_MS, Verdict(ABANDONED)),
    ],
)
def test_the_last_try_comes_when_the_time_for_trying_is_over(at_ms, expected):
    assert decide(a_delivery(), FAILED, HOUR_MS, at_ms, 0.5) == expected


def test_a_receiver_that_asks_for_more_time_than_is_left_is_tried_once_more_after_it():
    attempt = an_attempt(AttemptResult.THROTTLED, retry_after_s=7_200.0)
    assert decide(a_delivery(), attempt, HOUR_MS, HOUR_MS - 1, 0.5) == Verdict(DUE, 3 * HOUR_MS - 1)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.sampled_from(FAILURES), st.floats(0.1, 0.999)), min_size=1, max_size=9),
    st.sampled_from([0, 1, 60_000, HOUR_MS, 3 * DAY_MS]),
)
def test_a_receiver_that_never_answers_is_tried_for_exactly_as_long_as_configured(failures, retry_for_ms):
    delivery, tried_ms = a_delivery(), []
    for result, chance in cycle(failures):
        tried_ms.append(delivery.due_at_ms)
        verdict = decide(delivery, an_attempt(result), retry_for_ms, delivery.due_at_ms, chance)
        if verdict.status is ABANDONED:
            break
        delivery = replace(delivery, attempts=delivery.attempts + 1, due_at_ms=verdict.due_at_ms)
    assert verdict.status is ABANDONED
    assert tried_ms[-1] == retry_for_ms
    assert tried_ms == sorted(set(tried_ms))


# --- the sender ------------------------------------------------------------------------------------


@dataclass
class Clock:
    """A wall clock that is moved by hand."""

    now_ms: int = 0

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class WatchedOutbox(MemoryOutbox):
    """Tells when something was recorded, fails when told to, and lets a test wait for a state of affairs."""

    changed: threading.Condition = field(default_factory=threading.Condition)
    failures: list[Exception] = field(default_factory=list)
    limits: list[int] = field(default_factory=list)

    def due(self, now_ms, limit):
        with self.changed:
            self.limits.append(limit)
            self.changed.notify_all()
            return super().due(now_ms, limit)

    def record(self, *details):
        if self.failures:
            raise self.failures.pop()
        with self.changed:
            super().record(*details)
            self.changed.notify_all()

    def hold(self, due, until_ms):
        with self.changed:
            return super().hold(due, until_ms)

    def add(self, deliveries):
        with self.changed:
            super().add(deliveries)

    def wait_for(self, holds):
        with self.changed:
            assert self.changed.wait_for(lambda: holds(self), timeout=10), "it never came to that"


def all_finished(outbox):
    return all(status is not DUE for status in outbox.statuses.values())


@contextmanager
def running(outbox, channels, **options):
    """A sender at work; leaving stops it and raises what it raised."""
    sender = Sender(outbox, channels, **({"wall_ms": Clock(), "chance": lambda: 0.5} | options))
    stop = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(sender.run, stop)
        try:
            yield sender
        finally:
            stop.set()
            sender.notify()
        future.result(10)


def test_what_is_due_is_sent_and_recorded():
    outbox, desk, siem = WatchedOutbox(), ScriptedChannel(), ScriptedChannel()
    outbox.add([a_delivery("a"), a_delivery("b"), a_delivery("a", receiver="siem")])
    seen = []
    with running(outbox, {"desk": desk, "siem": siem}, observe=lambda receiver, attempt: seen.append((receiver, attempt.result))):
        outbox.wait_for(all_finished)
    assert set(outbox.statuses.values()) == {DELIVERED}
    assert [row.incident_id for row in desk.sent] == ["a", "b"]
    assert sorted(seen) == [("desk", AttemptResult.DELIVERED)] * 2 + [("siem", AttemptResult.DELIVERED)]


def test_two_senders_on_one_outbox_send_each_message_once():
    outbox, channels = WatchedOutbox(), [ScriptedChannel(), ScriptedChannel()]
    outbox.add([a_delivery(f"incident-{number}") for number in range(30)])
    with running(outbox, {"desk": channels[0]}), running(outbox, {"desk": channels[1]}):
        outbox.wait_for(all_finished)
    sent = [row.incident_id for channel in channels for row in channel.sent]
    assert sorted(sent) == sorted(f"incident-{number}" for number in range(30))


def test_a_message_is_sent_again_once_its_pause_is_over_and_under_the_same_id():
    outbox, clock = WatchedOutbox(), Clock()
    desk = ScriptedChannel([FAILED, FAILED, an_attempt()])
    outbox.add([a_delivery()])
    name = "msg_a_1_desk"
    with running(outbox, {"desk": desk}, wall_ms=clock) as sender:
        for attempts, now_ms in ((1, 5_000), (2, 20_000)):
            outbox.wait_for(lambda outbox, attempts=attempts: outbox.rows[name].attempts == attempts)
            clock.now_ms, looks = now_ms - 1, len(outbox.limits)
            sender.notify()
            outbox.wait_for(lambda outbox, looks=looks: len(outbox.limits) > looks)
            assert len(desk.sent) == attempts
            clock.now_ms = now_ms
            sender.notify()
        outbox.wait_for(all_finished)
    assert [row.delivery_id for row in desk.sent] == [name] * 3
    assert [row.attempts for row in desk.sent] == [0, 1, 2]


def test_the_sender_wakes_by_itself_when_something_becomes_due():
    started_ms = time.time_ns() // 1_000_000
    outbox, desk = WatchedOutbox(), ScriptedChannel()
    outbox.add([a_delivery(due_at_ms=started_ms + 150)])
    with running(outbox, {"desk": desk}, wall_ms=lambda: time.time_ns() // 1_000_000):
        outbox.wait_for(all_finished)
    assert time.time_ns() // 1_000_000 - started_ms >= 150


def test_the_changes_of_an_incident_go_out_in_order():
    outbox = WatchedOutbox()
    desk = ScriptedChannel([FAILED, an_attempt()])
    outbox.add([a_delivery("a", sequence=2), a_delivery("a", sequence=1), a_delivery("b")])
    clock = Clock()
    with running(outbox, {"desk": desk}, wall_ms=clock) as sender:
        outbox.wait_for(lambda outbox: outbox.rows["msg_a_1_desk"].attempts == 1 and outbox.rows["msg_b_1_desk"].attempts == 1)
        clock.now_ms = 5_000
        sender.notify()
        outbox.wait_for(all_finished)
    assert [(row.incident_id, row.sequence) for row in desk.sent] == [("a", 1), ("b", 1), ("a", 1), ("a", 2)]


def test_a_receiver_that_hangs_delays_nobody_else():
    outbox, hold = WatchedOutbox(), threading.Event()
    slow, quick = ScriptedChannel(hold=hold), ScriptedChannel()
    outbox.add([a_delivery(str(number), receiver="slow") for number in range(200)])
    outbox.add([a_delivery(str(number), receiver="quick", due_at_ms=1) for number in range(3)])
    with running(outbox, {"slow": slow, "quick": quick}, wall_ms=Clock(1)):
        outbox.wait_for(lambda outbox: all(outbox.rows[f"msg_{number}_1_quick"].attempts for number in range(3)))
        assert len(slow.sent) == 1, "one message at a time to each receiver"
        hold.set()
    assert len(quick.sent) == 3
    assert max(outbox.limits) == 256, "the backlog of the one does not hide the messages of the other"


def test_it_rests_while_all_that_is_due_waits_behind_an_attempt_under_way():
    outbox, hold = WatchedOutbox(), threading.Event()
    slow = ScriptedChannel(hold=hold)
    outbox.add([a_delivery("a"), a_delivery("b")])
    with running(outbox, {"desk": slow}):
        assert slow.begun.wait(10)
        with outbox.changed:
            assert not outbox.changed.wait_for(lambda: len(outbox.limits) > 20, timeout=0.3)
        hold.set()


def test_new_messages_go_out_while_another_receiver_hangs():
    outbox, hold = WatchedOutbox(), threading.Event()
    slow, quick = ScriptedChannel(hold=hold), ScriptedChannel()
    outbox.add([a_delivery(receiver="slow")])
    with running(outbox, {"slow": slow, "quick": quick}) as sender:
        assert slow.begun.wait(10)
        outbox.add([a_delivery(receiver="quick")])
        sender.notify()
        outbox.wait_for(lambda outbox: outbox.statuses["msg_a_1_quick"] is DELIVERED)
        hold.set()


def test_a_receiver_that_is_gone_is_disabled_and_its_messages_are_given_up():
    outbox = WatchedOutbox()
    desk = ScriptedChannel([an_attempt(AttemptResult.GONE, status_code=410, detail="it answered 410")])
    outbox.add([a_delivery("a"), a_delivery("b", due_at_ms=10**9)])
    with running(outbox, {"desk": desk}):
        outbox.wait_for(all_finished)
    assert outbox.disabled == {"desk": "it answered 410"}
    assert set(outbox.statuses.values()) == {ABANDONED}
    assert len(desk.sent) == 1


def test_messages_to_a_receiver_that_is_no_longer_configured_are_given_up_with_the_reason():
    outbox, seen = WatchedOutbox(), []
    outbox.add([a_delivery()])
    with running(outbox, {}, observe=lambda *details: seen.append(details)):
        outbox.wait_for(all_finished)
    assert outbox.statuses == {"msg_a_1_desk": ABANDONED}
    assert outbox.last["msg_a_1_desk"].detail == "the receiver is no longer configured"
    assert not seen, "a name that is not configured labels no metric"


def test_when_it_stops_it_waits_for_what_is_under_way_and_records_it():
    outbox, hold = WatchedOutbox(), threading.Event()
    desk = ScriptedChannel(hold=hold)
    outbox.add([a_delivery("a"), a_delivery("b")])
    sender, stop = Sender(outbox, {"desk": desk}, wall_ms=Clock()), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(sender.run, stop)
        assert desk.begun.wait(10)
        stop.set()
        sender.notify()
        assert not future.done()
        hold.set()
        future.result(10)
    assert outbox.statuses == {"msg_a_1_desk": DELIVERED, "msg_b_1_desk": DUE}
    assert len(desk.sent) == 1


def test_it_stops_without_a_word_too():
    sender, stop = Sender(WatchedOutbox(), {}, wall_ms=Clock()), threading.Event()
    thread = threading.Thread(target=sender.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(5)
    assert not thread.is_alive()


def test_a_fault_of_the_outbox_comes_out_and_the_attempt_is_recorded_by_the_next_run():
    outbox = WatchedOutbox(failures=[StoreUnavailable("no answer")])
    outbox.add([a_delivery()])
    desk = ScriptedChannel()
    sender, stop = Sender(outbox, {"desk": desk}, wall_ms=Clock()), threading.Event()
    with pytest.raises(StoreUnavailable):
        sender.run(stop)
    stop.set()
    sender.run(stop)
    assert outbox.statuses == {"msg_a_1_desk": DELIVERED}
    assert len(desk.sent) == 1, "it was not sent twice"


def test_a_fault_of_the_observer_comes_out_and_costs_no_second_record():
    def observe(receiver, attempt):
        raise StoreUnavailable("no answer")

    outbox, desk = WatchedOutbox(), ScriptedChannel()
    outbox.add([a_delivery()])
    sender, stop = Sender(outbox, {"desk": desk}, observe=observe, wall_ms=Clock()), threading.Event()
    with pytest.raises(StoreUnavailable):
        sender.run(stop)
    stop.set()
    sender.run(stop)
    assert outbox.rows["msg_a_1_desk"].attempts == 1


def test_a_fault_of_a_channel_comes_out_and_leaves_the_message_due():
    class Broken(ScriptedChannel):
        def send(self, delivery, now_ms):
            raise LookupError

    outbox = WatchedOutbox()
    outbox.add([a_delivery()])
    clock = Clock()
    sender = Sender(outbox, {"desk": Broken()}, wall_ms=clock)
    for due_at_ms in (20_000, 40_000):
        with pytest.raises(LookupError):
            sender.run(threading.Event())
        # It is held for as long as the attempt could have taken.
        assert outbox.rows["msg_a_1_desk"].due_at_ms == due_at_ms
        clock.now_ms = due_at_ms
    assert outbox.statuses == {"msg_a_1_desk": DUE}


def test_after_a_restart_nothing_is_lost_and_what_arrived_is_not_repeated():
    outbox = WatchedOutbox()
    outbox.add([a_delivery(str(number)) for number in range(5)])
    first, second = ScriptedChannel([an_attempt(), an_attempt(), FAILED]), ScriptedChannel()
    with running(outbox, {"desk": first}):
        outbox.wait_for(lambda outbox: all(row.attempts for row in outbox.rows.values()))
    with running(outbox, {"desk": second}, wall_ms=Clock(5_000)):
        outbox.wait_for(all_finished)
    assert [row.incident_id for row in second.sent] == ["2", "3", "4"]
