"""A text as it was written in, the text that the watch list searches and the encoder is trained on and asked about out."""

from __future__ import annotations

import html
import re
import unicodedata
from typing import Final

NORMALISATION: Final = 2
"""Numbers the rules of `normalise`: a checkpoint trained under other rules is refused."""

CJK: Final = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003134f"
"""Han and kana, for the brackets of a regular expression: a character is about half a word, and no space parts the words."""

_LINK = re.compile(r"(?:https?://|www\.|\bt\.co/)\S*", re.IGNORECASE)


def normalise(text: str) -> str:
    """`text` on one line: HTML entities resolved, links dropped, white space squeezed, in Unicode's composed form.

    Cashtags, case and punctuation stay. What UTF-8 cannot hold (half of a surrogate pair) becomes a question mark, because the
    tokenizer would refuse it. Not to be applied twice: "&amp;lt;" is the text "&lt;", and that is not "<".
    """
    writable = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(unicodedata.normalize("NFC", _LINK.sub(" ", html.unescape(writable))).split())


def join(headline: str, body: str) -> str:
    """The text of a `Passage`: both parts normalised, with a line feed between them where neither is empty."""
    return "\n".join(part for part in (normalise(headline), normalise(body)) if part)
