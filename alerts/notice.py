"""A change of an incident and who reads about it to a notice: what a message says, before any channel's markup.

This is the one place where a message is composed. Everything in a notice is plain text on one line, and bounded; text from outside
may stand in every part of it, so a channel escapes every part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta, tzinfo
from enum import StrEnum
from typing import Final, TypeVar
from urllib.parse import quote

from alerts.catalogue import Language, Phrases, phrases
from alerts.messages import percent_text
from alerts.text import json_bytes, plain_text
from alerts.types import Incident, IncidentChange
from monitor.errors import DeliveryError
from monitor.types import MINUTE_MS, TONES, Metric, Reading

TITLE_LENGTH: Final = 120
WHY_LENGTH: Final = 300
VALUE_LENGTH: Final = 200
HEADLINE_LENGTH: Final = 200
SOURCES_LENGTH: Final = 120
MOST_STORIES: Final = 5
MOST_SOURCES: Final = 5
INCIDENT_MARK: Final = "{incident_id}"
"""Stands in a console's address for the incident's id."""

_SHORTER: Final = ((5, 200), (5, 120), (5, 80), (3, 80), (1, 80), (0, 0))
"""How stories are shortened until a message fits: so many of them, their headlines cut to so many characters."""

_SHORTEST_FACTS: Final = (80, 40)

Written = TypeVar("Written")


class Alarm(StrEnum):
    """How a message looks: as loud as the incident, or calm because it is over."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class Voice:
    """How a receiver is spoken to: in which language, with the clock of which place, and where it can read on.

    `console_url` is the address of a page about an incident; `{incident_id}` in it is filled in.
    """

    language: Language = Language.ENGLISH
    timezone: tzinfo = UTC
    console_url: str | None = None


ENGLISH: Final = Voice()
"""How a receiver is spoken to of which nothing is known."""


@dataclass(frozen=True, slots=True)
class StoryLine:
    """One story behind an incident: its headline, who published it, and how many more documents repeat it."""

    headline: str
    sources: tuple[str, ...] = ()
    copies: int = 0


@dataclass(frozen=True, slots=True)
class Fact:
    """One line of a table: what it is about, and what it says."""

    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Notice:
    """What a message says. `stories` may be empty; `link` is None where there is no console. `words` are the language's."""

    alarm: Alarm
    title: str
    why: str
    facts: tuple[Fact, ...]
    incident_id: str
    words: Phrases = field(repr=False)
    stories: tuple[StoryLine, ...] = ()
    link: str | None = None

    def about(self, story: StoryLine) -> str:
        """Who published a story and how often it was repeated; "" where neither is known."""
        parts = [self.words.separator.join(story.sources)] if story.sources else []
        if story.copies:
            parts.append(self.words.more_copies.format(copies=story.copies))
        return plain_text(self.words.separator.join(parts), SOURCES_LENGTH)


def compose(change: IncidentChange, voice: Voice, stories: Sequence[StoryLine] = ()) -> Notice:
    """What a receiver with this voice reads about `change`, with the leading `stories`, the most telling first."""
    incident, words = change.incident, phrases(voice.language)
    told = stories or _story_lines(incident)
    over = incident.resolved_at_ms is not None
    display = _display(incident, words)
    state = words.resolved if over else words.severities[incident.severity]
    return Notice(
        alarm=Alarm.OVER if over else Alarm(str(incident.severity)),
        title=plain_text(words.title.format(state=state, display=display), TITLE_LENGTH),
        why=plain_text(_ending(incident, words) if over else _opening(incident, voice.language), WHY_LENGTH),
        facts=tuple(_facts(change, voice)),
        incident_id=plain_text(incident.incident_id, VALUE_LENGTH),
        words=words,
        stories=tuple(_bounded(told)),
        link=None if voice.console_url is None else voice.console_url.replace(INCIDENT_MARK, quote(incident.incident_id, safe="")),
    )


def rendered(change: IncidentChange, voice: Voice, message: Callable[[Notice], object], most_bytes: int) -> bytes:
    """The JSON of what `message` makes of the notice about `change`, shortened until it has at most `most_bytes`.

    Raises DeliveryError when nothing makes it fit.
    """
    return fitted(compose(change, voice), lambda notice: json_bytes(message(notice)), lambda body: len(body) <= most_bytes)


def fitted(notice: Notice, write: Callable[[Notice], Written], fits: Callable[[Written], bool]) -> Written:
    """What `write` makes of the notice, with the stories shortened, and then the facts, until it `fits`.

    Raises DeliveryError when nothing makes it fit.
    """
    for shorter in _shorter(notice):
        written = write(shorter)
        if fits(written):
            return written
    raise DeliveryError(f"the message of incident {notice.incident_id} cannot be made small enough")


def _shorter(notice: Notice) -> Iterator[Notice]:
    yield notice
    for number, length in _SHORTER:
        kept = notice.stories[:number]
        yield replace(notice, stories=tuple(replace(story, headline=plain_text(story.headline, length)) for story in kept))
    for length in _SHORTEST_FACTS:
        facts = tuple(Fact(fact.name, plain_text(fact.value, length)) for fact in notice.facts)
        yield replace(
            notice, stories=(), facts=facts, why=plain_text(notice.why, 2 * length), title=plain_text(notice.title, length)
        )


def _story_lines(incident: Incident) -> list[StoryLine]:
    """The leading stories that an incident keeps as evidence."""
    kept = incident.evidence.get("stories", ())
    return [StoryLine(story["headline"], tuple(story["sources"]), story["copies"]) for story in kept]


def _bounded(stories: Sequence[StoryLine]) -> Iterator[StoryLine]:
    """The first stories that have a headline to show, with the sources that have a name."""
    for story in stories[:MOST_STORIES]:
        sources = (plain_text(source, SOURCES_LENGTH) for source in story.sources[:MOST_SOURCES])
        if headline := plain_text(story.headline, HEADLINE_LENGTH):
            yield StoryLine(headline, tuple(filter(None, sources)), story.copies)


def _display(incident: Incident, words: Phrases) -> str:
    if not incident.series.name:
        return words.all_news
    display = plain_text(incident.display, VALUE_LENGTH) or plain_text(incident.series.name, VALUE_LENGTH)
    return display or str(incident.series.kind)


def _opening(incident: Incident, language: Language) -> str:
    """What the rule says in the language (annotation `summary_zh`, `summary_en`), else in any (`summary`), else the numbers."""
    words = phrases(language)
    candidates = [incident.annotations.get(f"summary_{language}", ""), incident.annotations.get("summary", "")]
    if language is Language.ENGLISH:
        candidates.append(incident.summary)
    for candidate in candidates:
        if written := plain_text(candidate, WHY_LENGTH):
            return written
    display, reading = _display(incident, words), incident.reading
    if reading is None:
        return words.unread.format(display=display, rule=incident.rule)
    window, share = _duration(reading.until_ms - reading.from_ms, words), reading.value(Metric.NEGATIVE_SHARE)
    if share is None:
        return words.silence.format(display=display, window=window)
    negative, stories = reading.count.stories[TONES.index("negative")], reading.stories
    return words.opening.format(display=display, negative=negative, stories=stories, share=percent_text(share), window=window)


def _ending(incident: Incident, words: Phrases) -> str:
    ended_at_ms = incident.opened_at_ms if incident.resolved_at_ms is None else incident.resolved_at_ms
    reason = "" if incident.resolve_reason is None else words.reasons[incident.resolve_reason]
    duration = _duration(ended_at_ms - incident.opened_at_ms, words)
    return words.ending.format(display=_display(incident, words), duration=duration, reason=reason)


def _facts(change: IncidentChange, voice: Voice) -> Iterator[Fact]:
    incident, words = change.incident, phrases(voice.language)
    yield Fact(words.severity, words.severities[incident.severity])
    if rule := plain_text(incident.rule, VALUE_LENGTH):
        yield Fact(words.rule, rule)
    if change.reading is not None:
        yield from _numbers(change.reading, words, voice.timezone)
    yield Fact(words.opened_at, moment_text(incident.opened_at_ms, voice.timezone))
    if incident.resolved_at_ms is not None:
        yield Fact(words.resolved_at, moment_text(incident.resolved_at_ms, voice.timezone))


def _numbers(reading: Reading, words: Phrases, timezone: tzinfo) -> Iterator[Fact]:
    window = _duration(reading.until_ms - reading.from_ms, words)
    yield Fact(words.window, words.window_until.format(window=window, until=moment_text(reading.until_ms, timezone)))
    counts = zip(TONES, reading.count.stories, strict=True)
    parts = words.separator.join(f"{number} {words.tones[tone]}" for tone, number in counts if number)
    yield Fact(words.stories, words.counted.format(number=reading.stories, parts=parts) if parts else str(reading.stories))
    if reading.copies:
        yield Fact(words.copies, str(reading.copies))
    share, score = reading.value(Metric.NEGATIVE_SHARE), reading.value(Metric.MEAN_SCORE)
    if share is not None and score is not None:
        yield Fact(words.negative_share, percent_text(share))
        yield Fact(words.mean_score, f"{score:.2f}")


def _duration(duration_ms: int, words: Phrases) -> str:
    hours, minutes = divmod(duration_ms // MINUTE_MS, 60)
    if not hours:
        return words.minutes.format(number=minutes)
    spoken = words.hours.format(number=hours)
    return f"{spoken} {words.minutes.format(number=minutes)}" if minutes else spoken


def moment_text(time_ms: int, timezone: tzinfo) -> str:
    """A moment by the clock of a place, with that clock's distance from UTC: "2026-11-25 13:14 (UTC+08:00)"."""
    moment = datetime.fromtimestamp(time_ms // 1_000, tz=timezone)
    return f"{moment:%Y-%m-%d %H:%M} ({_offset(moment.utcoffset() or timedelta())})"


def _offset(offset: timedelta) -> str:
    minutes = round(offset.total_seconds() / 60)
    if not minutes:
        return "UTC"
    return f"UTC{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02d}:{abs(minutes) % 60:02d}"
