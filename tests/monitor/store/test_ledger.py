"""The ledger saves a batch as a whole, and only for who owns the partition."""

import json
from dataclasses import dataclass, field, replace

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from monitor.errors import Deposed, Fenced
from monitor.sources.protocol import Interruption, InterruptionKind
from monitor.store.dead_letters import DeadLetters
from monitor.store.engine import open_engine, reading, writing
from monitor.store.lease import Lease
from monitor.store.ledger import Advance, Claim, Ledger, Saving
from monitor.store.schema import document, mention, scored, tally
from monitor.stories import Placed, Placement, Standing
from monitor.types import (
    Bucket,
    Count,
    Partition,
    Rejected,
    RejectReason,
    Scored,
    Series,
    SeriesKind,
    SevereEvent,
    Stance,
)
from monitor.watermark import Quiet
from tests.fakes import a_scored

PARTITION = Partition("news.raw", 3)
AFTER_ALL = (2**60, "", 0, 0)


@pytest.fixture
def ledger(engine):
    return Ledger(engine)


def rejected(offset, partition=PARTITION):
    return Rejected(partition, offset, offset + 1, 60_000, RejectReason.NOT_JSON, "no JSON", b"{", 1)


def saving(claim: Claim, next_offset: int) -> Saving:
    """One batch that takes a claim to `next_offset`: every record of it a dead letter."""
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
        rejected=records,
    )
    return Saving(
        advances=(advance,),
        scored=tuple(waiting(offset, claim.partition) for offset in range(begin, next_offset)),
        rejected=tuple(rejected(offset, claim.partition) for offset in range(begin, next_offset)),
    )


def waiting(offset, partition=PARTITION, *, received_ms=60_000, **changes) -> Scored:
    return a_scored(offset, partition, received_ms, **({"document_key": 1_000 * partition.number + offset} | changes))


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
        assert [item.offset for item in Ledger(engine).waiting(AFTER_ALL, 10**6)] == list(range(saved))
    engine.dispose()


def test_a_refused_batch_leaves_nothing_of_any_of_its_partitions(ledger):
    first, second = (ledger.claim(Partition("news.raw", number), "me") for number in (0, 1))
    ledger.claim(second.partition, "another")
    one, two = saving(first, 2), saving(second, 2)
    together = Saving((*one.advances, *two.advances), (*one.scored, *two.scored), (*one.rejected, *two.rejected))
    with pytest.raises(Fenced):
        ledger.save(together)
    assert ledger.waiting(AFTER_ALL, 10) == []
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


@pytest.fixture
def lease(engine):
    lease = Lease(engine, "me")
    assert lease.acquire()
    return lease


def test_buckets_of_later_batches_are_added_to_the_same_minute(ledger, lease):
    topic = Series(SeriesKind.TOPIC, "M&A | Investments")
    for _ in range(2):
        ledger.settle(Placement(), (Bucket(PARTITION, 120_000, topic, Count((1, 2, 3, 4), (5, 6, 7, 8), -9)),), lease)
    assert [(found.series, found.count) for found in ledger.buckets(0)] == [(topic, Count((2, 4, 6, 8), (10, 12, 14, 16), -18))]
    assert list(ledger.buckets(120_001)) == []


def test_what_waits_comes_in_the_order_of_turns_and_as_it_was_saved(ledger):
    other = Partition("news.raw", 10)
    items = [
        waiting(7, received_ms=5, toward=(("halden", Stance("negative", -1)), ("norvik", Stance("uncertain", 3)))),
        waiting(1, other, received_ms=5, published_ms=4, headline="哈尔登 \U0001f4c9", shingles=bytes(range(256)), stale=True),
        waiting(8, received_ms=6),
        waiting(2, other, received_ms=6),
        waiting(9, received_ms=7),
    ]
    saved = [ledger.claim(partition, "me") for partition in (PARTITION, other)]
    advances = tuple(Advance(claim.partition, claim.epoch, None, 10, "log", 7, 3, 0) for claim in saved)
    ledger.save(Saving(advances, tuple(reversed(items)), ()))
    assert ledger.waiting(AFTER_ALL, 10) == items
    assert ledger.waiting(AFTER_ALL, 2) == items[:2]
    assert ledger.waiting(items[3].turn, 10) == items[:3]
    assert ledger.waiting((6, "", -1, -1), 10) == items[:2]


def test_what_is_settled_waits_no_longer_and_what_came_meanwhile_does(ledger, lease, engine):
    claim = ledger.claim(PARTITION, "me")
    items = [waiting(offset, received_ms=offset, document_key=offset // 2) for offset in range(4)]
    ledger.save(Saving((Advance(PARTITION, claim.epoch, None, 4, "log", 4, 4, 0),), (items[0], items[1], items[3]), ()))
    taken = ledger.waiting(AFTER_ALL, 10)
    ledger.save(Saving((Advance(PARTITION, claim.epoch, 4, 5, "log", 4, 1, 0),), (items[2],), ()))
    standings = (Standing.STORY, Standing.DUPLICATE, Standing.COPY)
    ledger.settle(Placement(tuple(map(Placed, taken, standings))), (), lease)
    assert ledger.waiting(AFTER_ALL, 10) == [items[2]]
    with reading(engine) as connection:
        numbers = select(tally.c.stories, tally.c.copies, tally.c.stale, tally.c.duplicates)
        assert connection.execute(numbers).all() == [(1, 1, 0, 1)]
        assert connection.scalars(select(document.c["offset"]).order_by(document.c["offset"])).all() == [0, 3]


def test_a_deposed_leader_settles_nothing(ledger, lease, engine):
    claim = ledger.claim(PARTITION, "me")
    ledger.save(Saving((Advance(PARTITION, claim.epoch, None, 1, "log", 1, 1, 0),), (waiting(0),), ()))
    lease.release()
    assert Lease(engine, "another").acquire()
    with pytest.raises(Deposed):
        ledger.settle(Placement((Placed(waiting(0), Standing.STORY, 0),)), (), lease)
    assert ledger.waiting(AFTER_ALL, 10) == [waiting(0)]
    assert ledger.known_documents([waiting(0).document_key]) == set()


def test_each_named_entity_is_saved_with_what_is_said_of_itself(engine, ledger, lease):
    toward = (("halden", Stance("negative", -9_000)), ("norvik", Stance("uncertain", 4_000)))
    placed = [
        Placed(waiting(key, toward=toward, document_key=key, stance=Stance("neutral", 1_000)), standing)
        for key, standing in enumerate(Standing)
    ]
    ledger.settle(Placement(tuple(placed)), (), lease)
    with reading(engine) as connection:
        rows = connection.execute(select(mention.c.document_key, mention.c.entity, mention.c.tone, mention.c.score_units)).all()
        tones = connection.execute(select(document.c.document_key, document.c.tone, document.c.score_units)).all()
    about = [("halden", "negative", -9_000), ("norvik", "uncertain", 4_000)]
    counted = [key for key, standing in enumerate(Standing) if standing in {Standing.STORY, Standing.COPY}]
    assert sorted(rows) == sorted((key, *row) for key in counted for row in about)
    assert {key: row for key, *row in tones} == {
        key: ["neutral", 1_000] for key, standing in enumerate(Standing) if standing is not Standing.DUPLICATE
    }


EVENTS = (SevereEvent("halden", "bank_run", "critical", 8_100), SevereEvent("norvik", "cyber_attack", "warning", 4_000))


def test_severe_events_wait_with_their_document_and_are_saved_with_it(engine, ledger, lease):
    claim = ledger.claim(PARTITION, "me")
    ledger.save(replace(saving(claim, 1), scored=(waiting(0, events=EVENTS),)))
    (found,) = ledger.waiting(AFTER_ALL, 10)
    assert found.events == EVENTS
    ledger.settle(Placement((Placed(found, Standing.STORY),)), (), lease)
    with reading(engine) as connection:
        told = json.loads(connection.scalar(select(document.c.events)))
    assert told == [["halden", "bank_run", "critical", 8_100], ["norvik", "cyber_attack", "warning", 4_000]]


def test_what_an_older_version_left_waiting_tells_no_severe_event(engine, ledger):
    claim = ledger.claim(PARTITION, "me")
    ledger.save(replace(saving(claim, 1), scored=(waiting(0, events=EVENTS),)))
    with writing(engine) as connection:
        fields = msgspec.msgpack.decode(connection.scalar(select(scored.c.content)))
        del fields["events"]
        connection.execute(update(scored).values(content=msgspec.msgpack.encode(fields)))
    assert ledger.waiting(AFTER_ALL, 10) == [waiting(0)]


def test_progress_tells_what_was_saved_and_what_was_reported_last(ledger):
    other = Partition("news.raw", 4)
    claims = [ledger.claim(partition, "me") for partition in (PARTITION, other)]
    before = ledger.progress()
    assert {name: (found.time_ms, found.quiet) for name, found in before.items()} == dict.fromkeys(
        (PARTITION, other), (None, Quiet())
    )
    ledger.report(claims, {PARTITION: Quiet(20_000, 7)})
    ledger.save(saving(claims[1], 3))
    found = ledger.progress()
    assert (found[PARTITION].quiet, found[other].quiet) == (Quiet(20_000, 7), Quiet())
    assert (found[other].time_ms, found[other].next_offset) == (60_000, 3)
    assert found[PARTITION].reported_at_ms >= before[PARTITION].reported_at_ms > 1_700_000_000_000
    ledger.save(saving(claims[0], 1))
    assert ledger.progress()[PARTITION].quiet == Quiet()


def test_a_report_under_a_lost_claim_tells_nothing(ledger):
    claim = ledger.claim(PARTITION, "me")
    ledger.claim(PARTITION, "you")
    ledger.report([claim], {PARTITION: Quiet(20_000, 7)})
    assert ledger.progress()[PARTITION].quiet == Quiet()


def test_an_interruption_moves_the_position_and_is_refused_to_who_lost_the_partition(ledger):
    claim = ledger.claim(PARTITION, "me")
    ledger.save(saving(claim, 5))
    claim = Claim(PARTITION, claim.epoch, 5, "log", 60_000)
    moved = ledger.interrupt(claim, Interruption(PARTITION, InterruptionKind.ROTATED, 5, 0), "another log", 1_000)
    assert (moved.next_offset, moved.identity) == (0, "another log")
    assert ledger.claim(PARTITION, "you").next_offset == 0
    with pytest.raises(Fenced):
        ledger.interrupt(moved, Interruption(PARTITION, InterruptionKind.ROTATED, 0, 7), "a third", 2_000)
