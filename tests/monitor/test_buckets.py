from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.buckets import fold
from monitor.scoring import score
from monitor.stories import Placed, Placement, Standing
from monitor.types import (
    ALL_SERIES,
    MINUTE_MS,
    TONES,
    Bucket,
    Count,
    Document,
    Opinion,
    Partition,
    Prediction,
    PublicationStatus,
    Series,
    SeriesKind,
)

HALDEN, NORVIK, TARVOS = (Series(SeriesKind.ENTITY, name) for name in ("halden", "norvik", "tarvos"))
LEFT, RIGHT = Partition("news", 0), Partition("news", 1)


BAD, MIXED, GOOD = (0.8, 0.1, 0.1), (0.2, 0.5, 0.3), (0.05, 0.15, 0.8)


def opinion(probabilities, *, uncertain=False):
    return Opinion(("negative", "neutral", "positive")[probabilities.index(max(probabilities))], probabilities, uncertain)


def placed(received_ms, new=(), copies=(), *, probabilities=BAD, uncertain=False, toward=None, partition=LEFT):
    entities = tuple(series.name for series in (*new, *copies) if series.kind is SeriesKind.ENTITY)
    news = Document(
        partition, 0, 1, received_ms, "urn:1", "1", "h", "", "en", "wire", PublicationStatus.USABLE, None, entities=entities
    )
    prediction = Prediction("fraud", (1.0,), False, opinion(probabilities, uncertain=uncertain), toward or {})
    (scored,) = score([news], [prediction], "model")
    return Placed(scored, Standing.STORY, 1, tuple(new), tuple(copies))


def test_a_story_adds_its_tone_and_its_score_a_copy_only_its_tone():
    placement = Placement(
        (
            placed(30_000, new=[ALL_SERIES]),
            placed(59_999, new=[HALDEN], copies=[ALL_SERIES], probabilities=(0.1, 0.2, 0.7)),
            placed(60_000, new=[ALL_SERIES], uncertain=True),
        )
    )
    assert fold(placement) == (
        Bucket(LEFT, 0, ALL_SERIES, Count((1, 0, 0, 0), (0, 0, 1, 0), -7_000)),
        Bucket(LEFT, 0, HALDEN, Count((0, 0, 1, 0), (0, 0, 0, 0), 6_000)),
        Bucket(LEFT, 60_000, ALL_SERIES, Count((0, 0, 0, 1), (0, 0, 0, 0), -7_000)),
    )


def test_two_companies_of_one_headline_are_each_counted_with_their_own_fortune():
    fraud = Series(SeriesKind.TOPIC, "fraud")
    toward = {"halden": opinion(BAD), "norvik": opinion(GOOD), "tarvos": opinion(MIXED, uncertain=True)}
    item = placed(0, [ALL_SERIES, fraud, HALDEN, TARVOS], [NORVIK], probabilities=MIXED, toward=toward)
    assert fold(Placement((item,))) == (
        Bucket(LEFT, 0, ALL_SERIES, Count((0, 1, 0, 0), (0, 0, 0, 0), 1_000)),
        Bucket(LEFT, 0, HALDEN, Count((1, 0, 0, 0), (0, 0, 0, 0), -7_000)),
        Bucket(LEFT, 0, NORVIK, Count((0, 0, 0, 0), (0, 0, 1, 0), 0)),
        Bucket(LEFT, 0, TARVOS, Count((0, 0, 0, 1), (0, 0, 0, 0), 1_000)),
        Bucket(LEFT, 0, fraud, Count((0, 1, 0, 0), (0, 0, 0, 0), 1_000)),
    )


def test_an_entity_without_an_opinion_of_its_own_is_counted_with_the_document_s():
    item = placed(0, [HALDEN, NORVIK], toward={"norvik": opinion(GOOD)})
    assert [bucket.count.stories for bucket in fold(Placement((item,)))] == [(1, 0, 0, 0), (0, 0, 1, 0)]


def test_partitions_keep_their_own_buckets_and_come_sorted():
    placement = Placement((placed(0, new=[ALL_SERIES], partition=RIGHT), placed(0, new=[ALL_SERIES], partition=LEFT)))
    assert [bucket.partition for bucket in fold(placement)] == [LEFT, RIGHT]


def test_a_document_that_counts_nowhere_leaves_no_bucket():
    assert fold(Placement((placed(0),))) == ()
    assert fold(Placement()) == ()


SERIES = [ALL_SERIES, HALDEN, Series(SeriesKind.TOPIC, "fraud")]
many_placed = st.lists(
    st.builds(
        lambda received_ms, split, probabilities, uncertain, toward, partition: placed(
            received_ms,
            [series for series, part in zip(SERIES, split, strict=True) if part == 1],
            [series for series, part in zip(SERIES, split, strict=True) if part == 2],
            probabilities=probabilities,
            uncertain=uncertain,
            toward=toward,
            partition=partition,
        ),
        st.sampled_from([0, 1, 59_999, 60_000, 119_999, 120_000]),
        st.tuples(*[st.integers(0, 2)] * 3),
        st.sampled_from([BAD, MIXED, GOOD]),
        st.booleans(),
        st.dictionaries(st.sampled_from(["halden", "norvik"]), st.builds(opinion, st.sampled_from([BAD, MIXED, GOOD]))),
        st.sampled_from([LEFT, RIGHT]),
    ),
    max_size=25,
)


def summed(buckets):
    totals: dict[tuple[Partition, int, Series], Count] = {}
    for bucket in buckets:
        key = (bucket.partition, bucket.minute_ms, bucket.series)
        totals[key] = totals.get(key, Count()) + bucket.count
    return totals


@settings(max_examples=60, deadline=None)
@given(many_placed, st.randoms(use_true_random=False), st.integers(0, 25))
def test_neither_order_nor_batches_change_the_counts(documents, random, cut):
    whole = fold(Placement(tuple(documents)))
    shuffled = random.sample(documents, len(documents))
    assert fold(Placement(tuple(shuffled))) == whole
    parts = fold(Placement(tuple(shuffled[:cut]))) + fold(Placement(tuple(shuffled[cut:])))
    assert summed(parts) == summed(whole)
    assert list(summed(whole)) == sorted(summed(whole))
    assert len(summed(whole)) == len(whole)


@settings(max_examples=60, deadline=None)
@given(many_placed)
def test_every_document_is_counted_once_in_each_of_its_series(documents):
    stories, copies, scores = Counter(), Counter(), Counter()
    for item in documents:
        minute_ms = item.scored.received_ms // MINUTE_MS * MINUTE_MS
        partition = item.scored.partition
        own = {series: dict(item.scored.toward).get(series.name, item.scored.stance) for series in SERIES}
        for series in item.new_series:
            stories[partition, minute_ms, series, own[series].tone] += 1
            scores[partition, minute_ms, series] += own[series].score_units
        for series in item.copy_series:
            copies[partition, minute_ms, series, own[series].tone] += 1
    for bucket in fold(Placement(tuple(documents))):
        key = (bucket.partition, bucket.minute_ms, bucket.series)
        assert bucket.count.stories == tuple(stories.pop((*key, tone), 0) for tone in TONES)
        assert bucket.count.copies == tuple(copies.pop((*key, tone), 0) for tone in TONES)
        assert bucket.count.score_units == scores[key]
    assert not stories
    assert not copies
