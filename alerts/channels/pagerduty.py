"""A notice to an event of PagerDuty's Events API v2: an incident triggers one alert under its id, and resolves it under the same.

Source: https://developer.pagerduty.com/docs/events-api-v2/trigger-events/ (summary of 1,024 characters, event of 512 kB).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from alerts.channels.posting import Endpoint, Posted, Request
from alerts.notice import ENGLISH, Alarm, Notice, Voice, rendered
from alerts.signature import Secret
from alerts.text import json_bytes, plain_text, time_text
from alerts.types import Delivery, IncidentChange

EVENTS_URL: Final = "https://events.pagerduty.com/v2/enqueue"
EVENTS: Final = Endpoint(Secret(EVENTS_URL))
EVENT_BYTES: Final = 512_000
SUMMARY_LENGTH: Final = 1_024


@dataclass(frozen=True, slots=True)
class PagerDutyReceiver(Posted):
    """A service in PagerDuty; `routing_key` is its integration key. Raises ConfigurationError.

    PagerDuty answers 202 where the event was taken, and 429 above the service's rate.
    """

    name: str
    routing_key: Secret
    endpoint: Endpoint = EVENTS
    voice: Voice = ENGLISH

    def faults(self) -> Iterable[str]:
        """What keeps URL or key from being used."""
        yield from self.endpoint.faults()
        if not self.routing_key.reveal().strip():
            yield "routing_key: is missing"

    def render(self, change: IncidentChange) -> bytes:
        """The event without its routing key."""
        return rendered(change, self.voice, lambda notice: _event(change, notice), EVENT_BYTES - 201)

    def request(self, delivery: Delivery, now_ms: int) -> Request:
        """The event with its routing key."""
        del now_ms
        event = {"routing_key": self.routing_key.reveal(), **json.loads(delivery.body)}
        return Request(self.endpoint.url, json_bytes(event))


def _event(change: IncidentChange, notice: Notice) -> dict[str, Any]:
    details: dict[str, Any] = {fact.name: fact.value for fact in notice.facts}
    if notice.stories:
        told = ((story.headline, notice.about(story)) for story in notice.stories)
        details[notice.words.leading_stories] = [f"{headline} ({about})" if about else headline for headline, about in told]
    event: dict[str, Any] = {
        "event_action": "resolve" if notice.alarm is Alarm.OVER else "trigger",
        "dedup_key": notice.incident_id,
        "client": "Bellwether",
        "payload": {
            "summary": plain_text(f"{notice.title} — {notice.why}", SUMMARY_LENGTH),
            "source": "bellwether",
            "severity": str(change.incident.severity),
            "timestamp": time_text(change.at_ms),
            "component": plain_text(str(change.incident.series), SUMMARY_LENGTH),
            "group": plain_text(change.incident.rule, SUMMARY_LENGTH),
            "custom_details": details,
        },
    }
    if notice.link is not None:
        event |= {"client_url": notice.link, "links": [{"href": notice.link, "text": notice.words.link}]}
    return event
