"""A notice to a markdown message of a WeCom group robot.

Source: https://developer.work.weixin.qq.com/document/path/91770 (4,096 bytes of markdown, mentions as `<@id>`).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from alerts.channels.answers import Answer, Meaning, judge_code
from alerts.channels.markdown import inert
from alerts.channels.posting import Endpoint, PostingChannel, Request, refuse
from alerts.channels.protocol import Channel
from alerts.network import Resolver, system_addresses
from alerts.notice import ENGLISH, Alarm, Notice, Voice, compose, fitted
from alerts.text import json_bytes
from alerts.types import Delivery, IncidentChange

CONTENT_BYTES: Final = 4_096

_COLOURS: Final = {Alarm.INFO: "comment", Alarm.WARNING: "warning", Alarm.CRITICAL: "warning", Alarm.OVER: "info"}
_THROTTLING: Final = MappingProxyType({45_009: 60.0})


@dataclass(frozen=True, slots=True)
class WeComReceiver:
    """A group in WeCom; `endpoint.url` is its robot's. Raises ConfigurationError."""

    name: str
    endpoint: Endpoint
    voice: Voice = ENGLISH

    def __post_init__(self) -> None:
        refuse(self.name, self.endpoint.faults())

    def render(self, change: IncidentChange) -> bytes:
        """A markdown message."""
        content = fitted(compose(change, self.voice), _content, lambda text: len(text.encode()) <= CONTENT_BYTES)
        return json_bytes({"msgtype": "markdown", "markdown": {"content": content}})

    def channel(self, resolver: Resolver = system_addresses, ssl_context: ssl.SSLContext | None = None) -> Channel:
        """A new way to it."""
        return PostingChannel(self, resolver, ssl_context)

    def request(self, delivery: Delivery, now_ms: int) -> Request:
        """The body as it is: the URL is the secret."""
        del now_ms
        return Request(self.endpoint.url, delivery.body)

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
        lines.append(f"[{notice.words.link}]({quote(notice.link, safe='/%:?=&#+,;@~$!*')})")
    lines.append(f'<font color="comment">{notice.words.incident} {inert(notice.incident_id)}</font>')
    return "\n".join(lines)
