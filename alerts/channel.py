"""The contract of a channel: a delivery and the time in, the outcome of one attempt out."""

from __future__ import annotations

from typing import Protocol

from alerts.types import Attempt, Delivery


class Channel(Protocol):
    """A way to one receiver."""

    @property
    def retry_for_ms(self) -> int:
        """How long after its creation a delivery is tried again."""

    @property
    def timeout_ms(self) -> int:
        """The longest that one attempt takes."""

    def send(self, delivery: Delivery, now_ms: int) -> Attempt:
        """Makes one attempt and says how it ended; `now_ms` is the wall clock, which the receiver reads as the time of sending.

        Ends within `timeout_ms`. Every failure of the network or of the receiver is an `Attempt`, never an exception.
        One thread at a time calls it.
        """
