"""Scored documents in, their places out: the first of a story, a copy of one, a repetition of itself, or too old to count."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from enum import StrEnum
from typing import Final, Protocol

from monitor.config import StorySettings
from monitor.fingerprints import likeness, numbers
from monitor.story_index import Match, StoryIndex
from monitor.types import ALL_SERIES, Scored, Series, SeriesKind

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

    `new_series` count it as a story, `copy_series` as a copy; both are empty, and `story_id` is None, for a duplicate and for a
    stale document.
    """

    scored: Scored
    standing: Standing
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


def series_of(scored: Scored) -> tuple[Series, ...]:
    """The series that a document belongs to: everything, its topic, every watched entity that it names."""
    entities = (Series(SeriesKind.ENTITY, entity) for entity in scored.entities)
    return ALL_SERIES, Series(SeriesKind.TOPIC, scored.topic), *entities


class Stories:
    """Decides which documents tell the same story.

    The answer depends on the documents and their order alone, not on how they are cut into batches, nor on how long the index keeps
    stories beyond the window. The index in memory holds what was accepted or restored.
    """

    def __init__(self, settings: StorySettings, shelf: StoryShelf) -> None:
        self._settings = settings
        self._shelf = shelf
        self._index = StoryIndex()

    def __len__(self) -> int:
        return len(self._index)

    def place(self, scored: Sequence[Scored]) -> Placement:
        """Where each document belongs, in order. Changes nothing: call `accept` once the placement is saved."""
        seen = self._shelf.known_documents({item.document_key for item in scored})
        standings: list[Standing | None] = []
        for item in scored:
            standings.append(Standing.DUPLICATE if item.document_key in seen else Standing.STALE if item.stale else None)
            seen.add(item.document_key)
        draft = self._draft([item for item, standing in zip(scored, standings, strict=True) if standing is None])
        placed = [
            draft.place(item) if standing is None else Placed(item, standing)
            for item, standing in zip(scored, standings, strict=True)
        ]
        return Placement(tuple(placed), tuple(draft.changed.values()))

    def accept(self, placement: Placement) -> None:
        """The placement is saved: its stories take copies from now on."""
        self.restore((story.story_id, story.first_received_ms, story.keys) for story in placement.stories)

    def restore(self, stories: Iterable[tuple[int, int, bytes]]) -> None:
        """Takes up saved stories as (story id, first received, keys)."""
        self._index.add(stories)

    def clear(self) -> None:
        """Forgets everything that was accepted or restored."""
        self._index = StoryIndex()

    def forget_before(self, time_ms: int) -> None:
        """No document received at or after `time_ms` plus the stories' window will need a story that began before `time_ms`."""
        self._index.forget_before(time_ms)

    def _draft(self, scored: Sequence[Scored]) -> _Draft:
        window_ms = self._settings.window // timedelta(milliseconds=1)
        found = self._index.find([item.keys for item in scored], [item.received_ms for item in scored], window_ms)
        texts = [_Text(_best(known.matches), known.crowds) for known in found]
        ids = {match.story_id for text in texts for match in text.matches}
        return _Draft(self._settings, dict(self._shelf.stories(ids)) if ids else {}, iter(texts))


@dataclass(frozen=True, slots=True)
class _Text:
    """The saved stories that may be a document's own, and how many saved stories have each of its keys."""

    matches: list[Match]
    crowds: list[int]


@dataclass(slots=True)
class _Draft:
    """A batch being placed: the saved stories it may touch, and what it has begun and changed so far."""

    settings: StorySettings
    known: dict[int, Story]
    texts: Iterable[_Text]
    changed: dict[int, Story] = field(default_factory=dict)
    begun: dict[int, list[Story]] = field(default_factory=dict)
    """The batch's own new stories by key."""

    def place(self, scored: Scored) -> Placed:
        """Joins the most similar story, or begins one. The documents come in the order in which the texts were given."""
        text = next(iter(self.texts))
        own = series_of(scored)
        story = self._story_for(scored, text)
        if story is None:
            self._begin(scored, text, own)
            return Placed(scored, Standing.STORY, scored.document_key, own)
        self._keep(_joined(story, scored, own))
        new = tuple(series for series in own if series not in story.series)
        return Placed(scored, Standing.COPY, story.story_id, new, tuple(series for series in own if series in story.series))

    def _story_for(self, scored: Scored, text: _Text) -> Story | None:
        matches = [*text.matches, *self._begun_matches(scored)]
        ranked = []
        for match in _best(matches):
            story = self.known.get(match.story_id)
            rank = None if story is None else self._similarity(scored, story)
            if rank is not None:
                ranked.append((-rank, match.first_received_ms, match.story_id))
        return self.known[min(ranked)[2]] if ranked else None

    def _similarity(self, scored: Scored, story: Story) -> float | None:
        """How alike the texts are; None if they do not tell one story."""
        if story.keys[:_EXACT_KEY_BYTES] == scored.keys[:_EXACT_KEY_BYTES]:
            return 2.0
        if _about_others(scored, story):
            return None
        found = likeness(scored.shingles, story.shingles)
        alike = found.jaccard >= self.settings.min_jaccard or found.containment >= self.settings.min_containment
        return found.jaccard if alike and not found.contradicts else None

    def _begun_matches(self, scored: Scored) -> list[Match]:
        shared: dict[int, int] = {}
        for key in numbers(scored.keys).tolist():
            for story in self._begun_with(key, scored.received_ms):
                shared[story.story_id] = shared.get(story.story_id, 0) + 1
        return [Match(story_id, self.known[story_id].first_received_ms, keys) for story_id, keys in shared.items()]

    def _begun_with(self, key: int, received_ms: int) -> list[Story]:
        """The batch's own stories with this key that are less than the window away."""
        window_ms = self.settings.window // timedelta(milliseconds=1)
        return [story for story in self.begun.get(key, ()) if abs(received_ms - story.first_received_ms) < window_ms]

    def _begin(self, scored: Scored, text: _Text, series: Iterable[Series]) -> None:
        received_ms, keys = scored.received_ms, numbers(scored.keys)
        # A key that very many stories share finds a template, not a story, and slows each look-up.
        telling = [
            text.crowds[position] + len(self._begun_with(key, received_ms)) < _KEY_CROWD
            for position, key in enumerate(keys.tolist())
        ]
        kept = keys[telling]
        story = Story(scored.document_key, received_ms, received_ms, 1, scored.shingles, kept.tobytes(), frozenset(series))
        for key in kept.tolist():
            self.begun.setdefault(key, []).append(story)
        self._keep(story)

    def _keep(self, story: Story) -> None:
        self.known[story.story_id] = self.changed[story.story_id] = story


def _joined(story: Story, scored: Scored, series: Iterable[Series]) -> Story:
    return replace(
        story,
        last_received_ms=max(story.last_received_ms, scored.received_ms),
        documents=story.documents + 1,
        series=story.series.union(series),
    )


def _about_others(scored: Scored, story: Story) -> bool:
    """Whether both name watched entities, and none in common."""
    entities = {series.name for series in story.series if series.kind is SeriesKind.ENTITY}
    return bool(entities) and bool(scored.toward) and entities.isdisjoint(scored.entities)


def _best(matches: Iterable[Match]) -> list[Match]:
    """The likeliest by the number of shared keys, few enough to compare in full."""
    return sorted(matches, key=lambda match: (-match.keys, match.first_received_ms, match.story_id))[:_MOST_CANDIDATES]
