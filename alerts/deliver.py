"""Due deliveries to attempts, and each attempt to what follows from it: finished, abandoned, or a later due time."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from alerts.channels.protocol import Channel
from alerts.outbox import Outbox
from alerts.types import Attempt, AttemptResult, Delivery, DeliveryStatus

log = structlog.get_logger(__name__)

_FIRST_WAIT_S: Final = 5.0
_GROWTH: Final = 3.0
_LONGEST_WAIT_S: Final = 4 * 3_600.0
_SHORTEST_WAIT_S: Final = 1.0
_LONGEST_RETRY_AFTER_S: Final = 24 * 3_600.0
_LOOK_AGAIN_S: Final = 30.0
"""Another process may have put something into the outbox, and cannot notify us."""
_LONGEST_PAUSE_MS: Final = round(_LONGEST_RETRY_AFTER_S * 1_000) + 3_600_000
"""What is put off for longer than any pause lasts was put off by a clock that ran ahead."""

_BEHIND_S: Final = 2.0
_STOP_S: Final = 1.0
_SLACK_MS: Final = 5_000
"""An attempt that has ended is written down within so long."""
_MOST_AT_ONCE: Final = 32
_LIMIT: Final = 64


def back_off_s(attempts: int, chance: float) -> float:
    """How long to wait after the attempt number `attempts` (from 1) failed, in seconds.

    The mean is 5, 15, 45 s, and then grows threefold up to 4 h. Full jitter: `chance` in [0, 1) picks evenly from 1 s to just under
    twice the mean, so that messages that failed together do not come back together.
    """
    # The exponent is bounded because a delivery that a person retries for years would overflow it.
    mean_s = min(_FIRST_WAIT_S * _GROWTH ** min(attempts - 1, 32), _LONGEST_WAIT_S)
    return _SHORTEST_WAIT_S + chance * 2 * (mean_s - _SHORTEST_WAIT_S)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What follows from an attempt: where the delivery stands, and when it is tried next."""

    status: DeliveryStatus
    due_at_ms: int | None = None


def decide(delivery: Delivery, attempt: Attempt, retry_for_ms: int, at_ms: int, chance: float) -> Verdict:
    """What follows from `attempt`, which ended at `at_ms` (wall clock).

    A failure is tried again after the back-off, and not before `Retry-After` (at most a day) where the receiver asked for that.
    The last try comes `retry_for_ms` after the creation, or as soon after that as the receiver allows.
    """
    if attempt.result is AttemptResult.DELIVERED:
        return Verdict(DeliveryStatus.DELIVERED)
    last_ms = delivery.created_at_ms + retry_for_ms
    if attempt.result is AttemptResult.GONE or at_ms >= last_ms:
        return Verdict(DeliveryStatus.ABANDONED)
    due_at_ms = min(at_ms + round(back_off_s(delivery.attempts + 1, chance) * 1_000), last_ms)
    asked_s = min(attempt.retry_after_s or 0.0, _LONGEST_RETRY_AFTER_S)
    return Verdict(DeliveryStatus.DUE, max(due_at_ms, at_ms + round(asked_s * 1_000)))


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def _ignore(receiver: str, attempt: Attempt) -> None:
    del receiver, attempt


class Sender:
    """Sends what is due, at least once, in the order of each incident, one message at a time to each receiver.

    The thread that calls `run` asks the outbox and writes to it; attempts are made in a pool, so that a receiver that hangs delays
    nobody else. Several processes may send from one outbox: each holds what it sends. `observe` hears of every attempt after it was
    recorded, in that same thread.
    """

    def __init__(
        self,
        outbox: Outbox,
        channels: Mapping[str, Channel],
        *,
        observe: Callable[[str, Attempt], None] = _ignore,
        wall_ms: Callable[[], int] = _wall_ms,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._outbox = outbox
        self._channels = channels
        self._observe = observe
        self._wall_ms = wall_ms
        self._chance = chance
        self._wake = threading.Event()
        self._notified = True
        self._looked_behind_s = float("-inf")
        self._in_flight: dict[str, tuple[Delivery, Future[Attempt]]] = {}

    def notify(self) -> None:
        """Says that there may be something to do: new deliveries, or the end. Safe from any thread."""
        self._notified = True
        self._wake.set()

    def run(self, stop: threading.Event) -> None:
        """Sends until `stop` is set (within a second, at once after `notify`), then lets what is under way end, and records it.

        Raises what the outbox or a channel raises, after the attempts under way have ended; called again, it records those first.
        """
        with ThreadPoolExecutor(max(1, min(len(self._channels), _MOST_AT_ONCE)), "deliver") as pool:
            while not stop.is_set():
                self._wake.clear()
                self._settle()
                self._start(pool)
                self._wait(stop)
        self._settle()

    def _settle(self) -> None:
        """Records the attempts that have ended. An attempt is forgotten once it is written down, or never was one."""
        for receiver, (delivery, future) in list(self._in_flight.items()):
            if not future.done():
                continue
            if future.exception() is not None:
                del self._in_flight[receiver]
            attempt = future.result()
            verdict = self._record(delivery, attempt)
            del self._in_flight[receiver]
            _log(delivery, attempt, verdict)
            self._observe(receiver, attempt)

    def _record(self, delivery: Delivery, attempt: Attempt) -> Verdict:
        at_ms = self._wall_ms()
        verdict = decide(delivery, attempt, self._channels[delivery.receiver].retry_for_ms, at_ms, self._chance())
        self._outbox.record(delivery.delivery_id, attempt, verdict.status, verdict.due_at_ms, at_ms)
        if attempt.result is AttemptResult.GONE:
            self._outbox.disable(delivery.receiver, attempt.detail, at_ms)
        return verdict

    def _start(self, pool: ThreadPoolExecutor) -> None:
        """Begins one attempt for every receiver that has something due and nothing under way."""
        for delivery in self._due():
            channel = self._channels.get(delivery.receiver)
            if channel is None:
                self._abandon(delivery)
            elif delivery.receiver not in self._in_flight and self._hold(delivery, channel):
                future = pool.submit(channel.send, delivery, self._wall_ms())
                self._in_flight[delivery.receiver] = delivery, future
                future.add_done_callback(lambda _: self._wake.set())

    def _hold(self, delivery: Delivery, channel: Channel) -> bool:
        """Keeps other senders away for as long as the attempt may take; whether none of them was faster."""
        return self._outbox.hold(delivery, self._wall_ms() + channel.timeout_ms + _SLACK_MS)

    def _due(self) -> Iterator[Delivery]:
        """What is due. Where one receiver's backlog fills the answer, more is asked for, so that the others have their chance.

        That is done when somebody says that there is something new, and now and then: a backlog of thousands is not read anew for
        each message that is sent of it.
        """
        now_ms, limit = self._wall_ms(), _LIMIT
        while True:
            due = self._outbox.due(now_ms, limit) or self._put_off(now_ms, limit)
            yield from due
            if len(due) < limit or self._in_flight.keys() >= self._channels.keys():
                return
            if limit == _LIMIT:
                now_s = time.monotonic()
                if not self._notified and now_s - self._looked_behind_s < _BEHIND_S:
                    return
                self._notified, self._looked_behind_s = False, now_s
            limit *= 2

    def _put_off(self, now_ms: int, limit: int) -> list[Delivery]:
        """Where nothing else is due: what a clock that ran ahead has put off for longer than any pause lasts."""
        next_due_ms = self._outbox.next_due_at_ms()
        if next_due_ms is None or next_due_ms - now_ms <= _LONGEST_PAUSE_MS:
            return []
        return self._outbox.due(next_due_ms, limit)

    def _abandon(self, delivery: Delivery) -> None:
        attempt = Attempt(AttemptResult.GONE, None, "the receiver is no longer configured", 0.0)
        self._outbox.record(delivery.delivery_id, attempt, DeliveryStatus.ABANDONED, None, self._wall_ms())
        _log(delivery, attempt, Verdict(DeliveryStatus.ABANDONED))

    def _wait(self, stop: threading.Event) -> None:
        """Waits for a notification, the end of an attempt, the next due time or `stop`."""
        until_s = time.monotonic() + self._pause_s()
        while not stop.is_set():
            left_s = until_s - time.monotonic()
            if left_s <= 0 or self._wake.wait(min(left_s, _STOP_S)):
                return

    def _pause_s(self) -> float:
        """How long there is nothing to do, as far as the outbox knows."""
        next_due_ms = self._outbox.next_due_at_ms()
        if next_due_ms is None:
            return _LOOK_AGAIN_S
        left_s = (next_due_ms - self._wall_ms()) / 1_000
        if left_s <= 0 and self._in_flight:
            # What is due waits behind an attempt under way; it hides the due times of all others.
            return _BEHIND_S
        return min(max(left_s, 0.0), _LOOK_AGAIN_S)


def _log(delivery: Delivery, attempt: Attempt, verdict: Verdict) -> None:
    facts = {"delivery": delivery.delivery_id, "receiver": delivery.receiver, "result": str(attempt.result)}
    match verdict.status:
        case DeliveryStatus.DELIVERED:
            log.info("delivery.delivered", **facts)
        case DeliveryStatus.ABANDONED:
            log.error("delivery.abandoned", **facts, reason=attempt.detail)
        case DeliveryStatus.DUE:
            log.warning("delivery.failed", **facts, reason=attempt.detail, due_at_ms=verdict.due_at_ms)
