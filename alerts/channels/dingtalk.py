"""A notice to a markdown message of a DingTalk robot, signed where the robot asks for that.

Sources: https://open.dingtalk.com/document/orgapp/custom-robots-send-group-messages (20,000 bytes, 20 messages a minute),
https://open.dingtalk.com/document/orgapp/customize-robot-security-settings (signature).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, urlsplit

from alerts.channels.answers import Answer, Meaning, judge_code
from alerts.channels.markdown import inert, link
from alerts.channels.posting import Endpoint, Posted, Request
from alerts.notice import ENGLISH, Notice, Voice, rendered
from alerts.signature import Secret, dingtalk_signature
from alerts.types import Delivery, IncidentChange

MESSAGE_BYTES: Final = 20_000

_THROTTLING: Final = MappingProxyType({130_101: 600.0, 410_100: 600.0})
"""Above 20 messages a minute a robot is not heard for ten minutes."""


@dataclass(frozen=True, slots=True)
class DingTalkReceiver(Posted):
    """A group in DingTalk; `endpoint.url` is its robot's, `secret` None where the robot does not ask for a signature.

    Raises ConfigurationError.
    """

    name: str
    endpoint: Endpoint
    secret: Secret | None = None
    voice: Voice = ENGLISH

    def render(self, change: IncidentChange) -> bytes:
        """A markdown message that mentions nobody."""
        return rendered(change, self.voice, _message, MESSAGE_BYTES)

    def request(self, delivery: Delivery, now_ms: int) -> Request:
        """The message, with the signature of this millisecond in the URL."""
        if self.secret is None:
            return Request(self.endpoint.url, delivery.body)
        url = self.endpoint.url.reveal()
        signed = f"timestamp={now_ms}&sign={quote(dingtalk_signature(self.secret, now_ms), safe='')}"
        return Request(Secret(f"{url}{'&' if urlsplit(url).query else '?'}{signed}"), delivery.body)

    def judge(self, answer: Answer) -> Meaning:
        """What `errcode` in the body says."""
        return judge_code(answer, "errcode", _THROTTLING)


def _message(notice: Notice) -> dict[str, Any]:
    # A single line end is a space to DingTalk's markdown.
    lines = [f"### {inert(notice.title)}", inert(notice.why)]
    lines.append("\n".join(f"- **{fact.name}** {inert(fact.value)}" for fact in notice.facts))
    if notice.stories:
        lines.append(f"**{notice.words.leading_stories}**")
        stories = ((inert(story.headline), inert(notice.about(story))) for story in notice.stories)
        lines.append("\n".join(f"- {headline}" + (f" — {about}" if about else "") for headline, about in stories))
    if notice.link is not None:
        lines.append(link(notice.words.link, notice.link))
    lines.append(f"{notice.words.incident} {inert(notice.incident_id)}")
    content = {"title": inert(notice.title), "text": "\n\n".join(lines)}
    return {"msgtype": "markdown", "markdown": content, "at": {"atMobiles": [], "atUserIds": [], "isAtAll": False}}
