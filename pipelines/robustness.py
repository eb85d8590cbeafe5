"""Texts in, the same texts with something changed that must not change the answer, or that must, out."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Final, Literal

import yaml
from pydantic import Field

from monitor.config import Section
from monitor.types import Mention, Passage, Sentiment

PROBES: Final = Path(__file__).parent / "probes.yaml"

_PUNCTUATION: Final = re.compile(r"(?<!\d)[.,:]|[.,:](?!\d)|[;!?\"“”‘’'()\[\]…、。，：；！？（）《》]|(?<=\s)[-–—](?=\s)")
"""Not the points and commas within numbers, nor $, % and hyphens within words: those belong to what is said."""


@dataclass(frozen=True, slots=True, order=True)
class Edit:
    """Characters of a text, from `start` up to `end`, and what is put in their place."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Denial:
    """A sentence about a company, its sentiment, and the sentence that denies it; both name the company under the id "it"."""

    language: str
    says: Sentiment
    plain: Passage
    denied: Passage


class _Pair(Section):
    says: Literal["negative", "positive"]
    plain: Annotated[str, Field(pattern=r"\{name\}")]
    denied: Annotated[str, Field(pattern=r"\{name\}")]


class Probes(Section):
    """What probes.yaml says."""

    names: tuple[str, ...]
    negation: dict[str, tuple[_Pair, ...]]
    negation_names: dict[str, tuple[str, ...]]
    out_of_domain: tuple[str, ...]


@cache
def read_probes() -> Probes:
    """The sentences and names of probes.yaml."""
    return Probes.model_validate(yaml.safe_load(PROBES.read_text(encoding="utf-8")))


def edited(passage: Passage, edits: Sequence[Edit]) -> Passage:
    """The passage after edits that overlap neither each other nor the edge of a mention.

    Mentions stay on what they named; one that nothing is left of is gone.
    """
    parts, start = [], 0
    for edit in sorted(edits):
        parts += [passage.text[start : edit.start], edit.text]
        start = edit.end
    text = "".join([*parts, passage.text[start:]])

    def moved(place: int) -> int:
        return place + sum(len(edit.text) - (edit.end - edit.start) for edit in edits if edit.end <= place)

    mentions = (Mention(moved(one.start), moved(one.end), one.entity) for one in passage.mentions)
    return Passage(text, tuple(one for one in mentions if one.end > one.start))


def upper_case(passage: Passage) -> Passage:
    """All letters as capitals, but for those whose capital is several."""
    return Passage("".join(one if len(one.upper()) != 1 else one.upper() for one in passage.text), passage.mentions)


def lower_case(passage: Passage) -> Passage:
    """All letters as small ones, but for those whose small form is several."""
    return Passage("".join(one if len(one.lower()) != 1 else one.lower() for one in passage.text), passage.mentions)


def without_punctuation(passage: Passage) -> Passage:
    """Without the marks that part sentences and clauses; numbers, cashtags, per cent signs and hyphens stay."""
    return edited(passage, [Edit(*found.span(), "") for found in _PUNCTUATION.finditer(passage.text)])


def other_names(passage: Passage) -> Passage:
    """Each mentioned name, wherever the text has it as a word, replaced by an invented one; the text draws which.

    A passage whose mentions overlap is left as it is.
    """
    if any(one.end > other.start for one, other in pairwise(passage.mentions)):
        return passage
    names = read_probes().names
    lot = int.from_bytes(hashlib.sha256(passage.text.encode()).digest()[:4], "big")
    given = {one.entity: names[(lot + which) % len(names)] for which, one in enumerate(passage.mentions)}
    edits = [Edit(one.start, one.end, given[one.entity]) for one in passage.mentions]
    for one in passage.mentions:
        name = re.escape(passage.text[one.start : one.end])
        for found in re.finditer(rf"(?<!\w){name}(?!\w)", passage.text):
            start, end = found.span()
            if all(end <= edit.start or start >= edit.end for edit in edits):
                edits.append(Edit(start, end, given[one.entity]))
    return edited(passage, edits)


CHANGES: Final[dict[str, Callable[[Passage], Passage]]] = {
    "upper case": upper_case,
    "lower case": lower_case,
    "no punctuation": without_punctuation,
    "other names": other_names,
}
"""What must not change an answer, by name. Where a change leaves a text as it was, nothing is asked."""


def denials() -> Iterator[Denial]:
    """Every pair of sentences with every name of its language.

    A model that has understood the first gives the second another sentiment, whichever (the negation tests of CheckList, Ribeiro et
    al. 2020, arXiv:2005.04118).
    """
    probes = read_probes()
    for language, pairs in probes.negation.items():
        for name in probes.negation_names[language]:
            for pair in pairs:
                yield Denial(language, pair.says, _about(pair.plain, name), _about(pair.denied, name))


def _about(template: str, name: str) -> Passage:
    start = template.index("{name}")
    return Passage(template.replace("{name}", name), (Mention(start, start + len(name), "it"),))


def out_of_domain() -> list[Passage]:
    """The texts that a model of financial news was never meant to read."""
    return [Passage(text) for text in read_probes().out_of_domain]
