"""A change of an incident to a signed POST, as Standard Webhooks lays down: our own body, or that of Alertmanager's webhooks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from alerts.channels.alertmanager import ALERT_BYTES, webhook_content
from alerts.channels.posting import Endpoint, Posted, Request
from alerts.messages import webhook_body
from alerts.notice import ENGLISH, Voice, rendered
from alerts.signature import Secret, signature_headers, signing_key
from alerts.types import Delivery, IncidentChange


class BodyFormat(StrEnum):
    """What a webhook's body looks like."""

    BELLWETHER = "bellwether"
    """`webhook.schema.json`."""
    ALERTMANAGER = "alertmanager"
    """Version 4 of Alertmanager's webhook body, so that whatever takes its webhooks takes ours."""


@dataclass(frozen=True, slots=True)
class WebhookReceiver(Posted):
    """A program that takes webhooks.

    `secrets` all sign, the first one first. Raises ConfigurationError that lists every fault of URL and secrets.
    """

    name: str
    endpoint: Endpoint
    secrets: tuple[Secret, ...]
    voice: Voice = ENGLISH
    body: BodyFormat = BodyFormat.BELLWETHER

    def faults(self) -> Iterable[str]:
        """What keeps URL or secrets from being used."""
        return [*self.endpoint.faults(), *(f"secret: {fault}" for fault in _secret_faults(self.secrets))]

    def render(self, change: IncidentChange) -> bytes:
        """The body that the receiver wants."""
        if self.body is BodyFormat.BELLWETHER:
            return webhook_body(change)
        return rendered(change, self.voice, lambda notice: webhook_content(change, notice, self.name), ALERT_BYTES - 1)

    def request(self, delivery: Delivery, now_ms: int) -> Request:
        """The body as it is, signed for `now_ms`."""
        keys = tuple(signing_key(secret) for secret in self.secrets)
        headers = signature_headers(delivery.delivery_id, now_ms, delivery.body, keys)
        return Request(self.endpoint.url, delivery.body, headers)


def _secret_faults(secrets: tuple[Secret, ...]) -> Iterable[str]:
    if not secrets:
        yield "is missing"
    for secret in secrets:
        try:
            signing_key(secret)
        except ValueError as error:
            yield str(error)
