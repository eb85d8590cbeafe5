"""A text as it was written in, the text that the encoder is trained on and asked about out."""

from __future__ import annotations

import html
import re
from typing import Final

NORMALISATION: Final = 1
"""Numbers the rules of `normalise`: a checkpoint trained under other rules is refused."""

_LINK = re.compile(r"(?:https?://|www\.|\bt\.co/)\S*", re.IGNORECASE)


def normalise(text: str) -> str:
    """`text` with HTML entities resolved, links dropped and white space squeezed; cashtags, case and punctuation stay.

    What UTF-8 cannot hold (half of a surrogate pair) becomes a question mark, because the tokenizer would refuse it.
    """
    writable = text.encode("utf-8", "replace").decode("utf-8")
    return " ".join(_LINK.sub(" ", html.unescape(writable)).split())
