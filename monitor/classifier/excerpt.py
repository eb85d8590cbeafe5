"""A passage that is too long for the encoder to the parts that decide what it says: headline, lead, what names an entity."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from monitor.types import Passage

_END: Final = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s)|[。！？；…]+[”’」』）]*|\n")
_ABBREVIATION: Final = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|Sr|Jr|St|Inc|Corp|Co|Ltd|Plc|Bros|No|vs|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec|approx|est)"
    r"|\b[A-Z]|\b[A-Za-z](?:\.[A-Za-z])+)\.$"
)
MAX_SENTENCE_CHARACTERS: Final = 400
"""Of a longer sentence that names an entity, so much around the name is kept."""

MAX_SENTENCES: Final = 32
"""So many sentences from the beginning, and so many that name an entity, are looked at."""


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """Characters of a passage, from `start` up to `end`."""

    start: int
    end: int


def sentences(text: str, start: int = 0) -> Iterator[Span]:
    """The sentences of a text from `start` on, without the space around them.

    A sentence ends at a line feed, at 。！？； and, where white space follows, at . ! ? with the quotation marks behind
    it; not after an initial or a usual abbreviation, nor inside a number.
    """
    begin = start
    for found in _END.finditer(text, start):
        if text[found.start()] == "." and _ABBREVIATION.search(text, max(begin, found.start() - 12), found.start() + 1):
            continue
        yield from _stripped(text, begin, found.end())
        begin = found.end()
    yield from _stripped(text, begin, len(text))


def _stripped(text: str, start: int, end: int) -> Iterator[Span]:
    while start < end and text[start].isspace():
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    if start < end:
        yield Span(start, end)


def candidates(passage: Passage) -> Iterator[Span]:
    """The parts of a passage in the order of their worth to someone who cannot read all of it; they may overlap.

    First come the headline and the first sentence of the body; then, in turn, the first sentence that names each entity, the
    second, and so on; then the sentences from the beginning. A part has at most about `MAX_SENTENCE_CHARACTERS`.
    """
    openings: list[Span] = []
    for span in sentences(passage.text):
        openings.append(Span(span.start, min(span.end, span.start + MAX_SENTENCE_CHARACTERS)))
        if len(openings) == MAX_SENTENCES:
            break
    yield from openings[:2]
    yield from _naming(passage)
    yield from openings[2:]


def uncovered(span: Span, chosen: Iterable[Span]) -> Span:
    """What of a span none of the chosen ones holds: its first such stretch; empty (start = end) when there is none."""
    start, end = span.start, span.end
    for other in sorted(chosen):
        if other.start <= start < other.end:
            start = min(other.end, end)
        elif start < other.start < end:
            end = other.start
    return Span(start, end)


def _naming(passage: Passage) -> Iterator[Span]:
    """The sentences that name entities: for each entity its first, then for each its second, and so on."""
    by_entity: dict[str, list[Span]] = {}
    for mention in passage.mentions[: 8 * MAX_SENTENCES]:
        spans = by_entity.setdefault(mention.entity, [])
        span = sentence_around(passage.text, mention.start, mention.end)
        if span not in spans:
            spans.append(span)
    given = 0
    for turn in range(max(map(len, by_entity.values()), default=0)):
        for spans in by_entity.values():
            if turn < len(spans) and given < MAX_SENTENCES:
                given += 1
                yield spans[turn]


def sentence_around(text: str, start: int, end: int) -> Span:
    """The sentence that the characters from `start` to `end` stand in, no further than `MAX_SENTENCE_CHARACTERS` / 2 either way."""
    reach = MAX_SENTENCE_CHARACTERS // 2
    low, high = max(0, start - reach), min(len(text), end + reach)
    around = list(sentences(text[low:high]))
    first = next((span.start for span in around if span.end > start - low), start - low)
    last = next((span.end for span in around if span.end >= end - low), end - low)
    return Span(low + min(first, start - low), low + last)
