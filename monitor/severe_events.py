"""A passage with watched names in, the severe events that it tells of them out: defaults, bank runs, arrests and their like."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from ahocorasick_rs import AhoCorasick
from pydantic import BeforeValidator, Field, ValidationError

from monitor.classifier.excerpt import sentence_around
from monitor.classifier.text import CJK
from monitor.config import Section, describe_faults, read_yaml
from monitor.errors import ConfigurationError
from monitor.types import SCORE_UNIT, EventSeverity, Mention, Opinion, Passage, Prediction, SevereEvent

SENTENCES: Final = 8
"""So many sentences of a passage that name a watched entity are read, the first ones: further down news becomes background."""

Language = Literal["en", "zh"]

NAME: Final = "\ue000"
"""Stands for a watched name while patterns are compared: a character of nobody's alphabet."""

AFTER: Final = "\ue001"
"""Stands for what is passed over between a name and its verb."""

_HAS: Final = "<has>"
_BEFORE_CHARACTERS: Final = 80
_CHINESE: Final = re.compile(f"[{CJK}]")
# "UPDATE 2-", "REFILE-TOPWRAP 3-", "US STOCKS-"
_WIRE_HEAD: Final = re.compile(r"(?:[A-Z][A-Z&/. ]{1,30}(?: \d{1,2})? ?-(?!\s))+")
_PLACEHOLDER: Final = re.compile(r"<([A-Za-z_]+)>")
_PLAIN: Final = str.maketrans(
    {"‘": "'", "’": "'", "–": "-", "—": "-", "\u2011": "-", NAME: None, AFTER: None} | dict.fromkeys('"“”„«»「」『』')
)
_QUOTATION: Final = re.compile(rf"(?<![\w{NAME}])'|'(?!\w)")
# A statement stands by itself; what a noun means depends on the words before it as well.
_BREAKS: Final = {
    "says": re.compile(r"[;:,，；：。]| - | (?:as|after|while|when|amid|and|but|because) "),
    "names": re.compile(r"[;:，；：。]| - "),
}


@dataclass(frozen=True, slots=True)
class Category:
    """A kind of severe event, with its title in English and in Chinese.

    It counts only where P(negative) of the opinion of the entity is at least `minimum_negative`, and under none of the
    `implausible_topics`; what the classifier is not sure of, or does not know the words of, speaks against nothing.
    """

    id: str
    title: str
    title_zh: str
    severity: EventSeverity
    minimum_negative: float
    implausible_topics: frozenset[str]


@dataclass(frozen=True, slots=True)
class Finding:
    """A pattern of a category matches what is said about an entity.

    `severity` is that of the category, but a noun is a warning only: "after Halden's collapse" presumes an event that is known.
    `pattern` is written as in the file of categories, `said` is the matching text in small letters. `rejected_by` says in plain
    words why this is no event after all; None: it is one.
    """

    entity: str
    category: str
    severity: EventSeverity
    pattern: str
    said: str
    rejected_by: str | None = None


@dataclass(frozen=True, slots=True)
class Example:
    """A written example of a pattern: a text, the watched names in it, and those of them that it is about."""

    text: str
    named: tuple[str, ...]
    about: tuple[str, ...]

    @property
    def passage(self) -> Passage:
        """The example with its names, each its own entity, found where they are marked."""
        parts = re.split(r"([\[{])([^\[\]{}]+)[\]}]", self.text)
        text, mentions = parts[0], []
        for name, following in zip(parts[2::3], parts[3::3], strict=True):
            mentions.append(Mention(len(text), len(text) + len(name), name))
            text += name + following
        return Passage(text, tuple(mentions))


@dataclass(frozen=True, slots=True)
class Way:
    """One way to tell an event: several patterns of one language, and written examples of what they match and what they do not.

    A way either `says` that something happened, or `names` it with a noun. `about` are the names of the groups in which a watched
    name is caught, one for each pattern.
    """

    language: Language
    form: Literal["says", "names"]
    written: tuple[str, ...]
    compiled: tuple[re.Pattern[str], ...]
    matches: tuple[Example, ...]
    rejects: tuple[Example, ...]


@dataclass(frozen=True, slots=True)
class _Exceptions:
    """What makes a match mean something else: before it in its clause, right behind it, or anywhere in its sentence.

    `inside`: what counts before a match counts inside it as well, because patterns of this language pass over any characters.
    """

    inside: bool
    before: Mapping[str, re.Pattern[str]]
    governing: re.Pattern[str]
    behind: re.Pattern[str]
    anywhere: re.Pattern[str]

    def rejection(self, text: str, match: re.Match[str], form: Literal["says", "names"], *, subject: bool) -> str | None:
        """The words that stand against a match, if there are any; `subject`: the name must be the subject of its sentence."""
        start = max(0, match.start() - _BEFORE_CHARACTERS)
        for found in _BREAKS[form].finditer(text, start, match.start()):
            start = found.end()
        against = (
            (self.governing.search(text, 0, match.start()) if subject else None)
            or self.before[form].search(text, start, match.end() if self.inside else match.start())
            or self.behind.match(text, match.end())
            or self.anywhere.search(text)
        )
        return " ".join(against.group().split()) if against else None


@dataclass(frozen=True, slots=True)
class _Matcher:
    category: Category
    ways: tuple[Way, ...]
    exceptions: Mapping[Language, _Exceptions]


@dataclass(frozen=True, slots=True)
class _Sentence:
    """A sentence in small letters, each watched name a single `NAME`; the entities of each, in order."""

    text: str
    named: tuple[tuple[str, ...], ...]
    language: Language

    def about(self, start: int, end: int) -> tuple[str, ...]:
        """The entities named between two places."""
        first = self.text.count(NAME, 0, start)
        return tuple(entity for one in self.named[first : first + self.text.count(NAME, start, end)] for entity in one)


class _Grammar:
    """What is passed over around a name, in one language."""

    def __init__(self, section: _LanguageSection) -> None:
        words = section.words | {"before": section.before, "after": section.after}
        self._before = re.compile(rf"(?<![\w-])(?:(?:{_expanded(section.before, words)}) ){{1,7}}(?={NAME})")
        self._form = re.compile(f"{NAME}{_expanded(section.form, words)}")
        apposition = rf"(?:, [^,;{NAME}]{{2,80}},| -[^-{NAME}]{{2,60}}-)"
        passed = rf"(?: (?:{_expanded(section.after, words)})(?![\w-]))"
        introduced = rf": (?:(?:{_expanded(section.before, words)}) ){{1,5}}"
        self._introduced = re.compile(rf"{NAME}{introduced}")
        self._after = re.compile(rf"{NAME}(?:{apposition}{passed}{{0,8}}|{passed}{{1,8}})(?= )")

    def bare(self, text: str) -> str:
        """The text with bare names."""
        return self._form.sub(NAME, self._before.sub("", text))

    def joined(self, bare: str) -> str:
        """A text with bare names, with one `AFTER` in place of all that stands between a name and its verb."""
        return self._after.sub(NAME + AFTER, self._introduced.sub(f"{NAME}{AFTER} ", bare))


class SevereEvents:
    """The categories, and the search for their events in passages.

    An event is about a watched name if a pattern of its category matches the sentence with the name in its place: as the subject
    ("Halden files for bankruptcy"), as the object ("regulators seize Halden"), or as part of a noun ("Halden's collapse", "a run on
    Halden"). What may stand between the name and the verb is a short list of words; another name is not among them. So nothing is
    said about who only speaks, buys, rates or lends.
    """

    def __init__(
        self, matchers: Sequence[_Matcher], triggers: Mapping[str, Sequence[str]], grammars: Mapping[Language, _Grammar]
    ) -> None:
        self.categories: Mapping[str, Category] = MappingProxyType({one.category.id: one.category for one in matchers})
        self.ways: Mapping[str, tuple[Way, ...]] = MappingProxyType({one.category.id: one.ways for one in matchers})
        self._matchers = tuple(matchers)
        self._grammars = grammars
        words = [(word, place) for place, one in enumerate(matchers) for word in triggers[one.category.id]]
        self._triggers = AhoCorasick([word for word, _ in words])
        self._triggered = [place for _, place in words]

    def tell(self, passage: Passage, prediction: Prediction) -> tuple[SevereEvent, ...]:
        """The severe events of a passage, sorted; at most one for an entity and a category. No watched name, no event."""
        if not passage.mentions:
            return ()
        told: dict[tuple[str, str], EventSeverity] = {}
        for found in self.judge(self.find(passage), prediction):
            if found.rejected_by is None and told.get((found.entity, found.category)) != "critical":
                told[found.entity, found.category] = found.severity
        return tuple(
            SevereEvent(entity, category, severity, _negative_units(prediction.opinion(entity)))
            for (entity, category), severity in sorted(told.items())
        )

    def find(self, passage: Passage) -> list[Finding]:
        """Every match of a pattern with a watched name, with the words that stand against it, without repetitions."""
        found: dict[Finding, None] = {}
        for sentence in _sentences(passage):
            places = self._places(sentence)
            if places:
                grammar = self._grammars[sentence.language]
                bare = replace(sentence, text=grammar.bare(sentence.text))
                joined = replace(sentence, text=grammar.joined(bare.text))
                for place in places:
                    found.update(dict.fromkeys(_matches(bare, joined, self._matchers[place])))
        return list(found)

    def triggered(self, passage: Passage) -> set[str]:
        """The categories of which at least a word stands in a sentence that names a watched entity."""
        return {self._matchers[place].category.id for sentence in _sentences(passage) for place in self._places(sentence)}

    def _places(self, sentence: _Sentence) -> list[int]:
        hits = self._triggers.find_matches_as_indexes(sentence.text, overlapping=True)
        return sorted({self._triggered[hit] for hit, _, _ in hits})

    def judge(self, findings: Iterable[Finding], prediction: Prediction) -> list[Finding]:
        """The findings, with what the classifier's answers about the passage hold against them."""
        return [replace(found, rejected_by=found.rejected_by or self._doubt(found, prediction)) for found in findings]

    def _doubt(self, found: Finding, prediction: Prediction) -> str | None:
        category = self.categories[found.category]
        if prediction.out_of_domain:
            return None
        if prediction.topic in category.implausible_topics and not prediction.topic_uncertain:
            return f"the topic is {prediction.topic}"
        negative = prediction.opinion(found.entity).probabilities[0]
        if negative < category.minimum_negative:
            return f"P(negative) is {negative:.3f}, below {category.minimum_negative:g}"
        return None


@cache
def shipped_events() -> SevereEvents:
    """The categories that come with Bellwether, read and compiled once."""
    return load_events(Path(__file__).with_name("severe_events.yaml"))


def load_events(path: Path) -> SevereEvents:
    """The categories of a YAML file. Raises ConfigurationError that lists every fault."""
    try:
        file = _FileSection.model_validate(read_yaml(path))
    except ValidationError as error:
        raise ConfigurationError(str(path), describe_faults(error)) from error
    problems: list[str] = []
    matchers: list[_Matcher] = []
    for number, section in enumerate(file.categories):
        try:
            matchers.append(_matcher(section, file))
        except (re.error, ValueError) as error:
            problems.append(f"categories.{number} ({section.id}): {error}")
    if len({section.id for section in file.categories}) < len(file.categories):
        problems.append("categories: two have the same id")
    if problems:
        raise ConfigurationError(str(path), problems)
    return SevereEvents(
        matchers, {section.id: section.triggers for section in file.categories}, {"en": _Grammar(file.en), "zh": _Grammar(file.zh)}
    )


# --- sentences ---------------------------------------------------------------------------------


def _sentences(passage: Passage) -> Iterator[_Sentence]:
    """The first sentences that name watched entities, in the order of the text."""
    mentions = passage.mentions
    place = read = 0
    while place < len(mentions) and read < SENTENCES:
        span = sentence_around(passage.text, mentions[place].start, mentions[place].end)
        last = place
        while last < len(mentions) and mentions[last].start < span.end:
            last += 1
        yield _sentence(passage.text, span.start, span.end, mentions[place:last])
        place = last
        read += 1


def _sentence(text: str, start: int, end: int, mentions: Sequence[Mention]) -> _Sentence:
    parts: list[str] = []
    named: list[list[str]] = []
    reached = start
    headed = _WIRE_HEAD.match(text, start, mentions[0].start)
    if headed:
        parts.append(_plain(headed.group()).replace("-", ": "))
        reached = headed.end()
    for mention in mentions:
        if named and mention.start < reached:
            named[-1].append(mention.entity)
        else:
            parts += (_plain(text[reached : mention.start]), NAME)
            named.append([mention.entity])
        reached = max(reached, mention.end)
    parts.append(_plain(text[reached : max(reached, end)]))
    written = _QUOTATION.sub("", "".join(parts))
    language: Language = "zh" if _CHINESE.search(written) else "en"
    return _Sentence(written, tuple(map(tuple, named)), language)


def _plain(text: str) -> str:
    return text.lower().translate(_PLAIN)


def _matches(bare: _Sentence, joined: _Sentence, matcher: _Matcher) -> Iterator[Finding]:
    exceptions = matcher.exceptions[bare.language]
    for way in matcher.ways:
        if way.language != bare.language:
            continue
        for written, compiled in zip(way.written, way.compiled, strict=True):
            sentence = joined if _HAS in written else bare
            for match in compiled.finditer(sentence.text):
                against = exceptions.rejection(sentence.text, match, way.form, subject=_HAS in written)
                for entity in sentence.about(*match.span("about")):
                    yield Finding(
                        entity=entity,
                        category=matcher.category.id,
                        severity="warning" if way.form == "names" else matcher.category.severity,
                        pattern=written,
                        said=match.group().replace(NAME, entity).replace(AFTER, " …"),
                        rejected_by=None if against is None else f'"{against}" stands against it',
                    )


def _negative_units(opinion: Opinion) -> int:
    return round(opinion.probabilities[0] * SCORE_UNIT)


# --- the file ----------------------------------------------------------------------------------

_Share = Annotated[float, Field(strict=True, ge=0, le=1, allow_inf_nan=False)]
_Text = Annotated[str, Field(min_length=1)]


def _joined(value: object) -> object:
    """An expression that is written over several lines as one line."""
    return value.replace("\n", "") if isinstance(value, str) else value


_Expression = Annotated[_Text, BeforeValidator(_joined)]


class _WaySection(Section):
    says: tuple[_Expression, ...] = ()
    names: tuple[_Expression, ...] = ()
    matches: Annotated[tuple[_Text, ...], Field(min_length=2)]
    rejects: Annotated[tuple[_Text, ...], Field(min_length=2)]


class _ExceptionsSection(Section):
    before: tuple[_Expression, ...] = ()
    before_subject: tuple[_Expression, ...] = ()
    before_noun: tuple[_Expression, ...] = ()
    behind: tuple[_Expression, ...] = ()
    anywhere: tuple[_Expression, ...] = ()


def _alternatives(value: object) -> object:
    """A list of words as the expression of any of them."""
    return f"(?:{'|'.join(map(str, value))})" if isinstance(value, list) else _joined(value)


class _LanguageSection(Section):
    form: Annotated[str, BeforeValidator(_alternatives)]
    before: Annotated[str, BeforeValidator(_alternatives)] = "(?!)"
    after: Annotated[str, BeforeValidator(_alternatives)] = "(?!)"
    words: dict[str, Annotated[str, BeforeValidator(_alternatives)]]
    exceptions: _ExceptionsSection


class _CategorySection(Section):
    id: Annotated[str, Field(pattern=r"^[a-z][a-z_]{0,62}$")]
    title: _Text
    title_zh: _Text
    severity: EventSeverity
    minimum_negative: _Share = 0.0
    implausible_topics: tuple[_Text, ...] = ()
    triggers: Annotated[tuple[_Text, ...], Field(min_length=1)]
    ways: Annotated[tuple[_WaySection, ...], Field(min_length=1)]
    exceptions: Annotated[dict[Language, _ExceptionsSection], Field(default_factory=dict)]


class _FileSection(Section):
    en: _LanguageSection
    zh: _LanguageSection
    categories: Annotated[tuple[_CategorySection, ...], Field(min_length=1)]

    def language(self, language: Language) -> _LanguageSection:
        return self.en if language == "en" else self.zh


def _matcher(section: _CategorySection, file: _FileSection) -> _Matcher:
    """Raises re.error and ValueError where a pattern is broken."""
    return _Matcher(
        category=Category(
            id=section.id,
            title=section.title,
            title_zh=section.title_zh,
            severity=section.severity,
            minimum_negative=section.minimum_negative,
            implausible_topics=frozenset(section.implausible_topics),
        ),
        ways=tuple(_way(way, file) for way in section.ways),
        exceptions={
            language: _exceptions(file.language(language), section.exceptions.get(language, _ExceptionsSection()), language)
            for language in ("en", "zh")
        },
    )


def _way(section: _WaySection, file: _FileSection) -> Way:
    if bool(section.says) == bool(section.names):
        raise ValueError("a way has either says or names")
    written = section.says or section.names
    language: Language = "zh" if _CHINESE.search("".join(written)) else "en"
    return Way(
        language=language,
        form="says" if section.says else "names",
        written=written,
        compiled=tuple(_compiled(pattern, file.language(language), language) for pattern in written),
        matches=tuple(map(_example, section.matches)),
        rejects=tuple(map(_example, section.rejects)),
    )


def _compiled(pattern: str, section: _LanguageSection, language: Language) -> re.Pattern[str]:
    if pattern.count("<X>") != 1:
        raise ValueError(f"{pattern!r} must hold <X> once")
    expanded = _expanded(pattern.replace("<X>", f"(?P<about>{section.words['X']})"), section.words | {"after": section.after})
    if language == "zh":
        return re.compile(expanded)
    # Without a look-behind before the name, the search leaps from name to name.
    start = "" if pattern.startswith("<X>") else r"(?<![\w-])"
    return re.compile(rf"{start}(?:{expanded})(?!\w)")


def _expanded(pattern: str, words: Mapping[str, str]) -> str:
    """The pattern with its placeholders replaced, those inside of them too."""

    def replaced(found: re.Match[str]) -> str:
        if found[1] == "name":
            return NAME
        if found[1] == "about":
            return found[0]
        if found[1] == "has":
            return f"{AFTER}? "
        if found[1] not in words:
            raise ValueError(f"<{found[1]}> is not among the words")
        return _PLACEHOLDER.sub(replaced, words[found[1]])

    return _PLACEHOLDER.sub(replaced, pattern)


def _exceptions(shared: _LanguageSection, own: _ExceptionsSection, language: Language) -> _Exceptions:
    def either(*groups: Sequence[str], close: str = "") -> re.Pattern[str]:
        patterns = [_expanded(pattern, shared.words) for group in groups for pattern in group]
        return re.compile(f"(?:{'|'.join(patterns)}){close}" if patterns else "(?!)")

    def words(*groups: Sequence[str]) -> re.Pattern[str]:
        return either(*groups) if language == "zh" else re.compile(rf"(?<![\w-])(?:{either(*groups).pattern})(?![\w-])")

    general = shared.exceptions
    return _Exceptions(
        inside=language == "zh",
        before={
            "says": words(general.before, own.before),
            "names": words(general.before, general.before_noun, own.before, own.before_noun),
        },
        governing=re.compile(rf"(?<![\w-])(?:{either(general.before_subject, own.before_subject).pattern}) $"),
        behind=either(general.behind, own.behind, close="" if language == "zh" else r"(?!\w)"),
        anywhere=words(general.anywhere, own.anywhere),
    )


def _example(text: Any) -> Example:
    marked = re.findall(r"([\[{])([^\[\]{}]+)[\]}]", text)
    return Example(
        text=text,
        named=tuple(dict.fromkeys(name for _, name in marked)),
        about=tuple(dict.fromkeys(name for brace, name in marked if brace == "{")),
    )
