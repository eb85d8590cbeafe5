"""Texts to the token ids that the encoder reads, cut to its limit, at a cost that the limit bounds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from monitor.classifier.protocol import Prepared
from monitor.classifier.text import normalise
from monitor.errors import ModelError

_CHARACTERS_A_TOKEN: Final = 16
_LONGEST_WORD_TOKENS: Final = 128


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


def cut(token_ids: tuple[int, ...], max_tokens: int) -> tuple[int, ...]:
    """At most `max_tokens` ids: the first ones and, as in an uncut text, the closing special token."""
    return token_ids if len(token_ids) <= max_tokens else (*token_ids[: max_tokens - 1], token_ids[-1])


def prepare(texts: Sequence[str], tokenizer: Any, max_tokens: int) -> list[Prepared]:
    """One prepared text per text, in order, normalised first.

    Only the beginning of a long text is tokenised, as long as it certainly decides all the tokens that are kept: a megabyte costs
    what a page costs.
    """
    clean = [normalise(text) for text in texts]
    limit = (max_tokens + _LONGEST_WORD_TOKENS) * _CHARACTERS_A_TOKEN
    encoded = tokenizer.encode_batch([text[:limit] for text in clean])
    rows = []
    for text, encoding in zip(clean, encoded, strict=True):
        ids = encoding.ids
        if len(text) > limit and len(ids) < max_tokens + _LONGEST_WORD_TOKENS:
            ids = tokenizer.encode(text).ids
        rows.append(Prepared(cut(tuple(ids), max_tokens), len(ids) > max_tokens))
    return rows
