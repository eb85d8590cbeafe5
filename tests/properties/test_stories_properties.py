from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.buckets import fold
from monitor.config import StorySettings
from monitor.fingerprints import likeness
from monitor.scoring import score
from monitor.stories import Placed, Placement, Standing, Stories, series_of
from monitor.types import ALL_SERIES, Document, Opinion, Partition, Prediction, PublicationStatus, SeriesKind

WINDOW_MS = 48 * 3_600_000
TEXTS = [
    "Regulator fines Halden Bank over lax checks",
    "UPDATE 1-Regulator fines Halden Bank over lax checks, bank sorry",
    "Regulator fines Halden Bank over lax checks in Oslo",
    "Broker cuts Halden Bank to sell on weak capital",
    "Broker cuts Norvik Bank to sell on weak capital",
    "Halden Bank Q2 profit rises 12 pct",
    "Halden Bank Q2 profit rises 40 pct",
    "???",
]


class Shelf:
    def __init__(self):
        self.by_id = {}
        self.documents = set()

    def stories(self, ids):
        return {story_id: self.by_id[story_id] for story_id in ids if story_id in self.by_id}

    def known_documents(self, keys):
        return self.documents & set(keys)

    def save(self, placement):
        self.by_id.update({story.story_id: story for story in placement.stories})
        self.documents.update(placed.scored.document_key for placed in placement.placed)


documents = st.builds(
    lambda number, text, received_ms, entities, topic, stale, partition: score(
        [
            Document(
                Partition("news", partition),
                0,
                1,
                received_ms,
                f"urn:{number}",
                "1",
                text,
                "",
                "en",
                "wire",
                PublicationStatus.USABLE,
                None,
                stale=stale,
                entities=tuple(entities),
            )
        ],
        [Prediction(topic, (1.0,), False, Opinion("negative", (0.8, 0.1, 0.1)))],
        "model",
    )[0],
    st.integers(0, 40),
    st.sampled_from(TEXTS),
    st.sampled_from([0, 1, WINDOW_MS - 1, WINDOW_MS, WINDOW_MS + 1, 2 * WINDOW_MS]),
    st.lists(st.sampled_from(["halden", "norvik"]), unique=True),
    st.sampled_from(["fraud", "earnings"]),
    st.sampled_from([False, False, False, True]),
    st.integers(0, 1),
)
histories = st.lists(documents, max_size=30)


def run(history, cuts, restart_at=None):
    """The placements of a history cut into batches, with a restart before one of them."""
    shelf = Shelf()
    stories = Stories(StorySettings(), shelf)
    placed: list[Placed] = []
    edges = sorted({0, len(history), *(cut for cut in cuts if cut < len(history))})
    for number, (start, end) in enumerate(pairwise(edges)):
        if number == restart_at:
            stories = Stories(StorySettings(), shelf)
            stories.restore((story.story_id, story.first_received_ms, story.keys) for story in shelf.by_id.values())
        placement = stories.place(history[start:end])
        shelf.save(placement)
        stories.accept(placement)
        placed += placement.placed
    return placed, shelf


def expected(history):
    """Every document's standing, story and new series from the definition alone, comparing with every story there is."""
    seen, stories, result = set(), [], []
    for scored in history:
        key = scored.document_key
        if key in seen or scored.stale:
            result.append((Standing.DUPLICATE if key in seen else Standing.STALE, None, ()))
            seen.add(key)
            continue
        seen.add(key)
        joinable = []
        for story_id, first_ms, first, series in stories:
            found = likeness(scored.shingles, first.shingles)
            exact = scored.keys[:8] == first.keys[:8]
            about = {each.name for each in series if each.kind is SeriesKind.ENTITY}
            others = bool(about) and bool(scored.entities) and not about & set(scored.entities)
            near = (found.jaccard >= 0.5 or found.containment >= 0.8) and not found.contradicts and not others
            if abs(scored.received_ms - first_ms) < WINDOW_MS and (exact or near):
                joinable.append(((not exact, -found.jaccard, first_ms, story_id), story_id, series))
        own_series = series_of(scored)
        if joinable:
            _, story_id, series = min(joinable, key=lambda item: item[0])
            result.append((Standing.COPY, story_id, tuple(each for each in own_series if each not in series)))
            series.update(own_series)
        else:
            result.append((Standing.STORY, key, own_series))
            stories.append((key, scored.received_ms, scored, set(own_series)))
    return result


@settings(max_examples=100, deadline=None)
@given(histories, st.sets(st.integers(1, 29), max_size=6), st.one_of(st.none(), st.integers(0, 6)))
def test_neither_batches_nor_a_restart_change_where_a_document_belongs(history, cuts, restart_at):
    whole, shelf = run(history, ())
    parts, shelf_of_parts = run(history, cuts, restart_at)
    assert parts == whole
    assert shelf_of_parts.by_id == shelf.by_id


@settings(max_examples=100, deadline=None)
@given(histories)
def test_documents_are_placed_as_if_compared_with_every_story(history):
    """Near copies share a band only with high probability, so the texts here are those whose keys are known to meet."""
    placed, _ = run(history, ())
    assert [(item.standing, item.story_id, item.new_series) for item in placed] == expected(history)


@settings(max_examples=100, deadline=None)
@given(histories, st.sets(st.integers(1, 29), max_size=6))
def test_everything_consumed_is_a_story_a_copy_a_duplicate_or_stale(history, cuts):
    placed, shelf = run(history, cuts)
    standings = Counter(item.standing for item in placed)
    assert sum(standings.values()) == len(history)
    assert standings[Standing.STORY] == len(shelf.by_id)
    assert sum(story.documents for story in shelf.by_id.values()) == standings[Standing.STORY] + standings[Standing.COPY]
    counted = Counter((item.story_id, series) for item in placed for series in item.new_series)
    assert set(counted.values()) <= {1}
    for story in shelf.by_id.values():
        assert {series for story_id, series in counted if story_id == story.story_id} == story.series
    for item in placed:
        if item.standing in (Standing.STORY, Standing.COPY):
            assert sorted((*item.new_series, *item.copy_series)) == sorted(series_of(item.scored))
    everything = [bucket.count for bucket in fold(Placement(tuple(placed))) if bucket.series == ALL_SERIES]
    assert sum(sum(count.stories) for count in everything) == standings[Standing.STORY]
    assert sum(sum(count.copies) for count in everything) == standings[Standing.COPY]
