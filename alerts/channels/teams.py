"""A notice to an Adaptive Card, posted to a workflow of Microsoft Teams ("when a Teams webhook request is received").

Text stands in text runs of rich text blocks, which know no markdown; mentions would need `msteams.entities`, and there are none.

Sources: https://adaptivecards.io/explorer/RichTextBlock.html,
https://learn.microsoft.com/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using (28 kB a message).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from alerts.channels.posting import Endpoint, Posted
from alerts.notice import ENGLISH, Alarm, Notice, Voice, rendered
from alerts.types import IncidentChange

MESSAGE_BYTES: Final = 28_000

_COLOURS: Final = {Alarm.INFO: "Accent", Alarm.WARNING: "Warning", Alarm.CRITICAL: "Attention", Alarm.OVER: "Good"}


@dataclass(frozen=True, slots=True)
class TeamsReceiver(Posted):
    """A Teams channel or chat; `endpoint.url` is its workflow's, which answers 202. Raises ConfigurationError."""

    name: str
    endpoint: Endpoint
    voice: Voice = ENGLISH

    def render(self, change: IncidentChange) -> bytes:
        """A message that holds one card."""
        return rendered(change, self.voice, _message, MESSAGE_BYTES)


def _message(notice: Notice) -> dict[str, Any]:
    return {
        "type": "message",
        "attachments": [
            {"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": None, "content": _card(notice)},
        ],
    }


def _card(notice: Notice) -> dict[str, Any]:
    title = {"size": "Large", "weight": "Bolder", "color": _COLOURS[notice.alarm]}
    body = [_paragraph(_run(notice.title, **title)), _paragraph(_run(notice.why))]
    body += [_paragraph(_run(f"{fact.name}  ", weight="Bolder"), _run(fact.value), spacing="Small") for fact in notice.facts]
    if notice.stories:
        body.append(_paragraph(_run(notice.words.leading_stories, weight="Bolder"), separator=True))
    for story in notice.stories:
        about = notice.about(story)
        runs = [_run(f"• {story.headline}"), *([_run(f"  {about}", isSubtle=True)] if about else [])]
        body.append(_paragraph(*runs, spacing="Small"))
    body.append(_paragraph(_run(f"{notice.words.incident} {notice.incident_id}", isSubtle=True, size="Small")))
    card: dict[str, Any] = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "msteams": {"width": "Full"},
        "body": body,
    }
    if notice.link is not None:
        card["actions"] = [{"type": "Action.OpenUrl", "title": notice.words.link, "url": notice.link}]
    return card


def _paragraph(*runs: dict[str, Any], **style: object) -> dict[str, Any]:
    return {"type": "RichTextBlock", **style, "inlines": list(runs)}


def _run(text: str, **style: object) -> dict[str, Any]:
    # Cards replace {{DATE(...)}} and {{TIME(...)}}, in any text.
    return {"type": "TextRun", "text": re.sub(r"\{(?=\{)", "{ ", text), **style}
