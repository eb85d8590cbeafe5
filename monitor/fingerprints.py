"""The text of a document in, its fingerprint out: shingles that say how alike two texts are, and keys that find the alike ones."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rensa import RMinHash

from monitor.classifier.text import CJK

PERMUTATIONS: Final = 128
BANDS: Final = 32
"""32 bands of 4 rows: texts with a Jaccard similarity of 0.5 share a band with probability 0.87, with 0.2 in 5 of 100 cases."""

MOST_TOKENS: Final = 300
"""Only the beginning of a text is compared: what follows in a news text is background that many stories share."""

_SEED: Final = 20_261
_LONG_TOKENS: Final = 20
_CONTAINMENT_SHINGLES: Final = 8
_HEADLINE_CHARACTERS: Final = 1_000
_BODY_CHARACTERS: Final = 3_000
_WORD_CHARACTERS: Final = 64
_TAIL_CHARACTERS: Final = 100
_ITEM: Final = np.dtype("<u8")

# The two lowest bits of a shingle of a short text say what it is: a word that can contradict another (a number, a weekday, a
# direction), or the leading word. A shingle of a long text has neither.
_OPPOSED: Final = 1
_LEAD: Final = 2
_KIND: Final = _OPPOSED | _LEAD

Words = NDArray[np.uint64]

_CHARACTER: Final = re.compile(f"[{CJK}]")
_TOKEN: Final = re.compile(
    rf"[{CJK}]|\d+(?:\.\d+)*|(?:[^\W\d_{CJK}]\.)+[^\W\d_{CJK}]\b|[^\W\d_{CJK}](?:[^\W_{CJK}]+|[&'](?=[^\W_{CJK}]))*"
)
_ASCII_TOKEN: Final = re.compile(r"\d+(?:\.\d+)*|(?:[a-z]\.)+[a-z]\b|[a-z](?:[a-z0-9]+|[&'](?=[a-z0-9]))*")
_SILENT: Final = re.compile(r"<[^<>]{1,40}>|'s\b|,(?<=\d,)(?=\d{3})")
_DIGIT: Final = re.compile(r"\d")
_DASH: Final = r"[-\u2010-\u2015:\uff1a]"
_WIRE_WORDS: Final = (
    "update|wrapup|topwrap|rpt|repeat|refile|corrected|correction|clarified|clarification|exclusive|brief|breaking|urgent|flash|"
    "snap|alert|更新版?|更正|重发|快讯|转载|转发|转|独家|突发|重磅|最新消息|原标题|视频"
)
_PREFIXES: Final = re.compile(
    rf"(?:[\W_]{{0,3}}(?:{_WIRE_WORDS})(?:\s?\([^()]{{1,20}}\))?(?:\s?\d+)?\s?(?:{_DASH}+|[】》!|\])])\s?)+", re.IGNORECASE
)
_GENRE: Final = re.compile(rf"(?P<genre>[A-Z][A-Z /&.]{{2,30}}[A-Z])\s?{_DASH}+(?:\s(?=\S)|(?=[^\Wa-z]|[\"'<]))")
_NO_LETTERS: Final = re.compile(r"\W+")
_TAIL: Final = re.compile(r"\s[-\u2010-\u2015|]\s*(?P<name>[^-\u2010-\u2015|]{2,40})$")
_DATELINE: Final = re.compile(
    r"[^()\n]{0,60}\((?:reuters|ap|afp|dpa|efe|ani|pti|xinhua|bloomberg|dow jones|路透)\)\s*(?:[-\u2010-\u2015]+\s*)?"
)
_CREDITS: Final = re.compile(
    r"[(\u00a9](?:(?<=\()(?:(?:additional |further )?(?:reporting|writing|editing|compiled|translated) by\b|c\))"
    r"|(?<=\u00a9)\s?\d{4}\b)"
)
_CHINESE_AGENCIES: Final = (
    "新华社|新华网|中新社|中新网|人民网|央视新闻|财联社|路透社?|彭博社?|新浪财经|新浪网|东方财富网|财新网|第一财经|证券时报网?|证券日报|上海证券报|"
    "中国证券报|中国证券网|中国经济网|每日经济新闻|21世纪经济报道|澎湃新闻|界面新闻|新京报|腾讯财经|腾讯网|网易财经|搜狐财经|凤凰网?财经|和讯网|金融界|格隆汇|智通财经"
)
# What a Chinese medium sets before a text: "新华社北京5月4日电(记者 …)", "来源:… 2026-05-04 08:00 ".
_CHINESE_DATELINE: Final = re.compile(
    rf"(?:原标题\s?:\s?|(?:文章)?来源\s?:\s?\S{{1,20}}\s(?:\d{{4}}\S{{4,7}}\s(?:\d{{1,2}}:\d{{2}}\S{{0,3}}\s)?)?"
    rf"|(?:据?(?:{_CHINESE_AGENCIES})[^\s,。:!?()]{{0,12}}(?:\d日[电讯]|\d日消息|报道|[电讯])|本[报网]讯)(?:\s?\([^()]{{0,30}}\))?[\s,:|丨]*"
    r"|\(记者[^()]{0,30}\)[\s,:]*)+"
)
# What it sets behind a text. The same words near the beginning are a byline, and the text follows.
_CHINESE_CREDITS: Final = re.compile(
    r"\((?:编译|审校|记者|责任编辑|责编|编辑|完)|(?<=[。!?\s)\"”])\(?(?:(?:本文|内容)?转载自|转载请注明|(?:文章)?来源\s?:|责任编辑|责编|编辑\s?:|校对\s?:"
    r"|免责声明|版权声明|原文链接)"
)
_CHINESE_TAIL: Final = re.compile(
    rf"(?:_[^_\s]{{2,10}}|\s?[|\-\u2013\u2014]{{1,2}}\s?(?:{_CHINESE_AGENCIES})"
    r"|\s?[(\[【](?:转载?|组?图|多图|视频|更新|全文|附[^()]{1,8}|(?:转载自|来源|来自)[^()]{1,20})[)\]】])+$"
)
_AGENCIES: Final = frozenset(
    """reuters|thomson reuters|bloomberg|bloomberg.com|ap|ap news|associated press|the associated press|afp|dow jones|cnbc|wsj|ft
    |marketwatch|the wall street journal|financial times|bbc news|bbc|xinhua|yahoo finance|yahoo! finance|msn|seeking alpha
    |pr newswire|business wire|globenewswire|路透|新华社|新浪财经|东方财富网""".replace("\n    ", "").split("|")
)
_STOP_WORDS: Final = frozenset(
    re.findall(
        r"\w+",
        """a an and are as at be been but by for from had has have he her his in into is it its may of off on or over say says said
        she source sources report reports reported shares stock that the their they this to up was were which who will with would
        pct percent cent per after amid""",
    )
)
_DIRECTIONS: Final = {
    "rise": """rises rose rising risen gain gains gained jump jumps jumped climb climbs climbed surge surges surged soar soars
        soared rally rallies rallied up higher advance advances""",
    "fall": """falls fell falling fallen drop drops dropped slide slides slid slip slips slipped sink sinks sank plunge plunges
        plunged tumble tumbles tumbled dip dips dipped down lower decline declines""",
    "raise": "raises raised raising hike hikes hiked upgrade upgrades upgraded",
    "cut": "cuts cutting reduce reduces reduced downgrade downgrades downgraded",
    "涨": "上调 上涨 上升 攀升 走高 大涨 飙升 增长 增加 上扬 收涨 收高 走强 回升 大增",
    "跌": "下调 下跌 下降 走低 大跌 暴跌 下滑 减少 下挫 收跌 收低 走弱 回落 大减",
}
_ABBREVIATED: Final = {"million": "mln", "billion": "bln", "trillion": "trln tln", "year": "yr", "month": "mth", "street": "st"}
_WEEKDAYS: Final = {
    "monday": "周一",
    "tuesday": "周二",
    "wednesday": "周三",
    "thursday": "周四",
    "friday": "周五",
    "saturday": "周六",
    "sunday": "周日",
}
_ONE_WORD: Final = {word: one for one, words in (_DIRECTIONS | _ABBREVIATED | _WEEKDAYS).items() for word in words.split()}
_OPPOSABLE: Final = frozenset((*_WEEKDAYS, *_DIRECTIONS))


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of a text to recognise it again, as little-endian 64-bit numbers that mean the same in every process.

    `shingles` are distinct and rising. `keys` begins with the key of the exact text; the 32 band keys follow unless the text has
    no shingles at all.
    """

    shingles: bytes
    keys: bytes


@dataclass(frozen=True, slots=True)
class Likeness:
    """How alike two texts are, from 0 to 1.

    `containment` is the share of the shorter text's shingles that the longer one holds; 0 where the shorter one is too short to
    tell. `contradicts`: two headlines that each give a number, a weekday or a direction (up, down) that the other lacks, or that
    speak of two different things (neither mentions what the other begins with): one sentence used for two events.
    """

    jaccard: float
    containment: float
    contradicts: bool


def normalise(headline: str, body: str, source: str) -> str:
    """The text that is compared: NFKC, case folded, bounded, without wire prefixes, datelines, credits and the source's name.

    A genre in front ("PRESS DIGEST - ") moves behind the headline, so that the leading word is the subject. Full-width letters,
    digits and signs are the ordinary ones; traditional and simplified characters stay different.
    """
    title = _composed(headline[:_HEADLINE_CHARACTERS])
    if prefixes := _PREFIXES.match(title):
        title = title[prefixes.end() :]
    if genre := _GENRE.match(title):
        title = f"{title[genre.end() :]} {genre['genre']}"
    title = _without_chinese_dress(_without_tail(title.casefold(), source))
    text = _composed(body[:_BODY_CHARACTERS]).casefold()
    if dateline := _DATELINE.match(text):
        text = text[dateline.end() :]
    if credit := _CREDITS.search(text):
        text = text[: credit.start()]
    text = _without_chinese_dress(text)
    return f"{title}\n{text}".strip()


def tokenise(text: str) -> list[str]:
    """The first 300 tokens of a normalised text: words, numbers without thousands separators, single Chinese characters."""
    tokens = (_ASCII_TOKEN if text.isascii() else _TOKEN).findall(_SILENT.sub("", text))[:MOST_TOKENS]
    return [token.replace(".", "") if "." in token and not token[0].isdigit() else token for token in tokens]


def fingerprints(texts: Sequence[str]) -> list[Fingerprint]:
    """One fingerprint per normalised text, in order; what else is in the sequence changes nothing."""
    tokens = [tokenise(text) for text in texts]
    shingles = [_shingles(row) for row in tokens]
    bands = _band_keys(shingles)
    result = []
    for text, row, own, band in zip(texts, tokens, shingles, bands, strict=True):
        exact = np.array([_hash(" ".join(row) if row else text)], dtype=np.uint64)
        keys = np.concatenate((exact, band)) if len(own) else exact
        result.append(Fingerprint(own.astype(_ITEM).tobytes(), keys.astype(_ITEM).tobytes()))
    return result


def numbers(packed: bytes) -> Words:
    """The numbers in `Fingerprint.shingles` or `Fingerprint.keys`. Raises ValueError if the bytes are not whole numbers."""
    return np.frombuffer(packed, dtype=_ITEM)


def likeness(one: bytes, other: bytes) -> Likeness:
    """How alike two texts are, from their shingles. Texts without shingles are alike to nothing."""
    first, second = set(numbers(one).tolist()), set(numbers(other).tolist())
    common = len(first & second)
    shorter = min(len(first), len(second))
    return Likeness(
        jaccard=common / (len(first) + len(second) - common) if common else 0.0,
        containment=common / shorter if shorter >= _CONTAINMENT_SHINGLES else 0.0,
        contradicts=_words_contradict(first, second) or _leads_contradict(first, second),
    )


def _words_contradict(first: set[int], second: set[int]) -> bool:
    return _has_opposable(first - second) and _has_opposable(second - first)


def _has_opposable(shingles: set[int]) -> bool:
    return any(shingle & _KIND == _OPPOSED for shingle in shingles)


def _leads_contradict(first: set[int], second: set[int]) -> bool:
    leads = [[shingle & ~_LEAD for shingle in shingles if shingle & _LEAD] for shingles in (first, second)]
    if not all(leads):
        return False
    return leads[0][0] not in second and leads[1][0] not in first


def _composed(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).replace("\u2019", "'").split())


def _without_tail(title: str, source: str) -> str:
    tail = _TAIL.search(title)
    if tail is None:
        return title
    name = tail["name"].strip()
    letters = _NO_LETTERS.sub("", name)
    from_source = len(letters) >= 3 and letters in _NO_LETTERS.sub("", _composed(source).casefold())
    return title[: tail.start()] if from_source or name in _AGENCIES else title


def _without_chinese_dress(text: str) -> str:
    """`text` without what Chinese media set around it; another text as it is."""
    if text.isascii() or _CHARACTER.search(text) is None:
        return text
    if tail := _CHINESE_TAIL.search(text, max(0, len(text) - _TAIL_CHARACTERS)):
        text = text[: tail.start()]
    if dateline := _CHINESE_DATELINE.match(text):
        text = text[dateline.end() :]
    if credit := _CHINESE_CREDITS.search(text, len(text) // 3):
        text = text[: credit.start()]
    return text


@lru_cache(maxsize=32_768)
def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _mix(words: Words) -> Words:
    """Every bit of the input in every bit of the output (the finalizer of splitmix64)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58_476D_1CE4_E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D0_49BB_1331_11EB)
    return words ^ (words >> np.uint64(31))


def _joined(words: Words, length: int) -> Words:
    """The hashes of all runs of `length` words, without the kind bits."""
    runs = words[: len(words) - length + 1].copy()
    for position in range(1, length):
        runs = _mix(runs) + words[position : len(words) - length + 1 + position]
    return _mix(runs) & ~np.uint64(_KIND)


def _shingles(tokens: Sequence[str]) -> Words:
    characters = sum(1 for token in tokens if not token.isascii() and _CHARACTER.match(token))
    weight = len(tokens) - characters / 2  # a Chinese word has two characters
    return _long_shingles(tokens) if weight >= _LONG_TOKENS else _short_shingles(tokens)


def _words(tokens: Sequence[str]) -> Words:
    return np.array([_hash(token[:_WORD_CHARACTERS]) for token in tokens], dtype=np.uint64)


def _long_shingles(tokens: Sequence[str]) -> Words:
    return np.unique(_joined(_words(tokens), 3))


def _short_shingles(tokens: Sequence[str]) -> Words:
    """Words, pairs of words, and the leading word once more: a headline has too few runs of three to compare.

    The leading word of a Chinese headline is taken to be its first two characters.
    """
    telling = [token for token in _plain(tokens) if token not in _STOP_WORDS] or list(tokens)
    if not telling:
        return np.empty(0, dtype=np.uint64)
    words = _words(telling) & ~np.uint64(_KIND)
    for position, token in enumerate(telling):
        if token in _OPPOSABLE or _DIGIT.search(token):
            words[position] |= np.uint64(_OPPOSED)
    pairs = _joined(words, 2)
    lead = pairs[:1] if _CHARACTER.match(telling[0]) else words[:1]
    return np.unique(np.concatenate((words, pairs, lead | np.uint64(_LEAD))))


def _plain(tokens: Sequence[str]) -> list[str]:
    """The tokens with one word for every way to go up, one for every way to go down, and abbreviations written out."""
    plain: list[str] = []
    for token in tokens:
        if plain and (one := _ONE_WORD.get(plain[-1] + token)):
            plain[-1] = one
        else:
            plain.append(_ONE_WORD.get(token, token))
    return plain


def _band_keys(shingles: Sequence[Words]) -> NDArray[np.uint64]:
    """One row of 32 keys per text: equal keys in any place mean that the texts may be alike."""
    offsets = np.concatenate(([0], np.cumsum([len(own) for own in shingles]))).astype(np.uint64)
    flat = np.concatenate([*shingles, np.empty(0, dtype=np.uint64)])
    digests = RMinHash.digest_matrix_from_flat_token_hashes(flat, offsets, PERMUTATIONS, _SEED).to_rows()
    rows = np.array(digests, dtype=np.uint64).reshape(len(shingles), BANDS, PERMUTATIONS // BANDS)
    keys = np.broadcast_to(np.arange(1, BANDS + 1, dtype=np.uint64), (len(shingles), BANDS))
    for row in range(PERMUTATIONS // BANDS):
        keys = _mix(keys + rows[:, :, row])
    return keys
