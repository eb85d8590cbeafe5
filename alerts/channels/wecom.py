"""A notice to a markdown message of a WeCom group robot.

Source: https://developer.work.weixin.qq.com/document/path/91770 (4,096 bytes of markdown, mentions as `<@id>`).
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from alerts.channels.answers import Answer, Meaning, judge_code
from alerts.channels.markdown import inert, link
from alerts.channels.posting import Endpoint, Posted
from alerts.notice import ENGLISH, Alarm, Notice, Voice, compose, fitted
from alerts.text import json_bytes
from alerts.types import IncidentChange

CONTENT_BYTES: Final = 4_096

_COLOURS: Final = {Alarm.INFO: "comment", Alarm.WARNING: "warning", Alarm.CRITICAL: "warning", Alarm.OVER: "info"}
_THROTTLING: Final = MappingProxyType({45_009: 60.0})


@dataclass(frozen=True, slots=True)
class WeComReceiver(Posted):
    """A group in WeCom; `endpoint.url` is its robot's. Raises ConfigurationError."""

    name: str
    endpoint: Endpoint
    voice: Voice = ENGLISH

    def render(self, change: IncidentChange) -> bytes:
        """A markdown message."""
        content = fitted(compose(change, self.voice), _content, lambda text: len(text.encode()) <= CONTENT_BYTES)
        return json_bytes({"msgtype": "markdown", "markdown": {"content": content}})

    def judge(self, answer: Answer) -> Meaning:
        """What `errcode` in the body says."""
        return judge_code(answer, "errcode", _THROTTLING)


def _content(notice: Notice) -> str:
    lines = [f'### <font color="{_COLOURS[notice.alarm]}">{inert(notice.title)}</font>', inert(notice.why)]
    lines += [f"> {fact.name}: {inert(fact.value)}" for fact in notice.facts]
    if notice.stories:
        lines.append(f"**{notice.words.leading_stories}**")
    for number, story in enumerate(notice.stories, start=1):
        about = inert(notice.about(story))
        lines.append(f"{number}. {inert(story.headline)}" + (f' <font color="comment">{about}</font>' if about else ""))
    if notice.link is not None:
        lines.append(link(notice.words.link, notice.link))
    lines.append(f'<font color="comment">{notice.words.incident} {inert(notice.incident_id)}</font>')
    return "\n".join(lines)
