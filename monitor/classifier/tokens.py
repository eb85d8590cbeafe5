"""Passages to the token ids that the encoder reads, within its limit, with the tokens that name each entity."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, Final

from monitor.classifier.excerpt import Span, parts
from monitor.classifier.protocol import Prepared, Target
from monitor.errors import ModelError
from monitor.types import Mention, Passage

_CHARACTERS_A_TOKEN: Final = 16
"""A text with fewer characters a token of the limit than this is tokenised whole before anything is left out."""

_EXCERPT_CHARACTERS_A_TOKEN: Final = 8
"""So much of a longer text is looked at; English has about five characters a token, Chinese one or two."""

_LEAST_WINDOW: Final = 8
"""Tokens around the name of an entity, below which they say nothing about it."""


def load_tokenizer(folder: Path) -> Any:
    """The fast tokenizer of a base folder, without the cutting and padding it was published with. Raises ModelError."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more precise
        raise ModelError(f"{path} cannot be read as a tokenizer: {' '.join(str(error).split())[:200]}") from error
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def prepare(passages: Sequence[Passage], tokenizer: Any, max_tokens: int) -> list[Prepared]:
    """One prepared passage per passage, in order.

    What fits is tokenised as it is. Of a longer passage the headline, the lead and the sentences that name an entity are kept, in
    the order of the text (`excerpt`). A megabyte costs what a page costs.
    """
    limit = max_tokens * _CHARACTERS_A_TOKEN
    short = [place for place, passage in enumerate(passages) if len(passage.text) <= limit]
    rows: dict[int, Prepared] = {}
    for place, encoding in zip(short, tokenizer.encode_batch([passages[place].text for place in short]), strict=True):
        if len(encoding.ids) <= max_tokens:
            mentions = passages[place].mentions
            # The offsets are made when they are asked for, and most texts name nobody.
            rows[place] = Prepared(tuple(encoding.ids), targets(mentions, encoding.offsets) if mentions else ())
    long = [place for place in range(len(passages)) if place not in rows]
    rows.update(zip(long, _excerpts([passages[place] for place in long], tokenizer, max_tokens), strict=True))
    return [rows[place] for place in range(len(passages))]


def targets(mentions: Iterable[Mention], offsets: Sequence[tuple[int, int]]) -> tuple[Target, ...]:
    """The entities that tokens name, in order of first mention; a token names whom it shares a character with.

    `mentions` stand in the order of the text, and so do `offsets`, the characters (start, end) of each token; special tokens have
    none (start = end).
    """
    ends = list(accumulate((end for _, end in offsets), max))
    places: dict[str, set[int]] = {}
    for mention in mentions:
        first = bisect_right(ends, mention.start)
        if first == len(ends):
            break
        for place in range(first, len(ends)):
            start, end = offsets[place]
            if start >= mention.end:
                break
            if end > max(start, mention.start):
                places.setdefault(mention.entity, set()).add(place)
    return tuple(Target(entity, tuple(sorted(found))) for entity, found in places.items())


# --- long passages -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Parts:
    """The tokens of the parts of a passage, in the order of the text; `ranked` are the places of each part, by its worth."""

    token_ids: list[int]
    offsets: list[tuple[int, int]]
    ranked: list[range]


def _excerpts(passages: Sequence[Passage], tokenizer: Any, max_tokens: int) -> list[Prepared]:
    """Long passages, cut to what matters most."""
    if not passages:
        return []
    opening, closing = _frame(tokenizer)
    budget = max_tokens - len(opening) - len(closing)
    ranked = [parts(passage, max_tokens * _EXCERPT_CHARACTERS_A_TOKEN) for passage in passages]
    texts = [passage.text[span.start : span.end] for passage, spans in zip(passages, ranked, strict=True) for span in spans]
    encodings = iter(tokenizer.encode_batch(texts, add_special_tokens=False))
    rows = []
    for passage, spans in zip(passages, ranked, strict=True):
        found = _laid_out({span: next(encodings) for span in spans})
        kept = sorted(_kept(found, targets(passage.mentions, found.offsets), budget))
        offsets = [(0, 0)] * len(opening) + [found.offsets[place] for place in kept]
        ids = (*opening, *(found.token_ids[place] for place in kept), *closing)
        rows.append(Prepared(ids, targets(passage.mentions, offsets), truncated=True))
    return rows


def _frame(tokenizer: Any) -> tuple[list[int], list[int]]:
    """The special tokens before a text and behind it."""
    encoding = tokenizer.encode("a")
    first, last = encoding.special_tokens_mask.index(0), len(encoding.ids) - encoding.special_tokens_mask[::-1].index(0)
    return encoding.ids[:first], encoding.ids[last:]


def _laid_out(encodings: dict[Span, Any]) -> _Parts:
    in_order = sorted(encodings)
    ends = accumulate((len(encodings[span].ids) for span in in_order), initial=0)
    ranges = {span: range(start, end) for span, (start, end) in zip(in_order, pairwise(ends), strict=True)}
    return _Parts(
        token_ids=list(chain.from_iterable(encodings[span].ids for span in in_order)),
        offsets=[(span.start + start, span.start + end) for span in in_order for start, end in encodings[span].offsets],
        ranked=[ranges[span] for span in encodings],
    )


def _kept(found: _Parts, named: Sequence[Target], budget: int) -> set[int]:
    """The places of the tokens that are kept, at most `budget`.

    The headline may take half of the budget and the lead a quarter. What is left is shared out evenly among the entities that are
    not named yet, for the tokens around a mention of each, as long as a share is worth reading. The rest goes to the parts in the
    order of their worth; where somebody is named, only to headline, lead and what names somebody: the rest would drown it.
    """
    kept: set[int] = set()

    def take(places: range, focus: int, most: int) -> None:
        free = sorted((place for place in places if place not in kept), key=lambda place: abs(place - focus))
        kept.update(free[: max(0, min(most, budget - len(kept)))])

    for places, most in zip(found.ranked, (budget // 2, budget // 4), strict=False):
        take(places, places.start, most)
    waiting = [target for target in named if kept.isdisjoint(target.places)]
    for number, target in enumerate(waiting):
        if kept.isdisjoint(target.places):
            share = max(_LEAST_WINDOW, (budget - len(kept)) // (len(waiting) - number))
            focus = target.places[0]
            take(next(places for places in found.ranked if focus in places), focus, share)
    telling = {place for target in named for place in target.places}
    for rank, places in enumerate(found.ranked):
        if rank < 2 or not telling or not telling.isdisjoint(places):
            take(places, places.start, budget)
    return kept
