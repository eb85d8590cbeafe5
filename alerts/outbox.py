"""Changes of incidents to deliveries, one per receiver; and the contract of the store that keeps them until they are finished."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, Protocol

from alerts.channels.protocol import Receiver
from alerts.types import Attempt, Delivery, DeliveryStatus, IncidentChange, Rule

_ID_BYTES: Final = 16


class Outbox(Protocol):
    """Deliveries at rest, for one sender or several.

    Every method may raise StoreUnavailable, and then may have changed what it was to change, or nothing.
    """

    def due(self, now_ms: int, limit: int) -> list[Delivery]:
        """At most `limit` deliveries that are not finished and whose `due_at_ms` has come, the longest due first.

        Left out are those of disabled receivers, and those of which an earlier sequence of the same incident and receiver is not
        finished. Finished is what is delivered or abandoned. Asking changes nothing.
        """

    def hold(self, due: Delivery, until_ms: int) -> bool:
        """Keeps a delivery that `due` gave from every other sender until `until_ms`; False when another was faster.

        A sender that dies holding it lets go of it at that time, and it is due again.
        """

    def record(self, delivery_id: str, attempt: Attempt, status: DeliveryStatus, due_at_ms: int | None, at_ms: int) -> None:
        """Writes one attempt down: `attempts` grows by one, and result, status code and detail of `attempt` are kept as the last.

        `status` is where the delivery stands then: DUE, and `due_at_ms` is the next try; or finished, at `at_ms`, and `due_at_ms`
        is None. `created_at_ms` never changes here.
        """

    def disable(self, receiver: str, reason: str, at_ms: int) -> None:
        """Sends nothing more to a receiver: what is not finished for it is abandoned, with `reason` as its last detail.

        Doing it twice keeps the later reason. A person undoes it.
        """

    def next_due_at_ms(self) -> int | None:
        """The earliest `due_at_ms` of what `due` would ever give, in the past or not; None when nothing waits."""


def plan(
    changes: Iterable[IncidentChange], receivers: Iterable[Receiver], rules: Iterable[Rule], now_ms: int
) -> tuple[Delivery, ...]:
    """The deliveries that follow from `changes`: in their order, within one in the receivers', due at `now_ms` (wall clock).

    A rule says who hears of it; of an incident whose rule is gone everyone does, because everyone may have heard of its opening.
    The ids are the same in every replay. Raises DeliveryError when a message cannot be made small enough.
    """
    told = {rule.name: rule.receivers for rule in rules}
    everyone = tuple(receivers)
    deliveries: list[Delivery] = []
    for change in changes:
        names = told.get(change.incident.rule)
        wanted = [receiver for receiver in everyone if names is None or receiver.name in names]
        deliveries.extend(_delivery(change, receiver, now_ms) for receiver in wanted)
    return tuple(deliveries)


def _delivery(change: IncidentChange, receiver: Receiver, now_ms: int) -> Delivery:
    incident_id, sequence = change.incident.incident_id, change.sequence
    return Delivery(
        delivery_id=delivery_id(incident_id, sequence, receiver.name),
        receiver=receiver.name,
        incident_id=incident_id,
        sequence=sequence,
        body=receiver.render(change),
        created_at_ms=now_ms,
        due_at_ms=now_ms,
    )


def delivery_id(incident_id: str, sequence: int, receiver: str) -> str:
    """Names one message to one receiver: "msg_" and 32 hexadecimal digits, the same in every replay."""
    text = "\0".join((incident_id, str(sequence), receiver))
    return f"msg_{blake2b(text.encode(), digest_size=_ID_BYTES).hexdigest()}"
