from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from monitor.config import StorySettings
from monitor.fingerprints import numbers
from monitor.scoring import document_key, score
from monitor.stories import Placement, Standing, Stories, series_of
from monitor.story_index import Found, Match, StoryIndex
from monitor.types import ALL_SERIES, Document, Opinion, Partition, Prediction, PublicationStatus, Series, SeriesKind

HOUR_MS = 3_600_000
WINDOW_MS = 48 * HOUR_MS
FINED = "Regulator fines Halden Bank over lax checks"
FIRE = "Fire shuts Orsk refinery, no injuries reported"
FRAUD = Series(SeriesKind.TOPIC, "fraud")


class Shelf:
    """Keeps what was saved in two dictionaries."""

    def __init__(self):
        self.by_id = {}
        self.documents = set()
        self.asked = []

    def stories(self, ids):
        self.asked.append(set(ids))
        return {story_id: self.by_id[story_id] for story_id in ids if story_id in self.by_id}

    def known_documents(self, keys):
        return self.documents & set(keys)

    def save(self, placement):
        self.by_id.update({story.story_id: story for story in placement.stories})
        self.documents.update(placed.scored.document_key for placed in placement.placed)


class News:
    """A feed whose documents are placed, saved and accepted one batch after the other."""

    def __init__(self, **settings):
        self.shelf = Shelf()
        self.stories = Stories(StorySettings(**settings), self.shelf)

    def place(self, *scored):
        placement = self.stories.place(scored)
        self.shelf.save(placement)
        self.stories.accept(placement)
        return placement.placed

    def one(self, scored):
        return self.place(scored)[0]


def scored(uri, headline, body="", *, received_ms=0, entities=(), topic="fraud", stale=False, version="1", source="wire"):
    news = Document(
        Partition("news", 0),
        0,
        1,
        received_ms,
        uri,
        version,
        headline,
        body,
        "en",
        source,
        PublicationStatus.USABLE,
        None,
        stale=stale,
        entities=entities,
    )
    return score([news], [Prediction(topic, (1.0,), False, Opinion("negative", (0.8, 0.1, 0.1)))], "model")[0]


def entity(name):
    return Series(SeriesKind.ENTITY, name)


def test_the_first_document_of_a_story_is_named_by_it():
    placed = News().one(scored("urn:1", FINED, entities=("halden",)))
    assert placed.standing is Standing.STORY
    assert placed.story_id == placed.scored.document_key == document_key("urn:1", "1")
    assert placed.new_series == (ALL_SERIES, FRAUD, entity("halden"))
    assert placed.copy_series == ()


def test_a_copy_counts_as_reach_not_as_news():
    news = News()
    first = news.one(scored("urn:1", FINED))
    copy = news.one(scored("urn:2", f"UPDATE 1-{FINED}, says sorry"))
    assert copy.standing is Standing.COPY
    assert copy.story_id == first.story_id
    assert copy.new_series == ()
    assert copy.copy_series == (ALL_SERIES, FRAUD)


def test_copies_in_one_batch_join_too():
    first, copy, other = News().place(scored("urn:1", FINED), scored("urn:2", f"RPT-{FINED}"), scored("urn:3", FIRE))
    assert (first.standing, copy.standing, other.standing) == (Standing.STORY, Standing.COPY, Standing.STORY)
    assert copy.story_id == first.story_id != other.story_id


def test_a_copy_that_first_names_a_series_is_news_there():
    news = News()
    news.one(scored("urn:1", FINED, topic="fraud"))
    second = news.one(scored("urn:2", FINED, topic="fines", entities=("halden",)))
    assert second.standing is Standing.COPY
    assert second.new_series == (Series(SeriesKind.TOPIC, "fines"), entity("halden"))
    assert second.copy_series == (ALL_SERIES,)
    third = news.one(scored("urn:3", FINED, topic="fines", entities=("halden", "norvik")))
    assert third.new_series == (entity("norvik"),)
    assert third.copy_series == (ALL_SERIES, Series(SeriesKind.TOPIC, "fines"), entity("halden"))


def test_the_same_document_twice_counts_once():
    news = News()
    first, again = news.place(scored("urn:1", FINED), scored("urn:1", FINED))
    assert (first.standing, again.standing) == (Standing.STORY, Standing.DUPLICATE)
    later = news.one(scored("urn:1", FIRE, received_ms=10 * WINDOW_MS))
    assert later.standing is Standing.DUPLICATE
    assert later.story_id is None
    assert later.new_series == later.copy_series == ()


def test_a_new_version_of_a_document_is_a_copy():
    news = News()
    news.one(scored("urn:1", FINED, version="1"))
    assert news.one(scored("urn:1", FINED, version="2")).standing is Standing.COPY


def test_uri_and_version_do_not_run_into_each_other():
    one, other = document_key("urn:1", "12"), document_key("urn:11", "2")
    assert one != other
    assert 0 <= one < 2**63


def test_a_stale_document_counts_nowhere_and_begins_nothing():
    news = News()
    stale = news.one(scored("urn:1", FINED, stale=True))
    assert (stale.standing, stale.story_id, stale.new_series) == (Standing.STALE, None, ())
    assert news.one(scored("urn:2", FINED)).standing is Standing.STORY
    assert news.one(scored("urn:3", FINED, stale=True)).standing is Standing.STALE
    assert news.one(scored("urn:1", FINED, stale=True)).standing is Standing.DUPLICATE


@pytest.mark.parametrize(
    ("after_ms", "standing"),
    [(WINDOW_MS - 1, Standing.COPY), (WINDOW_MS, Standing.STORY), (1 - WINDOW_MS, Standing.COPY), (-WINDOW_MS, Standing.STORY)],
)
def test_a_story_takes_copies_for_its_window_on_either_side_of_its_first_document(after_ms, standing):
    for apart in (False, True):
        news = News()
        documents = (scored("urn:1", FINED, received_ms=1_000_000), scored("urn:2", FINED, received_ms=1_000_000 + after_ms))
        placed = [news.one(document) for document in documents] if apart else news.place(*documents)
        assert placed[1].standing is standing


def test_copies_do_not_lengthen_the_life_of_a_story():
    news = News()
    news.one(scored("urn:1", FINED, received_ms=0))
    news.one(scored("urn:2", FINED, received_ms=WINDOW_MS - 1))
    assert news.one(scored("urn:3", FINED, received_ms=WINDOW_MS)).standing is Standing.STORY


def test_of_two_stories_of_one_text_the_earlier_takes_the_copy():
    news = News()
    first = news.one(scored("urn:1", FINED, received_ms=0))
    second = news.one(scored("urn:2", FINED, received_ms=WINDOW_MS))
    assert second.standing is Standing.STORY
    assert news.one(scored("urn:3", FINED, received_ms=WINDOW_MS // 2)).story_id == first.story_id


def test_the_most_similar_story_takes_the_copy():
    news = News()
    near = "Regulator fines Halden Bank over lax checks in Oslo branch office"
    news.one(scored("urn:1", FINED, entities=("halden",)))
    second = news.one(scored("urn:2", near, entities=("norvik",)))
    assert second.standing is Standing.STORY
    assert news.one(scored("urn:3", f"{near} today")).story_id == second.story_id


def test_documents_about_different_watched_entities_are_never_one_story():
    news = News()
    news.one(scored("urn:1", "Broker cuts Halden Bank to sell on weak capital", entities=("halden",)))
    other = news.one(scored("urn:2", "Broker cuts Norvik Bank to sell on weak capital", entities=("norvik",)))
    assert other.standing is Standing.STORY
    both = news.one(scored("urn:3", "Broker cuts Norvik Bank to sell on weak capital ratios", entities=("norvik", "halden")))
    assert both.standing is Standing.COPY
    nobody = news.one(scored("urn:4", "Broker cuts Halden Bank to sell on weak capital rules"))
    assert nobody.standing is Standing.COPY


def test_an_exact_repetition_always_joins():
    news = News()
    first = news.one(scored("urn:1", FINED, entities=("halden",)))
    assert news.one(scored("urn:2", FINED, entities=("norvik",))).story_id == first.story_id
    nothing = news.one(scored("urn:3", "???"))
    assert news.one(scored("urn:4", "???")).story_id == nothing.story_id
    assert news.one(scored("urn:5", "!!!")).standing is Standing.STORY


def test_the_limits_are_the_configured_ones():
    longer = f"{FINED} and weak controls at three branches"
    strict, loose = News(min_jaccard=0.9, min_containment=1.0), News(min_jaccard=0.9, min_containment=0.5)
    for news, standing in ((strict, Standing.STORY), (loose, Standing.COPY)):
        news.one(scored("urn:1", FINED))
        assert news.one(scored("urn:2", f"Norwegian {longer}")).standing is standing


def test_a_story_knows_its_documents_its_times_and_its_series():
    news = News()
    placed = news.one(scored("urn:1", FINED, received_ms=500))
    news.place(
        scored("urn:2", FINED, received_ms=900, entities=("halden",)),
        scored("urn:3", FINED, received_ms=400, topic="fines"),
    )
    story = news.shelf.by_id[placed.story_id]
    assert (story.first_received_ms, story.last_received_ms, story.documents) == (500, 900, 3)
    assert story.series == {ALL_SERIES, FRAUD, Series(SeriesKind.TOPIC, "fines"), entity("halden")}


def test_a_placement_names_each_story_that_it_touches_once():
    news = News()
    placement = news.stories.place([scored("urn:1", FINED), scored("urn:2", FINED), scored("urn:3", FIRE)])
    assert [story.documents for story in placement.stories] == [2, 1]


def test_placing_changes_nothing_until_it_is_accepted():
    news = News()
    batch = [scored("urn:1", FINED), scored("urn:2", FINED)]
    assert news.stories.place(batch) == news.stories.place(batch)
    assert len(news.stories) == 0


def test_restored_stories_take_copies_and_may_be_restored_twice():
    news = News()
    first = news.one(scored("urn:1", FINED))
    restarted = Stories(StorySettings(), news.shelf)
    saved = [(story.story_id, story.first_received_ms, story.keys) for story in news.shelf.by_id.values()]
    restarted.restore(saved)
    restarted.restore(saved)
    assert len(restarted) == 1
    placed = restarted.place([scored("urn:2", FINED)]).placed[0]
    assert (placed.standing, placed.story_id) == (Standing.COPY, first.story_id)


def test_a_story_that_the_store_has_pruned_is_passed_over():
    news = News()
    news.one(scored("urn:1", FINED))
    news.shelf.by_id.clear()
    assert news.one(scored("urn:2", FINED)).standing is Standing.STORY


def test_forgotten_stories_take_no_copies():
    news = News()
    news.one(scored("urn:1", FINED, received_ms=1_000))
    news.stories.forget_before(1_000)
    assert len(news.stories) == 1
    news.stories.forget_before(1_001)
    assert len(news.stories) == 0
    assert news.one(scored("urn:2", FINED, received_ms=1_000)).standing is Standing.STORY


def test_only_stories_that_may_match_are_looked_up():
    news = News()
    first = news.one(scored("urn:1", FINED))
    news.one(scored("urn:2", FIRE))
    assert news.shelf.asked == []
    news.one(scored("urn:3", FINED))
    assert news.shelf.asked == [{first.story_id}]


def test_an_empty_batch_has_an_empty_placement():
    assert News().stories.place([]) == Placement()


def test_an_entity_named_twice_is_one_series():
    assert series_of(scored("urn:1", FINED, entities=("halden", "halden"))) == (ALL_SERIES, FRAUD, entity("halden"))


def test_a_long_text_joins_its_reprint_with_boilerplate():
    words = " ".join(f"w{number * 7 % 1_009}" for number in range(200))
    news = News()
    news.one(scored("urn:1", "Long read", words))
    reprint = " ".join(f"Notice{number}" for number in range(40))
    assert news.one(scored("urn:2", "Long read again", f"{words} {reprint}")).standing is Standing.COPY


def packed(*keys):
    return np.array(keys, dtype="<u8").tobytes()


def test_the_index_counts_shared_keys_over_all_its_runs():
    index = StoryIndex()
    for number in range(300):
        index.add([(number, number * 10, packed(number, 1_000_000 + number % 3, 2_000_000))])
    assert len(index._runs) < 10
    found = index.find([packed(7, 1_000_001, 9_999), packed(9), packed(8_888)], [0, 0, 0], 10_000)
    assert Match(7, 70, 2) in found[0].matches
    assert found[0].crowds == [1, 100, 0]
    assert sorted(match.story_id for match in found[0].matches) == [number for number in range(300) if number % 3 == 1]
    assert found[1] == Found([Match(9, 90, 1)], [1])
    assert found[2] == Found([], [0])
    assert len(index.find([packed(2_000_000)], [0], 10_000)[0].matches) == 300


def test_the_index_forgets_in_bulk():
    index = StoryIndex()
    index.add((number, number, packed(number)) for number in range(80))
    index.forget_before(9)
    assert len(index) == 80
    index.forget_before(10)
    assert len(index) == 70
    assert index.find([packed(9), packed(10)], [0, 0], 100) == [Found([], [0]), Found([Match(10, 10, 1)], [1])]
    index.add([(9, 9, packed(9)), (80, 80, packed(80))])
    assert index.find([packed(9), packed(80)], [0, 0], 100) == [Found([Match(9, 9, 1)], [1]), Found([Match(80, 80, 1)], [1])]
    index.forget_before(1_000)
    assert len(index) == 0
    assert index.find([packed(80)], [0], 100) == [Found([], [0])]


def test_the_index_knows_nothing_of_stories_that_are_a_window_away():
    index = StoryIndex()
    index.add((number, number * 10, packed(5)) for number in range(10))
    early, late = index.find([packed(5), packed(5)], [30, 60], 11)
    assert [sorted(match.story_id for match in found.matches) for found in (early, late)] == [[2, 3, 4], [5, 6, 7]]
    assert (early.crowds, late.crowds) == ([3], [3])


def test_the_index_costs_half_a_kilobyte_a_story():
    index = StoryIndex()
    keys = np.random.default_rng(1).integers(0, 2**63, size=(5_000, 33)).astype("<u8")
    index.add((number, number, row.tobytes()) for number, row in enumerate(keys))
    assert index.memory_bytes / 5_000 < 500


def flood(count):
    return [
        scored(f"urn:{number}", f"Halden Bank notes series {number} priced at par in Oslo")
        for number in range(1_000, 1_000 + count)
    ]


def test_a_flood_of_one_template_is_told_apart_and_the_true_copy_found():
    news, documents = News(), flood(600)
    placed = [item for start in range(0, 600, 50) for item in news.place(*documents[start : start + 50])]
    assert all(item.standing is Standing.STORY for item in placed)
    again = scored("urn:again", f"UPDATE 1-{documents[555].headline}, demand strong")
    assert news.one(again).story_id == placed[555].story_id


def test_a_key_that_too_many_stories_share_is_not_kept():
    saved = []
    for batch in (1, 64, 300):
        news, documents = News(), [*flood(300), scored("urn:nothing", "???"), scored("urn:late", "???", received_ms=WINDOW_MS)]
        for start in range(0, len(documents), batch):
            news.place(*documents[start : start + batch])
        saved.append(news.shelf.by_id)
        crowds = Counter(key for story in news.shelf.by_id.values() for key in numbers(story.keys).tolist())
        assert max(crowds.values()) == 128
        assert len(crowds) > 33
    assert saved[0] == saved[1] == saved[2]


def test_a_text_that_returns_after_every_window_is_news_each_time_and_finds_its_copy():
    news = News()
    for number in range(140):
        assert news.one(scored(f"urn:{number}", FINED, received_ms=number * WINDOW_MS)).standing is Standing.STORY
    last = news.one(scored("urn:copy", FINED, received_ms=139 * WINDOW_MS))
    assert last.standing is Standing.COPY
