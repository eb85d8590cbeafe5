"""A notice to an interactive card of a Feishu or Lark bot, signed where the bot asks for that.

All text stands in `plain_text` elements, which know neither markdown nor mentions.

Sources: https://open.feishu.cn/document/client-docs/bot-v3/add-custom-bot (20 kB a message, signature, codes),
https://open.feishu.cn/document/common-capabilities/message-card/message-cards-content/card-structure.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from alerts.channels.answers import Answer, Meaning, judge_code
from alerts.channels.posting import Endpoint, Posted, Request
from alerts.notice import ENGLISH, Alarm, Notice, Voice, rendered
from alerts.signature import Secret, feishu_signature
from alerts.text import json_bytes
from alerts.types import Delivery, IncidentChange

MESSAGE_BYTES: Final = 19_800
"""Feishu takes 20 kB; the signature is added when a message is sent."""

_COLOURS: Final = {Alarm.INFO: "blue", Alarm.WARNING: "orange", Alarm.CRITICAL: "red", Alarm.OVER: "green"}
_THROTTLING: Final = MappingProxyType({11232: 60.0})
"""A bot may send 100 messages a minute and five a second."""


@dataclass(frozen=True, slots=True)
class FeishuReceiver(Posted):
    """A group in Feishu or Lark; `endpoint.url` is its bot's, `secret` None where the bot does not ask for a signature.

    Raises ConfigurationError.
    """

    name: str
    endpoint: Endpoint
    secret: Secret | None = None
    voice: Voice = ENGLISH

    def render(self, change: IncidentChange) -> bytes:
        """A card."""
        return rendered(change, self.voice, _message, MESSAGE_BYTES)

    def request(self, delivery: Delivery, now_ms: int) -> Request:
        """The card, with the signature of this second in the body."""
        if self.secret is None:
            return Request(self.endpoint.url, delivery.body)
        timestamp_s = now_ms // 1_000
        signed = {"timestamp": str(timestamp_s), "sign": feishu_signature(self.secret, timestamp_s), **json.loads(delivery.body)}
        return Request(self.endpoint.url, json_bytes(signed))

    def judge(self, answer: Answer) -> Meaning:
        """What `code` in the body says."""
        return judge_code(answer, "code", _THROTTLING)


def _message(notice: Notice) -> dict[str, Any]:
    elements: list[dict[str, Any]] = [
        {"tag": "div", "text": _plain(notice.why)},
        {"tag": "div", "fields": [{"is_short": True, "text": _plain(f"{fact.name}\n{fact.value}")} for fact in notice.facts]},
    ]
    if notice.stories:
        elements += [{"tag": "hr"}, {"tag": "div", "text": _plain(notice.words.leading_stories)}]
    for story in notice.stories:
        about = notice.about(story)
        elements.append({"tag": "div", "text": _plain(f"• {story.headline}" + (f"\n   {about}" if about else ""))})
    if notice.link is not None:
        button = {"tag": "button", "text": _plain(notice.words.link), "type": "default", "url": notice.link}
        elements.append({"tag": "action", "actions": [button]})
    elements.append({"tag": "note", "elements": [_plain(f"{notice.words.incident} {notice.incident_id}")]})
    header = {"title": _plain(notice.title), "template": _COLOURS[notice.alarm]}
    return {"msg_type": "interactive", "card": {"config": {"wide_screen_mode": True}, "header": header, "elements": elements}}


def _plain(text: str) -> dict[str, str]:
    return {"tag": "plain_text", "content": text}
