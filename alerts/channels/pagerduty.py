"""A notice to an event of PagerDuty's Events API v2: an incident triggers one alert under its id, and resolves it under the same.

Source: https://developer.pagerduty.com/docs/events-api-v2/trigger-events/ (summary of 1,024 characters, event of 512 kB).
"""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from typing import Any, Final

from alerts.channels.answers import Answer, Meaning, judge_status
from alerts.channels.posting import Endpoint, PostingChannel, Request, refuse
from alerts.channels.protocol import Channel
from alerts.network import Resolver, system_addresses
from alerts.notice import ENGLISH, Alarm, Notice, Voice, compose, fitted
from alerts.signature import Secret
from alerts.text import json_bytes, plain_text, time_text
from alerts.types import Delivery, IncidentChange

EVENTS_URL: Final = "https://events.pagerduty.com/v2/enqueue"
EVENTS: Final = Endpoint(Secret(EVENTS_URL))
EVENT_BYTES: Final = 512_000
SUMMARY_LENGTH: Final = 1_024


@dataclass(frozen=True, slots=True)
class PagerDutyReceiver:
    """A service in PagerDuty; `routing_key` is its integration key. Raises ConfigurationError."""

    name: str
    routing_key: Secret
    endpoint: Endpoint = EVENTS
    voice: Voice = ENGLISH

    def __post_init__(self) -> None:
        faults = list(self.endpoint.faults())
        if not self.routing_key.reveal().strip():
            faults.append("routing_key: is missing")
        refuse(self.name, faults)

    def render(self, change: IncidentChange) -> bytes:
        """The event without its routing key."""
        return fitted(
            compose(change, self.voice),
            lambda notice: json_bytes(_event(change, notice)),
            lambda body: len(body) < EVENT_BYTES - 200,
        )

    def channel(self, resolver: Resolver = system_addresses, ssl_context: ssl.SSLContext | None = None) -> Channel:
        """A new way to it."""
        return PostingChannel(self, resolver, ssl_context)

    def request(self, delivery: Delivery, now_ms: int) -> Request:
        """The event with its routing key."""
        del now_ms
        event = {"routing_key": self.routing_key.reveal(), **json.loads(delivery.body)}
        return Request(self.endpoint.url, json_bytes(event))

    def judge(self, answer: Answer) -> Meaning:
        """What the status says: 202 where the event was taken, 429 above the service's rate."""
        return judge_status(answer)


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
