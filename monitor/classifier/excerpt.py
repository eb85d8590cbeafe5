"""A passage that is too long for the encoder to the parts worth reading: headline, lead, the sentences that name an entity."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Final

from monitor.classifier.text import CJK
from monitor.types import Mention, Passage

MAX_SPAN_CHARACTERS: Final = 400
"""A longer sentence is cut into pieces of this length; of one that names an entity, half as much on either side is looked at."""

_MENTIONS_AN_ENTITY: Final = 8
_CLOSING: Final = "\"'”’)\\]」』）】》"
# The look-behind lets a run of points be tried only once: a megabyte of them would take for ever.
_END: Final = re.compile(
    rf"(?<![.!?…])[.!?…]+[{_CLOSING}]*(?=\s(?![a-z]))|(?:[。！？；｡]|……)+[{_CLOSING}]*|[!?]+[{_CLOSING}]*(?=[{CJK}])|\n"
)
_ABBREVIATIONS: Final = (
    "Mr Mrs Ms Dr Prof Sr Jr St Rev Gen Gov Sen Rep Inc Corp Co Cos Ltd Plc Bros Dept Univ No Nos vs Jan Feb Mar Apr Jun Jul Aug "
    "Sep Sept Oct Nov Dec approx est cf Rs"
)
_LONGEST_ABBREVIATION: Final = 12
_ABBREVIATED: Final = re.compile(
    rf"(?:\b(?:{'|'.join(_ABBREVIATIONS.split())})|(?<![^\W_])[A-Z]|\b[A-Za-z](?:\.[A-Za-z])+)\.$", re.ASCII
)


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters of a passage, from `start` up to `end`."""

    start: int
    end: int


def sentences(text: str, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """The sentences between two places of a text, without the space around them.

    A sentence ends at a line feed, at 。！？； and ……, at ! ? before a Chinese or Japanese character, and at . ! ? … where white
    space follows and no small letter behind it; the closing quotation marks and brackets belong to it. It does not end after an
    initial, a usual abbreviation ("Inc.", "U.S.") or inside a number.
    """
    end = len(text) if end is None else end
    begin = start
    for found in _END.finditer(text, start, end):
        point = found.start()
        if text[point] == "." and _ABBREVIATED.search(text, max(begin, point - _LONGEST_ABBREVIATION), point + 1):
            continue
        yield from _stripped(text, begin, found.end())
        begin = found.end()
    yield from _stripped(text, begin, end)


def sentence_around(text: str, start: int, end: int) -> Span:
    """The sentence that holds the characters from `start` to `end`, within `MAX_SPAN_CHARACTERS` / 2 of them on either side.

    Where it goes on beyond, it is cut between words. If the characters lie in several sentences, all of them.
    """
    reach = MAX_SPAN_CHARACTERS // 2
    low, high = max(0, start - reach), min(len(text), end + reach)
    around = [span for span in sentences(text, low, high) if span.start < end and span.end > start]
    first, last = (around[0].start, around[-1].end) if around else (start, end)
    if first == low > 0:
        first = text.find(" ", low - 1, start) + 1 or low
    if last == high < len(text):
        gap = text.rfind(" ", end, high + 1)
        last = high if gap < 0 else gap
    return Span(first, last)


def parts(passage: Passage, characters: int) -> list[Span]:
    """Parts of a passage in the order of their worth to someone who cannot read all of it; no two overlap.

    First the headline and the first sentence behind it (of a passage in one piece: its first two sentences); then, in turn, a
    sentence that names each entity, in order of first mention, a second one for each, and so on; then what stands at the beginning.
    Those at the beginning have at most `characters` together, those that name entities about twice as many, however long the
    passage is.
    """
    text = passage.text
    chosen = list(islice(_pieces(text, characters), 1))
    if chosen:
        chosen += islice(_pieces(text, characters, max(text.find("\n") + 1, chosen[0].end)), 1)
    left = 2 * characters
    for mention in _in_turn(passage.mentions):
        if left <= 0:
            break
        if all(span.end <= mention.start or span.start >= mention.end for span in chosen):
            span = next(
                part for part in uncovered(sentence_around(text, mention.start, mention.end), chosen) if part.end > mention.start
            )
            left -= span.end - span.start
            chosen.append(span)
    for span in _pieces(text, characters):
        chosen += uncovered(span, chosen)
    return chosen


def _pieces(text: str, characters: int, start: int = 0) -> Iterator[Span]:
    """The sentences of the first `characters` from `start`, long ones in pieces, all cut between words where there are words."""
    end = min(len(text), start + characters)
    if end < len(text):
        gap = text.rfind(" ", start, end + 1)
        end = gap if gap > start else end
    for span in sentences(text, start, end):
        begin = span.start
        while span.end - begin > MAX_SPAN_CHARACTERS:
            gap = text.rfind(" ", begin, begin + MAX_SPAN_CHARACTERS)
            cut = gap if gap > begin else begin + MAX_SPAN_CHARACTERS
            yield Span(begin, cut)
            begin = cut
        yield Span(begin, span.end)


def _in_turn(mentions: Iterable[Mention]) -> Iterator[Mention]:
    """The first mention of each entity, the second of each, and so on."""
    by_entity: dict[str, list[Mention]] = {}
    for mention in mentions:
        own = by_entity.setdefault(mention.entity, [])
        if len(own) < _MENTIONS_AN_ENTITY:
            own.append(mention)
    for turn in range(_MENTIONS_AN_ENTITY):
        yield from (own[turn] for own in by_entity.values() if turn < len(own))


def uncovered(span: Span, chosen: Iterable[Span]) -> list[Span]:
    """The stretches of a span that lie in none of the chosen ones, which do not overlap, in order."""
    stretches, start = [], span.start
    for other in sorted(chosen):
        if other.start < span.end and other.end > start:
            if other.start > start:
                stretches.append(Span(start, other.start))
            start = other.end
    if start < span.end:
        stretches.append(Span(start, span.end))
    return stretches


def _stripped(text: str, start: int, end: int) -> Iterator[Span]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield Span(start, end)
