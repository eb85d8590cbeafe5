"""A notice to a message in Slack's Block Kit, posted to an incoming webhook.

Slack reads `&`, `<` and `>` as markup (links, mentions of people and channels) and nothing else that could reach out; these three
are escaped, and `verbatim` forbids it to find links and mentions by itself.

Sources: https://docs.slack.dev/messaging/formatting-message-text (escaping),
https://docs.slack.dev/reference/block-kit/blocks (limits), https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from alerts.channels.posting import Endpoint, Posted
from alerts.notice import ENGLISH, Alarm, Notice, StoryLine, Voice, rendered
from alerts.types import IncidentChange

MESSAGE_BYTES: Final = 12_000
"""Slack documents no limit of all blocks together, and refuses those above about 13,000."""

HEADER_LENGTH: Final = 150
FIELD_LENGTH: Final = 2_000
TEXT_LENGTH: Final = 3_000

_ENTITIES: Final = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
_SIGNS: Final = {
    Alarm.INFO: "\N{INFORMATION SOURCE}\N{VARIATION SELECTOR-16}",
    Alarm.WARNING: "\N{LARGE ORANGE CIRCLE}",
    Alarm.CRITICAL: "\N{LARGE RED CIRCLE}",
    Alarm.OVER: "\N{LARGE GREEN CIRCLE}",
}


@dataclass(frozen=True, slots=True)
class SlackReceiver(Posted):
    """A Slack channel; `endpoint.url` is its incoming webhook. Raises ConfigurationError.

    Slack answers 410 where the channel is archived, and 429 with `Retry-After` above one message a second.
    """

    name: str
    endpoint: Endpoint
    voice: Voice = ENGLISH

    def render(self, change: IncidentChange) -> bytes:
        """Blocks, and a text for notifications."""
        return rendered(change, self.voice, _message, MESSAGE_BYTES)


def escaped(text: str, limit: int) -> str:
    """`text` with Slack's entities, at most `limit` characters long with them; an ellipsis marks the cut."""
    pieces = [_ENTITIES.get(character, character) for character in text]
    if sum(map(len, pieces)) <= limit:
        return "".join(pieces)
    length, kept = 1, []
    for piece in pieces:
        length += len(piece)
        if length > limit:
            break
        kept.append(piece)
    return "".join(kept) + "…"


def _message(notice: Notice) -> dict[str, Any]:
    title = f"{_SIGNS[notice.alarm]} {notice.title}"
    blocks: list[dict[str, Any]] = [
        {"type": "header", "text": {"type": "plain_text", "text": escaped(title, HEADER_LENGTH), "emoji": False}},
        {"type": "section", "text": _markdown(escaped(notice.why, TEXT_LENGTH))},
        {"type": "section", "fields": [_field(fact.name, fact.value) for fact in notice.facts]},
    ]
    if notice.stories:
        blocks += [{"type": "divider"}, {"type": "section", "text": _markdown(f"*{notice.words.leading_stories}*")}]
        blocks += [{"type": "section", "text": _markdown(_story(notice, story))} for story in notice.stories]
    footer = f"{notice.words.incident} {escaped(notice.incident_id, FIELD_LENGTH)}"
    if notice.link is not None:
        footer = f"<{_address(notice.link)}|{notice.words.link}> · {footer}"
    blocks.append({"type": "context", "elements": [_markdown(footer)]})
    return {"text": escaped(f"{title} — {notice.why}", TEXT_LENGTH), "blocks": blocks}


def _story(notice: Notice, story: StoryLine) -> str:
    about = notice.about(story)
    return escaped(f"• {story.headline}" + (f" — {about}" if about else ""), TEXT_LENGTH)


def _field(name: str, value: str) -> dict[str, Any]:
    return _markdown(f"*{name}*\n{escaped(value, FIELD_LENGTH - len(name) - 3)}")


def _markdown(text: str) -> dict[str, Any]:
    return {"type": "mrkdwn", "text": text, "verbatim": True}


def _address(link: str) -> str:
    """A URL between Slack's brackets, where a bar would end it."""
    return "".join(_ENTITIES.get(character, character) for character in link.replace("|", "%7C"))
