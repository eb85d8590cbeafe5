"""Scored documents of all instances in, incidents out, by one instance at a time: the leader.

It places what waits in the one order of stream time, so that the same log gives the same stories, counts and incidents, however
many instances read it and however fast; then it judges the minutes that are complete. Everything it writes is written under its
lease; whoever leads next goes on from what is saved.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Final

import structlog

from monitor.buckets import fold
from monitor.errors import Deposed, StoreUnavailable
from monitor.judging import Judging
from monitor.metrics import Metrics
from monitor.store.lease import Lease
from monitor.store.ledger import Ledger
from monitor.stories import Placement, Stories
from monitor.types import DAY_MS, Partition, Turn
from monitor.watermark import mark
from monitor.windows import Windows

log = structlog.get_logger(__name__)

_TRY_AGAIN_S: Final = 1.0
_RENEW_AFTER_S: Final = 3.0
HISTORY_REACH_MS: Final = 35 * DAY_MS
"""So far back the hours reach from which a baseline is estimated."""
_AT_ONCE: Final = 4_096
"""So many documents are placed in one transaction, and before the loop reads again."""


@dataclass(slots=True)
class Leading:
    """What the leader remembers, and what it does in a turn. An instance that does not lead remembers nothing.

    `windows_reach_ms` and `stories_reach_ms` are how far back memory keeps minutes and stories. `clock_s` is monotonic.
    """

    lease: Lease
    ledger: Ledger
    stories: Stories
    windows: Windows
    judging: Judging
    metrics: Metrics
    idle_after_ms: int
    windows_reach_ms: int
    stories_reach_ms: int
    clock_s: Callable[[], float] = time.monotonic
    remembers: bool = False
    _reports: bool = False
    """Whether there may be reports of severe events that no rule has heard of."""
    _tried_s: float = float("-inf")
    _proved_s: float = float("-inf")

    def turn(self, known: Collection[Partition]) -> bool:
        """Places and judges what can be, if we lead; whether more can be at once. `known` are all partitions of the log.

        Raises StoreUnavailable; then a later turn begins with what is saved.
        """
        if not self._leads():
            return False
        try:
            if not self.remembers:
                self._remember()
            return self._advance(known)
        except Deposed as error:
            log.warning("leader.deposed", reason=str(error))
            self._forget()
            return False
        except StoreUnavailable:
            # What was to be saved may be saved: memory is not to be trusted.
            self._forget()
            raise

    def resign(self) -> None:
        """Lets another instance lead at once."""
        self._forget()
        self.lease.release()

    def _leads(self) -> bool:
        if self.lease.held:
            return True
        if self.remembers:
            # Deposed while the lease was kept: what we remember is no longer how things stand.
            self._forget()
        now_s = self.clock_s()
        if now_s - self._tried_s < _TRY_AGAIN_S:
            return False
        self._tried_s = now_s
        if self.lease.acquire():
            log.info("leader.elected")
            self._proved_s = now_s
        self.metrics.leader.set(self.lease.held)
        return self.lease.held

    def _advance(self, known: Collection[Partition]) -> bool:
        reached = mark(self.ledger.progress(), known, self.idle_after_ms)
        more = False
        if reached is not None:
            placed, more = self._place(reached)
            with self.metrics.timed("judge"):
                reports, self._reports = self._reports, False
                if self.judging.advance(placed[0], reports=reports):
                    self._proved_s = self.clock_s()
            self._let_go()
        if self.clock_s() - self._proved_s >= _RENEW_AFTER_S:
            self.lease.renew()
            self._proved_s = self.clock_s()
        return more

    def _place(self, reached: Turn) -> tuple[Turn, bool]:
        """Places what waits before `reached`, but not too much at once; up to where all is placed now, and whether more waits."""
        with self.metrics.timed("place"):
            waiting = self.ledger.waiting(reached, _AT_ONCE)
        if not waiting:
            return reached, False
        with self.lease.kept():
            with self.metrics.timed("place"):
                placement = self.stories.place(waiting)
                buckets = fold(placement)
            with self.metrics.timed("settle"):
                self.ledger.settle(placement, buckets, self.lease)
        self._proved_s = self.clock_s()
        self.stories.accept(placement)
        self.windows.add(buckets)
        self.judging.learn(buckets)
        self._count(placement)
        self._reports = self._reports or any(item.scored.events for item in placement.placed)
        more = len(waiting) == _AT_ONCE
        return (waiting[-1].turn if more else reached), more

    def _count(self, placement: Placement) -> None:
        judged_ms = self.judging.evaluated_until_ms or 0
        self.metrics.count_placed([item.standing for item in placement.placed])
        self.metrics.late.inc(sum(item.scored.received_ms < judged_ms for item in placement.placed))

    def _let_go(self) -> None:
        judged_ms = self.judging.evaluated_until_ms
        if judged_ms is not None:
            self.metrics.watermark_seconds.set(judged_ms / 1000)
            self.windows.forget_before(judged_ms - self.windows_reach_ms)
            self.stories.forget_before(judged_ms - self.stories_reach_ms)

    def _remember(self) -> None:
        """Rebuilds from the store what a leader remembers: windows, the index of stories, how far rules were judged."""
        self.judging.restore()
        newest_ms = self.ledger.newest_ms()
        if newest_ms is not None:
            judged_ms = self.judging.evaluated_until_ms
            begin_ms = newest_ms if judged_ms is None else min(newest_ms, judged_ms)
            self.windows.add(self.ledger.buckets(begin_ms - self.windows_reach_ms))
            self.judging.learn(self.ledger.hours(begin_ms - HISTORY_REACH_MS))
            self.stories.restore(self.ledger.story_keys(begin_ms - self.stories_reach_ms))
        self.remembers = self._reports = True

    def _forget(self) -> None:
        self.remembers = False
        self.windows.clear()
        self.stories.clear()
        self.judging.clear()
        self.metrics.leader.set(self.lease.held)
