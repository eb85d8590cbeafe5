"""What a message says: the same facts in English and in Chinese, by the clock of the reader, in one place composed."""

from dataclasses import fields, replace
from datetime import UTC
from zoneinfo import ZoneInfo

import pytest

from alerts.catalogue import Language, phrases
from alerts.notice import Alarm, StoryLine, Voice, compose, moment_text
from alerts.types import ResolveReason, Severity
from monitor.types import ALL_SERIES, TONES, Reading
from tests.alerts.building import HALDEN, a_change, a_count, minutes

CHINESE = Voice(Language.CHINESE, ZoneInfo("Asia/Shanghai"))


def facts(notice):
    return {fact.name: fact.value for fact in notice.facts}


def test_an_opening_in_english():
    notice = compose(a_change(), Voice())
    assert (notice.alarm, notice.title) == (Alarm.CRITICAL, "Critical: Halden Bank")
    assert notice.why == "Halden Bank: 61.9 % of 21 stories negative over 1 h (limit 50 %)"
    assert facts(notice) == {
        "Severity": "Critical",
        "Rule": "tone",
        "Window": "1 h, until 2026-11-25 05:14 (UTC)",
        "Stories": "21 (13 negative, 3 neutral, 4 positive, 1 uncertain)",
        "Further copies": "30",
        "Negative share": "61.9 %",
        "Mean score (-1 to 1)": "-0.21",
        "Opened": "2026-11-25 05:14 (UTC)",
    }
    assert (notice.stories, notice.link) == ((), None)


def test_an_opening_in_chinese_by_the_clock_of_shanghai():
    notice = compose(a_change(display="哈尔登银行"), CHINESE)
    assert notice.title == "严重：哈尔登银行"
    assert notice.why == "哈尔登银行：1 小时内 21 篇报道中有 13 篇为负面（61.9 %）"
    assert facts(notice) == {
        "级别": "严重",
        "规则": "tone",
        "统计窗口": "1 小时，截至 2026-11-25 13:14 (UTC+08:00)",
        "报道数": "21（13 负面，3 中性，4 正面，1 不确定）",
        "转载数": "30",
        "负面占比": "61.9 %",
        "平均情绪分（-1 至 1）": "-0.21",
        "触发时间": "2026-11-25 13:14 (UTC+08:00)",
    }


@pytest.mark.parametrize(
    ("voice", "title", "why", "fact"),
    [
        (
            Voice(),
            "Resolved: Halden Bank",
            "Halden Bank: over after 1 h 32 min; the condition no longer holds",
            "2026-11-25 06:46 (UTC)",
        ),
        (
            CHINESE,
            "已解除：Halden Bank",
            "Halden Bank：持续 1 小时 32 分钟后解除，触发条件已不再成立",
            "2026-11-25 14:46 (UTC+08:00)",
        ),
    ],
)
def test_an_end_says_after_how_long_and_why(voice, title, why, fact):
    notice = compose(a_change(resolved=True), voice)
    assert (notice.alarm, notice.title, notice.why) == (Alarm.OVER, title, why)
    assert facts(notice)[phrases(voice.language).resolved_at] == fact


@pytest.mark.parametrize("language", list(Language))
def test_every_word_of_a_language_is_there(language):
    words = phrases(language)
    assert words.severities.keys() == set(Severity)
    assert words.reasons.keys() == set(ResolveReason)
    assert words.tones.keys() == set(TONES)
    assert all(getattr(words, one.name) for one in fields(words))


def test_the_catalogues_differ_in_every_word_that_is_no_format():
    english, chinese = (phrases(language) for language in Language)
    same = {one.name for one in fields(english) if getattr(english, one.name) == getattr(chinese, one.name)}
    assert same == set()


@pytest.mark.parametrize(
    ("annotations", "english", "chinese"),
    [
        ({"summary": "ours"}, "ours", "ours"),
        ({"summary": "ours", "summary_zh": "我们的"}, "ours", "我们的"),
        ({"summary_en": "mine", "summary_zh": "我们的"}, "mine", "我们的"),
        ({"summary": " \u200b"}, "Halden Bank: 61.9 %", "Halden Bank：1 小时内"),
    ],
)
def test_what_a_rule_says_itself_comes_first_in_the_readers_language(annotations, english, chinese):
    change = a_change(annotations=annotations)
    assert compose(change, Voice()).why.startswith(english)
    assert compose(change, CHINESE).why.startswith(chinese)


def test_a_window_without_stories_and_no_window_have_a_sentence_too():
    empty = a_change(summary="", reading=Reading(HALDEN, 0, minutes(90), a_count()))
    assert compose(empty, Voice()).why == "Halden Bank: no stories over 1 h 30 min"
    assert compose(empty, CHINESE).why == "Halden Bank：1 小时 30 分钟内没有报道"
    unread = a_change(summary="", reading=None)
    assert compose(unread, Voice()).why == "Halden Bank: tone"


def test_all_news_is_called_so_in_each_language_and_nobody_is_nameless():
    assert compose(a_change(series=ALL_SERIES, display="All news"), CHINESE).title == "严重：全部新闻"
    assert compose(a_change(display="\u200b"), Voice()).title == "Critical: halden-bank"


def test_the_link_names_the_incident():
    voice = Voice(console_url="https://c.example/?id={incident_id}")
    assert compose(a_change(incident_id="a/b&c"), voice).link == "https://c.example/?id=a%2Fb%26c"


def test_stories_say_who_told_them_and_how_often():
    stories = [StoryLine("Halden halts\nwithdrawals", ("Reuters", " ", "FT"), 12), StoryLine(" ", ("x",)), StoryLine("Alone")]
    notice = compose(a_change(), Voice(), stories)
    assert [(story.headline, notice.about(story)) for story in notice.stories] == [
        ("Halden halts withdrawals", "Reuters, FT, 12 more copies"),
        ("Alone", ""),
    ]
    assert compose(a_change(), CHINESE, stories).words.more_copies.format(copies=12) == "另有 12 篇转载"


@pytest.mark.parametrize(
    ("zone", "expected"),
    [
        (UTC, "2026-11-25 05:14 (UTC)"),
        (ZoneInfo("Asia/Shanghai"), "2026-11-25 13:14 (UTC+08:00)"),
        (ZoneInfo("America/New_York"), "2026-11-25 00:14 (UTC-05:00)"),
        (ZoneInfo("Asia/Kolkata"), "2026-11-25 10:44 (UTC+05:30)"),
        (ZoneInfo("America/St_Johns"), "2026-11-25 01:44 (UTC-03:30)"),
    ],
)
def test_a_moment_is_told_by_the_clock_of_a_place_and_says_by_which(zone, expected):
    assert moment_text(1_795_583_640_000, zone) == expected


def test_the_same_change_gives_the_same_notice():
    assert compose(a_change(), CHINESE) == compose(replace(a_change()), CHINESE)
