"""Examples in, as many examples out that say the same in other words.

Labels stay. The places of the entities move with their names. What is drawn is decided by the random source that is passed in.
"""

from __future__ import annotations

import random
import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Final, Protocol

import yaml

from monitor.classifier.text import normalise
from monitor.errors import PipelineError
from pipelines.corpus import Example, Toward
from pipelines.recipe import Recipe

LEXICON_FILE: Final = Path(__file__).parent / "lexicon.yaml"

_CHINESE: Final = re.compile(r"[\u3400-\u9fff]")

_NUMBER: Final = re.compile(
    r"(?<![\w.,:/\-])(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?=(?:bn|mn|tn|k|m|b)?(?![\w:/\-]|[.,]\d))", re.IGNORECASE
)
"""A number that counts something: no part of a name, a date, a time or a range; a unit may follow at once."""

_YEAR: Final = re.compile(r"(?:19|20)\d\d")

_LEAST_FACTOR, _MOST_FACTOR = 0.8, 1.25


class Paraphraser(Protocol):
    """Says texts in other words, for example by translating them there and back. Name yours in the recipe as `paraphraser`."""

    def paraphrase(self, texts: Sequence[str]) -> Sequence[str]:
        """One text per text, in order, in the same language and of the same meaning; the text itself where there is no other."""


@dataclass(frozen=True, slots=True)
class Edit:
    """The characters of a text from `start` up to `end` become `text`."""

    start: int
    end: int
    text: str


def augment(examples: Sequence[Example], recipe: Recipe, order: random.Random) -> list[Example]:
    """The examples in their order, each changed as the recipe asks: said anew, names, numbers and words of the
    lexicon replaced, put beside another.

    Raises PipelineError when the paraphraser cannot be had, or gives another number of texts than it was given.
    """
    changed = list(examples)
    if recipe.paraphrases and recipe.paraphraser is not None:
        changed = paraphrased(changed, recipe.paraphrases, find_paraphraser(recipe.paraphraser), order)
    if recipe.entity_swaps:
        names = names_of(examples)
        changed = [with_swapped_entities(example, recipe.entity_swaps, names, order) for example in changed]
    if recipe.number_changes:
        changed = [with_other_numbers(example, recipe.number_changes, order) for example in changed]
    if recipe.synonyms:
        lexicon = read_lexicon()
        changed = [with_synonyms(example, recipe.synonyms, lexicon, order) for example in changed]
    if recipe.companions:
        texts = [example.text for example in changed]
        changed = [with_companion(example, recipe.companions, texts, order) for example in changed]
    return changed


# --- saying it anew ------------------------------------------------------------------------------


def find_paraphraser(place: str) -> Paraphraser:
    """What "package.module:callable" gives. Raises PipelineError when there is no such thing."""
    module, _, name = place.partition(":")
    try:
        made: Paraphraser = getattr(import_module(module), name)()
    except (ImportError, AttributeError) as error:
        raise PipelineError(f"the paraphraser {place} cannot be had: {error}") from error
    return made


def paraphrased(examples: Sequence[Example], share: float, paraphraser: Paraphraser, order: random.Random) -> list[Example]:
    """So many of the examples in other words. One whose names are not all in its new text stays as it was."""
    chosen = [place for place in range(len(examples)) if order.random() < share]
    said = paraphraser.paraphrase([examples[place].text for place in chosen])
    if len(said) != len(chosen):
        raise PipelineError(f"the paraphraser gave {len(said)} texts for {len(chosen)}")
    changed = list(examples)
    for place, text in zip(chosen, said, strict=True):
        changed[place] = _said_as(examples[place], normalise(text))
    return changed


def _said_as(example: Example, text: str) -> Example:
    places = [text.find(example.text[one.start : one.end]) for one in example.toward]
    if not text or -1 in places:
        return example
    moved = tuple(
        Toward(start, start + one.end - one.start, one.sentiment) for start, one in zip(places, example.toward, strict=True)
    )
    return replace(example, text=text, toward=moved)


# --- names ---------------------------------------------------------------------------------------


def names_of(examples: Iterable[Example]) -> tuple[str, ...]:
    """The names of all entities that the examples speak of, each once, in a fixed order."""
    return tuple(sorted({example.text[one.start : one.end] for example in examples for one in example.toward}))


def with_swapped_entities(example: Example, share: float, names: Sequence[str], order: random.Random) -> Example:
    """The example with each of its entities under the name of another, wherever the text names it, with this probability.

    A name is replaced by one of the same script that the text does not hold yet. Entities whose names overlap stay.
    """
    spans = sorted((one.start, one.end) for one in example.toward)
    if any(start < end for (_, end), (start, _) in pairwise(spans)):
        return example
    edits: list[Edit] = []
    known = example.text.casefold()
    for start, end in spans:
        if order.random() >= share:
            continue
        old = example.text[start:end]
        new = _other_name(old, known, names, order)
        if new is None:
            continue
        places = list(_places_of(old, example.text, [span for span in spans if span != (start, end)]))
        if (start, end) in places and not any(_overlaps(place, [(edit.start, edit.end) for edit in edits]) for place in places):
            edits += [Edit(*place, new) for place in places]
            known += " " + new.casefold()
    return rewritten(example, edits)


def _other_name(old: str, known: str, names: Sequence[str], order: random.Random) -> str | None:
    """A name that is not in what is `known`, in the script of the old one; None when a few draws find none."""
    for _ in range(8):
        new = order.choice(names)
        if new.casefold() not in known and bool(_CHINESE.search(new)) == bool(_CHINESE.search(old)):
            return new
    return None


def _places_of(name: str, text: str, others: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Where a text names something, but for what lies in the places of others."""
    edges = ("", "") if _CHINESE.search(name) else (r"(?<!\w)", r"(?!\w)")
    for found in re.finditer(edges[0] + re.escape(name) + edges[1], text):
        if all(found.end() <= start or end <= found.start() for start, end in others):
            yield found.span()


# --- numbers -------------------------------------------------------------------------------------


def with_other_numbers(example: Example, share: float, order: random.Random) -> Example:
    """The example with all its numbers changed by one factor, with this probability.

    One factor for a text keeps what is more than what. Each number keeps its digits before the point and behind it; years, dates
    and numbers in names stay.
    """
    if order.random() >= share:
        return example
    factor = order.uniform(_LEAST_FACTOR, _MOST_FACTOR)
    spans = [(one.start, one.end) for one in example.toward]
    edits = [
        Edit(found.start(), found.end(), other_number(found.group(), factor))
        for found in _NUMBER.finditer(example.text)
        if not _YEAR.fullmatch(found.group()) and not _overlaps(found.span(), spans)
    ]
    return rewritten(example, edits)


def other_number(number: str, factor: float) -> str:
    """A number times a factor, written with the same digits before the point and behind it."""
    before, _, behind = number.replace(",", "").partition(".")
    if before != "0" and before.startswith("0"):
        return number
    places = 10 ** len(behind)
    units = int(before + behind)
    least, most = (10 ** (len(before) - 1) * places, 10 ** len(before) * places - 1) if before != "0" else (1, places - 1)
    if units == 0 or not least <= units <= most:
        return number
    changed = min(max(round(units * factor), least), most)
    whole, rest = divmod(changed, places)
    written = f"{whole:,}" if "," in number else str(whole)
    return f"{written}.{rest:0{len(behind)}d}" if behind else written


# --- words ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lexicon:
    """Words that say the same: `groups` maps a word in small letters to the group it is in, `pattern` finds the words in a text."""

    groups: Mapping[str, tuple[str, ...]]
    pattern: re.Pattern[str]


@cache
def read_lexicon(path: Path = LEXICON_FILE) -> Lexicon:
    """The lexicon of a file: lists of words under `english` and `chinese`. Raises PipelineError when a word is in two groups."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    groups: dict[str, tuple[str, ...]] = {}
    for group in (*content["english"], *content["chinese"]):
        for word in group:
            if word in groups:
                raise PipelineError(f"{path}: {word} is in two groups, or twice in one")
            groups[word] = tuple(group)
    longest_first = sorted(groups, key=lambda word: (-len(word), word))
    english = "|".join(re.escape(word) for word in longest_first if not _CHINESE.search(word))
    chinese = "|".join(re.escape(word) for word in longest_first if _CHINESE.search(word))
    return Lexicon(groups, re.compile(rf"(?<![\w$#@&'-])(?:{english})(?![\w&'-])|(?:{chinese})", re.IGNORECASE))


def with_synonyms(example: Example, share: float, lexicon: Lexicon, order: random.Random) -> Example:
    """The example with each word of the lexicon replaced by another of its group with this probability, in the same case.

    A word in the name of an entity stays.
    """
    spans = [(one.start, one.end) for one in example.toward]
    edits = []
    for found in lexicon.pattern.finditer(example.text):
        word = found.group()
        others = [other for other in lexicon.groups.get(word.casefold(), ()) if other != word.casefold()]
        if others and order.random() < share and not _overlaps(found.span(), spans):
            edits.append(Edit(found.start(), found.end(), in_case_of(word, order.choice(others))))
    return rewritten(example, edits)


def in_case_of(word: str, other: str) -> str:
    """The other word in capitals where the word is, or with one at its beginning."""
    if word.isupper() and len(word) > 1:
        return other.upper()
    return other[0].upper() + other[1:] if word[0].isupper() else other


# --- company ------------------------------------------------------------------------------------


def with_companion(example: Example, share: float, texts: Sequence[str], order: random.Random) -> Example:
    """The example with another text before or behind it, on a line of its own, with this probability.

    What it says of the entities it names stays true and is all that it still says: two texts together have no topic and no
    sentiment of their own. An example that names nobody stays as it is, and so does one whose entities the other text names too.
    """
    if not example.toward or order.random() >= share:
        return example
    other = order.choice(texts)
    known = other.casefold()
    if any(example.text[one.start : one.end].casefold() in known for one in example.toward):
        return example
    before = order.random() < 0.5
    shift = len(other) + 1 if before else 0
    moved = tuple(Toward(one.start + shift, one.end + shift, one.sentiment) for one in example.toward)
    text = f"{other}\n{example.text}" if before else f"{example.text}\n{other}"
    return replace(example, text=text, topic=None, sentiment=None, toward=moved)


# --- text and places -----------------------------------------------------------------------------


def rewritten(example: Example, edits: Iterable[Edit]) -> Example:
    """The example after edits that do not overlap; the place of an entity is an edit as a whole, or touched by none."""
    ordered = sorted(edits, key=lambda edit: edit.start)
    if not ordered:
        return example
    parts, at = [], 0
    for edit in ordered:
        parts += [example.text[at : edit.start], edit.text]
        at = edit.end
    text = "".join([*parts, example.text[at:]])
    moved = _mover(ordered)
    return replace(
        example, text=text, toward=tuple(Toward(moved(one.start), moved(one.end), one.sentiment) for one in example.toward)
    )


def _mover(ordered: Sequence[Edit]) -> Callable[[int], int]:
    """Where a place of the old text is in the new one; it may lie at the edge of an edit, not within one."""
    ends = [edit.end for edit in ordered]
    grown = [0]
    for edit in ordered:
        grown.append(grown[-1] + len(edit.text) - (edit.end - edit.start))
    return lambda place: place + grown[bisect_right(ends, place)]


def _overlaps(span: tuple[int, int], others: Iterable[tuple[int, int]]) -> bool:
    return any(span[0] < end and start < span[1] for start, end in others)
