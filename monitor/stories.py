"""Scored documents in, their places out: the first of a story, a copy of one, a repetition of itself, or too old to count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from hashlib import blake2b
from typing import Final, Protocol

from monitor.config import StorySettings
from monitor.fingerprints import Fingerprint, fingerprints, likeness, normalise, numbers
from monitor.story_index import Found, Match, StoryIndex
from monitor.types import ALL_SERIES, Document, Scored, Series, SeriesKind

_MOST_CANDIDATES: Final = 64
_EXACT_KEY_BYTES: Final = 8
_KEY_CROWD: Final = 128


class Standing(StrEnum):
    """What a document is among the others. Only stories and copies count."""

    STORY = "story"
    COPY = "copy"
    DUPLICATE = "duplicate"
    STALE = "stale"


@dataclass(frozen=True, slots=True)
class Story:
    """What is remembered of a story: its first document's text and time, how many documents it has, where it was counted.

    `shingles` and `keys` are those of `Fingerprint`, without the band keys that too many stories share. `series` are the series
    that count it as a story already.
    """

    story_id: int
    first_received_ms: int
    last_received_ms: int
    documents: int
    shingles: bytes
    keys: bytes
    series: frozenset[Series]


@dataclass(frozen=True, slots=True)
class Placed:
    """A document with its standing.

    `document_key` names its uri and version. `new_series` count it as a story, `copy_series` as a copy; both are empty, and
    `story_id` is None, for a duplicate and for a stale document.
    """

    scored: Scored
    standing: Standing
    document_key: int
    story_id: int | None = None
    new_series: tuple[Series, ...] = ()
    copy_series: tuple[Series, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """The places of a batch, in its order, and every story that it began or changed, as it stands after the batch."""

    placed: tuple[Placed, ...] = ()
    stories: tuple[Story, ...] = ()


class StoryShelf(Protocol):
    """Where everything that was saved can be looked up."""

    def stories(self, ids: Collection[int]) -> Mapping[int, Story]:
        """The stories of these ids, as far as they exist."""

    def known_documents(self, keys: Collection[int]) -> set[int]:
        """Which of these document keys were saved before."""


def document_key(document: Document) -> int:
    """63 bits that name the document's uri and version, the same in every process. The first document's key names the story."""
    name = f"{len(document.uri)}:{document.uri}{document.version}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=8).digest()) >> 1


def series_of(scored: Scored) -> tuple[Series, ...]:
    """The series that a document belongs to: everything, its topic, every watched entity that it names."""
    entities = (Series(SeriesKind.ENTITY, entity) for entity in dict.fromkeys(scored.document.entities))
    return ALL_SERIES, Series(SeriesKind.TOPIC, scored.prediction.topic), *entities


class Stories:
    """Decides which documents tell the same story.

    The answer does not depend on how the documents are cut into batches. The index in memory holds what was accepted or restored;
    it may be told of a story twice, so other instances' stories can be restored at any time.
    """

    def __init__(self, settings: StorySettings, shelf: StoryShelf) -> None:
        self._settings = settings
        self._shelf = shelf
        self._index = StoryIndex()

    def __len__(self) -> int:
        return len(self._index)

    def place(self, scored: Sequence[Scored]) -> Placement:
        """Where each document belongs, in order. Changes nothing: call `accept` once the placement is saved."""
        keys = [document_key(item.document) for item in scored]
        seen = self._shelf.known_documents(set(keys))
        standings: list[Standing | None] = []
        for item, key in zip(scored, keys, strict=True):
            standings.append(Standing.DUPLICATE if key in seen else Standing.STALE if item.document.stale else None)
            seen.add(key)
        draft = self._draft([item.document for item, standing in zip(scored, standings, strict=True) if standing is None])
        placed = [
            draft.place(item, key) if standing is None else Placed(item, standing, key)
            for item, key, standing in zip(scored, keys, standings, strict=True)
        ]
        return Placement(tuple(placed), tuple(draft.changed.values()))

    def accept(self, placement: Placement) -> None:
        """The placement is saved: its stories take copies from now on."""
        self.restore((story.story_id, story.first_received_ms, story.keys) for story in placement.stories)

    def restore(self, stories: Iterable[tuple[int, int, bytes]]) -> None:
        """Takes up saved stories as (story id, first received, keys)."""
        self._index.add(stories)

    def forget_before(self, time_ms: int) -> None:
        """No document received at or after `time_ms` plus the stories' window will need a story that began before `time_ms`."""
        self._index.forget_before(time_ms)

    def _draft(self, documents: Sequence[Document]) -> _Draft:
        prints = fingerprints([normalise(document.headline, document.body, document.source) for document in documents])
        found = self._index.find([own.keys for own in prints])
        texts = [
            _Text(own, _best(_in_time(known.matches, document, self._settings.window)), known)
            for document, own, known in zip(documents, prints, found, strict=True)
        ]
        ids = {match.story_id for text in texts for match in text.matches}
        return _Draft(self._settings, dict(self._shelf.stories(ids)) if ids else {}, iter(texts))


@dataclass(frozen=True, slots=True)
class _Text:
    """A document's fingerprint, the saved stories that may be its own, and all that the index knew of it."""

    fingerprint: Fingerprint
    matches: list[Match]
    found: Found


@dataclass(slots=True)
class _Draft:
    """A batch being placed: the saved stories it may touch, and what it has begun and changed so far."""

    settings: StorySettings
    known: dict[int, Story]
    texts: Iterable[_Text]
    changed: dict[int, Story] = field(default_factory=dict)
    begun: dict[int, list[Story]] = field(default_factory=dict)
    """The batch's own new stories by key."""

    def place(self, scored: Scored, key: int) -> Placed:
        """Joins the most similar story, or begins one. The documents come in the order in which the texts were given."""
        text = next(iter(self.texts))
        own = series_of(scored)
        story = self._story_for(scored.document, text)
        if story is None:
            self._begin(scored.document, text, key, own)
            return Placed(scored, Standing.STORY, key, key, own)
        self._keep(_joined(story, scored.document, own))
        new = tuple(series for series in own if series not in story.series)
        return Placed(scored, Standing.COPY, key, story.story_id, new, tuple(series for series in own if series in story.series))

    def _story_for(self, document: Document, text: _Text) -> Story | None:
        matches = [*text.matches, *_in_time(self._begun_matches(text.fingerprint), document, self.settings.window)]
        ranked = []
        for match in _best(matches):
            story = self.known.get(match.story_id)
            rank = None if story is None else self._similarity(document, text.fingerprint, story)
            if rank is not None:
                ranked.append((-rank, match.first_received_ms, match.story_id))
        return self.known[min(ranked)[2]] if ranked else None

    def _similarity(self, document: Document, fingerprint: Fingerprint, story: Story) -> float | None:
        """How alike the texts are; None if they do not tell one story."""
        if story.keys[:_EXACT_KEY_BYTES] == fingerprint.keys[:_EXACT_KEY_BYTES]:
            return 2.0
        if _about_others(document, story):
            return None
        found = likeness(fingerprint.shingles, story.shingles)
        alike = found.jaccard >= self.settings.min_jaccard or found.containment >= self.settings.min_containment
        return found.jaccard if alike and not found.contradicts else None

    def _begun_matches(self, fingerprint: Fingerprint) -> list[Match]:
        shared: dict[int, int] = {}
        for key in numbers(fingerprint.keys).tolist():
            for story in self.begun.get(key, ()):
                shared[story.story_id] = shared.get(story.story_id, 0) + 1
        return [Match(story_id, self.known[story_id].first_received_ms, keys) for story_id, keys in shared.items()]

    def _begin(self, document: Document, text: _Text, story_id: int, series: Iterable[Series]) -> None:
        received_ms, keys = document.received_ms, numbers(text.fingerprint.keys)
        telling = [position == 0 or self._crowd(text, position, key) < _KEY_CROWD for position, key in enumerate(keys.tolist())]
        kept = keys[telling]
        story = Story(story_id, received_ms, received_ms, 1, text.fingerprint.shingles, kept.tobytes(), frozenset(series))
        for key in kept.tolist():
            self.begun.setdefault(key, []).append(story)
        self._keep(story)

    def _crowd(self, text: _Text, position: int, key: int) -> int:
        """How many stories have this band key: one that very many share finds a template, not a story, and slows each look-up."""
        return text.found.crowds[position] + len(self.begun.get(key, ()))

    def _keep(self, story: Story) -> None:
        self.known[story.story_id] = self.changed[story.story_id] = story


def _joined(story: Story, document: Document, series: Iterable[Series]) -> Story:
    return replace(
        story,
        last_received_ms=max(story.last_received_ms, document.received_ms),
        documents=story.documents + 1,
        series=story.series.union(series),
    )


def _about_others(document: Document, story: Story) -> bool:
    """Whether both name watched entities, and none in common."""
    entities = {series.name for series in story.series if series.kind is SeriesKind.ENTITY}
    return bool(entities) and bool(document.entities) and entities.isdisjoint(document.entities)


def _in_time(matches: Iterable[Match], document: Document, window: timedelta) -> list[Match]:
    """Stories whose first document is less than `window` away, on either side: partitions are not read in step."""
    window_ms = window // timedelta(milliseconds=1)
    return [match for match in matches if abs(document.received_ms - match.first_received_ms) < window_ms]


def _best(matches: Iterable[Match]) -> list[Match]:
    """The likeliest by the number of shared keys, few enough to compare in full."""
    return sorted(matches, key=lambda match: (-match.keys, match.first_received_ms, match.story_id))[:_MOST_CANDIDATES]
