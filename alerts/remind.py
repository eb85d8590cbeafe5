"""What stands to a receiver that forgets: the last message of every open incident is told again, interval after interval.

Nothing is remembered between two rounds, nor over a restart: each round asks the store what stands. What was resolved within the
last quarter of an hour is told again too, so that an end which got lost is made good, as Prometheus does it. Any number of
instances may remind: hearing the same thing twice changes nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final, Protocol

import structlog

from alerts.channels.alertmanager import AlertmanagerReceiver, joined
from alerts.channels.protocol import Channel
from alerts.types import Attempt, AttemptResult, Delivery

log = structlog.get_logger(__name__)

ENDED_WITHIN_MS: Final = 15 * 60_000

_MOST_AT_ONCE: Final = 200
"""So many messages go into one post."""


class Standing(Protocol):
    """Where the messages are kept of which some stand."""

    def standing(self, receiver: str, ended_since_ms: int) -> list[Delivery]:
        """The last message to `receiver` about each incident that is open; and of those that are not, the message of the end,
        if it was created at `ended_since_ms` (wall clock) or later. Whether it has been delivered does not matter.

        Nothing stands for a disabled receiver. Raises StoreUnavailable.
        """


class Reminder:
    """Reminds one receiver. `observe` hears of every attempt."""

    def __init__(
        self,
        standing: Standing,
        receiver: AlertmanagerReceiver,
        channel: Channel,
        *,
        observe: Callable[[str, Attempt], None],
        wall_ms: Callable[[], int],
    ) -> None:
        self._standing = standing
        self._receiver = receiver
        self._channel = channel
        self._observe = observe
        self._wall_ms = wall_ms

    def run(self, stop: threading.Event) -> None:
        """Reminds at once, and then at the receiver's interval, until `stop` is set. Raises what the store raises."""
        while not stop.is_set():
            began_s = time.monotonic()
            self.remind()
            stop.wait(max(0.0, self._receiver.resend_every_ms / 1_000 - (time.monotonic() - began_s)))

    def remind(self) -> None:
        """One round. It ends with the first failure: the next round comes soon.

        After a post the store is asked again, and what has changed meanwhile is posted too: so an incident that was resolved, and
        whose end was told, while we told that it is open, is not left open.
        """
        told: dict[str, str] = {}
        while messages := self._untold(told):
            attempt = self._post(messages)
            self._observe(self._receiver.name, attempt)
            if attempt.result is not AttemptResult.DELIVERED:
                log.warning("reminder.failed", receiver=self._receiver.name, result=str(attempt.result), reason=attempt.detail)
                return
            told |= {message.incident_id: message.delivery_id for message in messages}

    def _untold(self, told: dict[str, str]) -> list[Delivery]:
        """What stands and was not told in this round, as far as it fits into one post."""
        standing = self._standing.standing(self._receiver.name, self._wall_ms() - ENDED_WITHIN_MS)
        return [message for message in standing if told.get(message.incident_id) != message.delivery_id][:_MOST_AT_ONCE]

    def _post(self, messages: list[Delivery]) -> Attempt:
        together = replace(messages[0], body=joined(message.body for message in messages))
        return self._channel.send(together, self._wall_ms())
