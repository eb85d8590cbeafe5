"""The contract of a receiver and of the channel to it: a change to a body, and a delivery and the time to the end of an attempt."""

from __future__ import annotations

import ssl
from typing import Protocol

from alerts.network import Resolver, system_addresses
from alerts.types import Attempt, Delivery, IncidentChange


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


class Receiver(Protocol):
    """Who is told about incidents: its name, what is said to it, and the way to it. Its repr shows no secret."""

    @property
    def name(self) -> str:
        """Names it in rules, metrics and the outbox."""

    def render(self, change: IncidentChange) -> bytes:
        """What is said about `change`: the body of a delivery, the same at any time and without a secret of the receiver.

        Raises DeliveryError when it cannot be made small enough.
        """

    def channel(self, resolver: Resolver = system_addresses, ssl_context: ssl.SSLContext | None = None) -> Channel:
        """A new way to it; `ssl_context` None: the system's trusted authorities."""
