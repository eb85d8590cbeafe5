"""A watch list and a text to the places where the text names a watched entity."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal, NamedTuple

from ahocorasick_rs import AhoCorasick, MatchKind
from pydantic import BeforeValidator, Field, ValidationError

from monitor.config import Section, describe_faults, read_yaml
from monitor.errors import ConfigurationError
from monitor.types import Mention

MIN_ALIAS_CHARACTERS: Final = 2
MAX_ALIAS_CHARACTERS: Final = 200

_FIRST_UNSPACED: Final = "\u1100"
# Han, kana, bopomofo, Hangul: scripts that put no space between a name and what follows it.
_UNSPACED: Final = re.compile(
    r"[\u1100-\u11ff\u2e80-\ua4cf\ua960-\ua97f\uac00-\ud7ff\uf900-\ufaff\uff66-\uffdc\U00020000-\U0003ffff]"
)

_FULL_WIDTH: Final = "".join(map(chr, range(0xFF01, 0xFF5F)))
_PLAIN: Final = str.maketrans("\u00a0\u202f\u3000\u2019" + _FULL_WIDTH, "   '" + "".join(map(chr, range(0x21, 0x7F))))

Case = Literal["exact", "ignore"]


@dataclass(frozen=True, slots=True)
class Alias:
    """A way to write something, of two characters or more, and whether upper and lower case must agree."""

    text: str
    case: Case = "exact"


@dataclass(frozen=True, slots=True)
class Entity:
    """Someone to watch. The `name` is an alias as well, in exact case; an alias inside one of the `exclusions` does not count."""

    id: str
    name: str
    aliases: tuple[Alias, ...] = ()
    exclusions: tuple[Alias, ...] = ()


class _Use(NamedTuple):
    """What a pattern says: that this entity (by its place in the list) is named, or that it is not meant."""

    names: bool
    entity: int


class _Span(NamedTuple):
    """A use at its place in a text. Sorted, whatever holds a span comes before it; of two equal spans, the exclusion."""

    start: int
    minus_end: int
    use: _Use


class WatchList:
    """The watched entities, and the search for them in texts.

    An alias counts where it cuts no word in two: "Halden" is named in "Halden's", not in "Haldens"; beside Chinese, Japanese and
    Korean characters nothing is cut. It does not count inside an exclusion of its own entity, nor inside a longer alias of another
    entity, if that one is not excluded itself ("Santander" in "Santander Consumer"). Aliases are brought into Unicode's composed
    form; no-break spaces count as spaces, typographic apostrophes as plain ones, full-width letters, digits and signs ("ＡＢＣ") as
    ordinary ones. Traditional and simplified characters are different characters: list a name in both.
    """

    def __init__(self, entities: Iterable[Entity] = ()) -> None:
        """Raises ConfigurationError when two entities share an id or an alias."""
        listed = tuple(entities)
        conflicts = _conflicts(dict(enumerate(listed)))
        if conflicts:
            raise ConfigurationError("the watch list", conflicts)
        self.entities: Mapping[str, Entity] = MappingProxyType({entity.id: entity for entity in listed})
        self.names: Mapping[str, str] = MappingProxyType({entity.id: entity.name for entity in listed})
        self._ids = tuple(self.entities)
        self._exact = _Patterns(listed, "exact")
        self._any_case = _Patterns(listed, "ignore")

    def find(self, text: str) -> tuple[Mention, ...]:
        """The mentions of watched entities in a text in Unicode's composed form, in order.

        Two mentions may overlap, but neither lies within the other.
        """
        text = _plain(text)
        spans = self._exact.find(text)
        spans += self._any_case.find(text)
        if not spans:
            return ()
        spans.sort()
        return tuple(Mention(span.start, -span.minus_end, self._ids[span.use.entity]) for span in _named(spans))


def load_watchlist(path: Path) -> WatchList:
    """The watch list of a YAML file; an empty file is an empty list. Raises ConfigurationError that lists every fault.

    The file holds `entities`, a list of `id`, `name`, `aliases` and `exclusions`; an alias or an exclusion is a text in exact case,
    or `{text: ..., case: ignore}`.
    """
    items, problems = _items(read_yaml(path))
    entities: dict[int, Entity] = {}
    for place, item in enumerate(items):
        if not isinstance(item, dict):
            problems.append(f"entities.{place}: must be a mapping with id and name")
            continue
        try:
            entities[place] = _EntitySection.model_validate(item).entity()
        except ValidationError as error:
            problems += [f"entities.{place}.{fault}" for fault in describe_faults(error)]
    problems += _conflicts(entities)
    if problems:
        raise ConfigurationError(str(path), problems)
    return WatchList(entities.values())


def find_name(name: str, text: str, entity: str) -> tuple[Mention, ...]:
    """Where a text names someone who is on no list, in whatever case: as a word of its own, or else within words.

    So "Halden" is found in "Haldens shares fall", but not if the text names "Halden" as well. `entity` is who is then mentioned.
    """
    found = WatchList([Entity(entity, name, (Alias(name, "ignore"),))]).find(text)
    if found:
        return found
    pattern = re.compile(re.escape(_fold(_normalise(name))))
    return tuple(Mention(*match.span(), entity) for match in pattern.finditer(_fold(_plain(text))))


# --- the file ----------------------------------------------------------------------------------


def _alias_text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text: put it in quotes")  # noqa: TRY004 (pydantic wants ValueError)
    text = value.strip()
    if len(text) < MIN_ALIAS_CHARACTERS:
        raise ValueError("is too short: a single letter stands everywhere" if text else "is empty")
    if len(text) > MAX_ALIAS_CHARACTERS:
        raise ValueError(f"has more than {MAX_ALIAS_CHARACTERS} characters")
    return text


_AliasText = Annotated[str, BeforeValidator(_alias_text)]


class _AliasSection(Section):
    text: _AliasText
    case: Case = "exact"

    def alias(self) -> Alias:
        return Alias(self.text, self.case)


def _spelled_out(value: object) -> object:
    return value if isinstance(value, dict) else {"text": value}


_AliasEntry = Annotated[_AliasSection, BeforeValidator(_spelled_out)]


class _EntitySection(Section):
    id: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    name: _AliasText
    aliases: tuple[_AliasEntry, ...] = ()
    exclusions: tuple[_AliasEntry, ...] = ()

    def entity(self) -> Entity:
        aliases = tuple(section.alias() for section in self.aliases)
        exclusions = tuple(section.alias() for section in self.exclusions)
        return Entity(self.id, self.name, aliases, exclusions)


def _items(content: Any) -> tuple[list[Any], list[str]]:
    """The list under `entities`, and what is wrong around it."""
    if content is None:
        return [], []
    if not isinstance(content, dict):
        return [], ["(whole file): must be a mapping with the key entities"]
    problems = [f"{key}: unknown key" for key in content if key != "entities"]
    items = content.get("entities")
    if items is None:
        return [], problems
    if not isinstance(items, list):
        return [], [*problems, "entities: must be a list"]
    return items, problems


def _conflicts(entities: Mapping[int, Entity]) -> list[str]:
    """Ids and aliases that stand for two entities, each named by its place in the file."""
    problems: list[str] = []
    place_by_id: dict[str, int] = {}
    written: dict[str, list[tuple[int, str, Alias]]] = {}
    for place, entity in entities.items():
        first = place_by_id.setdefault(entity.id, place)
        if first != place:
            problems.append(f"entities.{place}.id: {entity.id!r} is taken by entities.{first}")
        for path, alias in _written(place, entity):
            alike = written.setdefault(_fold(_normalise(alias.text)), [])
            taken = next((other for other in alike if other[0] != place and _is_same(alias, other[2])), None)
            if taken is not None:
                problems.append(f"{path}: {alias.text!r} already names {entities[taken[0]].id!r} ({taken[1]})")
            alike.append((place, path, alias))
    return problems


def _written(place: int, entity: Entity) -> Iterator[tuple[str, Alias]]:
    """The aliases of an entity, its name first, each with its path in the file."""
    yield f"entities.{place}.name", Alias(entity.name)
    for number, alias in enumerate(entity.aliases):
        yield f"entities.{place}.aliases.{number}", alias


def _is_same(alias: Alias, other: Alias) -> bool:
    """Whether one text can be both, given that they are equal but for case."""
    return "ignore" in (alias.case, other.case) or _normalise(alias.text) == _normalise(other.text)


# --- the search --------------------------------------------------------------------------------


class _Patterns:
    """The aliases and exclusions of all entities that are compared in one way, found together in one pass."""

    def __init__(self, entities: Iterable[Entity], case: Case) -> None:
        uses: dict[str, set[_Use]] = {}
        for place, entity in enumerate(entities):
            for names, group in ((True, (Alias(entity.name), *entity.aliases)), (False, entity.exclusions)):
                for alias in group:
                    if alias.case == case:
                        text = _normalise(alias.text)
                        uses.setdefault(_fold(text) if case == "ignore" else text, set()).add(_Use(names, place))
        self._folds = case == "ignore"
        self._uses = tuple(tuple(sorted(group)) for group in uses.values())
        self._automaton = AhoCorasick(list(uses), matchkind=MatchKind.Standard) if uses else None

    def find(self, text: str) -> list[_Span]:
        """Every place in a normalised text where a pattern stands and cuts no word."""
        if self._automaton is None:
            return []
        hits = self._automaton.find_matches_as_indexes(_fold(text) if self._folds else text, overlapping=True)
        return [_Span(start, -end, use) for number, start, end in hits if _is_whole(text, start, end) for use in self._uses[number]]


def _named(spans: Iterable[_Span]) -> Iterator[_Span]:
    """Those of the sorted spans that name an entity, in order; in one sweep, because a text may repeat a name for ever.

    What holds a span came before it, so an alias counts when it reaches further than all before it. One that lies only inside
    another alias of its own entity adds nothing: that one has named the entity, unless it lies inside another's itself.
    """
    excluded_until: dict[int, int] = {}
    reached = 0
    for span in spans:
        end, (names, entity) = -span.minus_end, span.use
        if not names:
            excluded_until[entity] = max(end, excluded_until.get(entity, 0))
        elif end > max(reached, excluded_until.get(entity, 0)):
            reached = end
            yield span


def _is_whole(text: str, start: int, end: int) -> bool:
    """Whether cutting `text` at both places cuts no word in two."""
    if start > 0 and _continues_word(text[start - 1]) and _continues_word(text[start]):
        return False
    return end == len(text) or not (_continues_word(text[end - 1]) and _continues_word(text[end]))


def _continues_word(character: str) -> bool:
    if not (character.isalnum() or character == "_"):
        return False
    return character < _FIRST_UNSPACED or _UNSPACED.match(character) is None


def _plain(text: str) -> str:
    """`text` with plain spaces and apostrophes, and as long as before."""
    return text if text.isascii() else text.translate(_PLAIN)


def _normalise(alias: str) -> str:
    return _plain(unicodedata.normalize("NFC", alias))


def _fold(text: str) -> str:
    """`text` without regard to case, and as long as before, so that places in it stay places in `text`."""
    folded = text.casefold()
    if len(folded) == len(text):
        return folded
    return "".join(single if len(single := character.casefold()) == 1 else character for character in text)
