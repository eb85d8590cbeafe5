"""A language to the words and sentences of messages: the one catalogue of what is said about incidents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from alerts.types import ResolveReason, Severity
from monitor.types import Tone


class Language(StrEnum):
    """What a receiver reads, by its ISO 639 code."""

    ENGLISH = "en"
    CHINESE = "zh"


@dataclass(frozen=True, slots=True)
class Phrases:
    """The words of one language. Sentences are formats: the names in braces are filled in."""

    title: str
    resolved: str
    severities: Mapping[Severity, str]
    tones: Mapping[Tone, str]
    reasons: Mapping[ResolveReason, str]
    all_news: str
    opening: str
    """What happened, where no sentence was written: `display`, `negative`, `stories`, `share`, `window`."""
    silence: str
    """As `opening`, of a window without stories: `display`, `window`."""
    unread: str
    """As `opening`, where no window was read: `display`, `rule`."""
    ending: str
    """How it ended: `display`, `reason`, `duration`."""
    hours: str
    minutes: str
    rule: str
    severity: str
    window: str
    window_until: str
    stories: str
    copies: str
    negative_share: str
    mean_score: str
    opened_at: str
    resolved_at: str
    counted: str
    """A number with its parts: `number`, `parts`."""
    separator: str
    leading_stories: str
    more_copies: str
    link: str
    incident: str
    fonts: str = field(default="Arial, sans-serif")


_ENGLISH: Final = Phrases(
    title="{state}: {display}",
    resolved="Resolved",
    severities={Severity.INFO: "Info", Severity.WARNING: "Warning", Severity.CRITICAL: "Critical"},
    tones={"negative": "negative", "neutral": "neutral", "positive": "positive", "uncertain": "uncertain"},
    reasons={
        ResolveReason.CLEARED: "the condition no longer holds",
        ResolveReason.RULE_REMOVED: "the rule, or the name in it, is no longer watched",
    },
    all_news="All news",
    opening="{display}: {negative} of {stories} stories negative ({share}) over {window}",
    silence="{display}: no stories over {window}",
    unread="{display}: {rule}",
    ending="{display}: over after {duration}; {reason}",
    hours="{number} h",
    minutes="{number} min",
    rule="Rule",
    severity="Severity",
    window="Window",
    window_until="{window}, until {until}",
    stories="Stories",
    copies="Further copies",
    negative_share="Negative share",
    mean_score="Mean score (-1 to 1)",
    opened_at="Opened",
    resolved_at="Resolved",
    counted="{number} ({parts})",
    separator=", ",
    leading_stories="Leading stories",
    more_copies="{copies} more copies",
    link="Open the incident",
    incident="Incident",
)

_CHINESE: Final = Phrases(
    title="{state}：{display}",
    resolved="已解除",
    severities={Severity.INFO: "提示", Severity.WARNING: "警告", Severity.CRITICAL: "严重"},
    tones={"negative": "负面", "neutral": "中性", "positive": "正面", "uncertain": "不确定"},
    reasons={
        ResolveReason.CLEARED: "触发条件已不再成立",
        ResolveReason.RULE_REMOVED: "该规则或其监测对象已不再监测",
    },
    all_news="全部新闻",
    opening="{display}：{window}内 {stories} 篇报道中有 {negative} 篇为负面（{share}）",
    silence="{display}：{window}内没有报道",
    unread="{display}：{rule}",
    ending="{display}：持续 {duration}后解除，{reason}",
    hours="{number} 小时",
    minutes="{number} 分钟",
    rule="规则",
    severity="级别",
    window="统计窗口",
    window_until="{window}，截至 {until}",
    stories="报道数",
    copies="转载数",
    negative_share="负面占比",
    mean_score="平均情绪分（-1 至 1）",
    opened_at="触发时间",
    resolved_at="解除时间",
    counted="{number}（{parts}）",
    separator="，",
    leading_stories="主要报道",
    more_copies="另有 {copies} 篇转载",
    link="查看事件",
    incident="事件编号",
    fonts="'PingFang SC', 'Microsoft YaHei', sans-serif",
)

_PHRASES: Final[Mapping[Language, Phrases]] = {Language.ENGLISH: _ENGLISH, Language.CHINESE: _CHINESE}


def phrases(language: Language) -> Phrases:
    """What is said in `language`."""
    return _PHRASES[language]
