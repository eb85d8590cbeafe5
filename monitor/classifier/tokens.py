"""Passages to the token ids that the encoder reads, within its limit, with the tokens that name each entity."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from monitor.classifier.excerpt import Span, candidates, uncovered
from monitor.classifier.protocol import Prepared, Target
from monitor.errors import ModelError
from monitor.types import Mention, Passage

_CHARACTERS_A_TOKEN: Final = 16
"""A text with fewer characters a token of the limit than this is tokenised whole before anything is left out."""


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

    What does not fit is not cut blindly: of a long passage the headline, the lead and the sentences that name an entity are kept
    (`excerpt`). A megabyte costs what a page costs.
    """
    limit = max_tokens * _CHARACTERS_A_TOKEN
    encoded = iter(tokenizer.encode_batch([passage.text for passage in passages if len(passage.text) <= limit]))
    rows = []
    for passage in passages:
        encoding = next(encoded) if len(passage.text) <= limit else None
        if encoding is not None and len(encoding.ids) <= max_tokens:
            rows.append(Prepared(tuple(encoding.ids), _targets(passage.mentions, encoding.offsets)))
        else:
            rows.append(_excerpted(passage, tokenizer, max_tokens))
    return rows


def _excerpted(passage: Passage, tokenizer: Any, max_tokens: int) -> Prepared:
    """The best parts of a passage that is too long, in the order of the text, between the special tokens of a text."""
    frame = tokenizer.encode("").ids
    opening, closing = frame[: len(frame) // 2], frame[len(frame) // 2 :]
    left = max_tokens - len(frame)
    chosen: dict[Span, Any] = {}
    for candidate in candidates(passage):
        span = uncovered(candidate, chosen)
        if left <= 0:
            break
        if span.start < span.end:
            encoding = tokenizer.encode(passage.text[span.start : span.end], add_special_tokens=False)
            encoding.truncate(left)
            left -= len(encoding.ids)
            chosen[span] = encoding
    ids, offsets = list(opening), [(0, 0)] * len(opening)
    for span, encoding in sorted(chosen.items()):
        ids += encoding.ids
        offsets += [(start + span.start, end + span.start) for start, end in encoding.offsets]
    return Prepared((*ids, *closing), _targets(passage.mentions, offsets), truncated=True)


def _targets(mentions: Iterable[Mention], offsets: Sequence[tuple[int, int]]) -> tuple[Target, ...]:
    """The entities that the tokens name, in order of first mention; a token names whom it shares a character with."""
    places: dict[str, list[int]] = {}
    for mention in mentions:
        found = [place for place, (start, end) in enumerate(offsets) if start < mention.end and end > mention.start and end > start]
        if found:
            places.setdefault(mention.entity, []).extend(found)
    return tuple(Target(entity, tuple(sorted(set(found)))) for entity, found in places.items())
