"""Text from anywhere to text that a chat's markdown shows as it is: no markup, no mention, no link, no image.

DingTalk and WeCom know no escape, so that what would be markup is replaced by its full-width twin, which every reader can read.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

_TWINS: Final = str.maketrans(
    {
        "<": "＜", ">": "＞", "[": "［", "]": "］", "(": "（", ")": "）", "*": "＊", "_": "＿",
        "`": "｀", "~": "～", "#": "＃", "|": "｜", "\\": "＼", "@": "＠", "!": "！", "&": "＆",
    }
)  # fmt: skip


def link(words: str, url: str) -> str:
    """A link in markdown, whose address holds nothing that would end it."""
    return f"[{words}]({quote(url, safe='/%:?=&#+,;@~$!*')})"


def inert(text: str) -> str:
    """`text` with full-width twins for everything that markdown, mentions and links are made of."""
    return text.translate(_TWINS).replace("://", "：//")
