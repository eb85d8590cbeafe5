"""The ledger saves a batch as a whole, and only for who owns the partition."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from monitor.errors import Fenced
from monitor.sources.protocol import Interruption, InterruptionKind
from monitor.store.dead_letters import DeadLetters
from monitor.store.engine import open_engine
from monitor.store.ledger import Advance, Claim, Ledger, Saving
from monitor.store.schema import document, mention
from monitor.stories import Placed, Placement, Standing
from monitor.types import (
    ALL_SERIES,
    Bucket,
    Count,
    Document,
    Opinion,
    Partition,
    Prediction,
    PublicationStatus,
    Rejected,
    RejectReason,
    Scored,
    Series,
    SeriesKind,
)

PARTITION = Partition("news.raw", 3)


@pytest.fixture
def ledger(engine):
    return Ledger(engine)


def rejected(offset, partition=PARTITION):
    return Rejected(partition, offset, offset + 1, 60_000, RejectReason.NOT_JSON, "no JSON", b"{", 1)


def saving(claim: Claim, next_offset: int, *, minute_ms=0) -> Saving:
    """One batch that takes a claim to `next_offset`: every record of it a dead letter, and a bucket that counts them."""
    begin = claim.next_offset or 0
    records = next_offset - begin
    advance = Advance(
        partition=claim.partition,
        epoch=claim.epoch,
        expected_offset=claim.next_offset,
        next_offset=next_offset,
        identity="log",
        time_ms=60_000,
        consumed=records,
        counted=0,
        stale=0,
        duplicate=0,
        rejected=records,
    )
    count = Count((records, 0, 0, 0), (0, 0, 0, 0), -records)
    return Saving(
        advances=(advance,),
        placement=Placement(),
        buckets=(Bucket(claim.partition, minute_ms, ALL_SERIES, count),),
        rejected=tuple(rejected(offset, claim.partition) for offset in range(begin, next_offset)),
        model="model",
    )


@dataclass
class Writer:
    """One instance: it writes under the claim that it believes in."""

    name: str
    ledger: Ledger
    claim: Claim | None = None
    offset: int = field(default=0)

    def take_over(self):
        self.claim = self.ledger.claim(PARTITION, self.name)

    def save(self, records: int):
        assert self.claim is not None
        next_offset = (self.claim.next_offset or 0) + records
        self.ledger.save(saving(self.claim, next_offset))
        self.claim = Claim(PARTITION, self.claim.epoch, next_offset, "log", 60_000)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("claim"), st.integers(0, 2), st.just(0)),
        st.tuples(st.just("save"), st.integers(0, 2), st.integers(1, 3)),
    ),
    max_size=25,
)


@given(operations)
@settings(max_examples=60, deadline=None)
def test_whatever_writers_do_every_offset_is_counted_once_and_only_by_the_last_claimant(make_database, history):
    engine = open_engine(make_database())
    writers = [Writer(f"writer-{number}", Ledger(engine)) for number in range(3)]
    owner, saved = None, 0
    for kind, number, records in history:
        writer = writers[number]
        if kind == "claim":
            writer.take_over()
            owner = number
            assert (writer.claim.next_offset or 0) == saved
        elif writer.claim is None:
            continue
        elif owner == number:
            writer.save(records)
            saved += records
        else:
            with pytest.raises(Fenced):
                writer.save(records)
        offsets = [letter.offset for letter in DeadLetters(engine).letters()]
        assert sorted(offsets) == list(range(saved))
        counted = sum(bucket.count.stories[0] for bucket in Ledger(engine).buckets(0))
        assert counted == saved
    engine.dispose()


def test_a_refused_batch_leaves_nothing_of_any_of_its_partitions(ledger):
    first, second = (ledger.claim(Partition("news.raw", number), "me") for number in (0, 1))
    ledger.claim(second.partition, "another")
    one, two = saving(first, 2), saving(second, 2)
    together = Saving(
        (*one.advances, *two.advances), Placement(), (*one.buckets, *two.buckets), (*one.rejected, *two.rejected), "m"
    )
    with pytest.raises(Fenced):
        ledger.save(together)
    assert list(ledger.buckets(0)) == []
    assert ledger.claim(first.partition, "me").next_offset is None


def test_a_batch_that_expects_another_offset_is_refused(ledger):
    claim = ledger.claim(PARTITION, "me")
    ledger.save(saving(claim, 5))
    with pytest.raises(Fenced):
        ledger.save(saving(claim, 7))


def test_a_claim_tells_what_was_saved_and_raises_the_epoch(ledger):
    first = ledger.claim(PARTITION, "me")
    assert (first.epoch, first.next_offset, first.identity, first.time_ms) == (1, None, "", None)
    ledger.save(saving(first, 5))
    again = ledger.claim(PARTITION, "you")
    assert (again.epoch, again.next_offset, again.identity, again.time_ms) == (2, 5, "log", 60_000)


def test_buckets_of_later_batches_are_added_to_the_same_minute(ledger):
    claim = ledger.claim(PARTITION, "me")
    topic = Series(SeriesKind.TOPIC, "M&A | Investments")
    for next_offset in (1, 3):
        item = saving(claim, next_offset)
        buckets = (Bucket(PARTITION, 120_000, topic, Count((1, 2, 3, 4), (5, 6, 7, 8), -9)),)
        ledger.save(Saving(item.advances, Placement(), buckets, (), "model"))
        claim = Claim(PARTITION, claim.epoch, next_offset, "log", 60_000)
    assert [(found.series, found.count) for found in ledger.buckets(0)] == [(topic, Count((2, 4, 6, 8), (10, 12, 14, 16), -18))]
    assert list(ledger.buckets(120_001)) == []


def test_each_named_entity_is_saved_with_the_opinion_about_itself(engine, ledger):
    news = Document(
        PARTITION,
        0,
        1,
        60_000,
        "urn:1",
        "1",
        "Halden falls as Norvik soars",
        "",
        "en",
        "wire",
        PublicationStatus.USABLE,
        None,
        entities=("halden", "norvik", "tarvos"),
    )
    toward = {"halden": Opinion("negative", (0.9, 0.1, 0.0)), "norvik": Opinion("positive", (0.2, 0.2, 0.6), uncertain=True)}
    scored = Scored(news, Prediction("fraud", (1.0,), False, Opinion("neutral", (0.2, 0.5, 0.3)), toward))
    placements = [Placed(scored, standing, key, None) for key, standing in enumerate(Standing)]
    item = saving(ledger.claim(PARTITION, "me"), 1)
    ledger.save(Saving(item.advances, Placement(tuple(placements)), (), (), "model"))
    with engine.connect() as connection:
        rows = connection.execute(select(mention.c.document_key, mention.c.entity, mention.c.tone, mention.c.score_units)).all()
        tones = connection.execute(select(document.c.document_key, document.c.tone, document.c.score_units)).all()
    about = [("halden", "negative", -9_000), ("norvik", "uncertain", 4_000), ("tarvos", "neutral", 1_000)]
    counted = [key for key, standing in enumerate(Standing) if standing in {Standing.STORY, Standing.COPY}]
    assert sorted(rows) == sorted((key, *row) for key in counted for row in about)
    assert {key: row for key, *row in tones} == {
        key: ["neutral", 1_000] for key, standing in enumerate(Standing) if standing is not Standing.DUPLICATE
    }


def test_an_interruption_moves_the_position_and_is_refused_to_who_lost_the_partition(ledger):
    claim = ledger.claim(PARTITION, "me")
    ledger.save(saving(claim, 5))
    claim = Claim(PARTITION, claim.epoch, 5, "log", 60_000)
    moved = ledger.interrupt(claim, Interruption(PARTITION, InterruptionKind.ROTATED, 5, 0), "another log", 1_000)
    assert (moved.next_offset, moved.identity) == (0, "another log")
    assert ledger.claim(PARTITION, "you").next_offset == 0
    with pytest.raises(Fenced):
        ledger.interrupt(moved, Interruption(PARTITION, InterruptionKind.ROTATED, 0, 7), "a third", 2_000)
