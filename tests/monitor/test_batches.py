from __future__ import annotations

from monitor.batches import Batcher
from monitor.classifier.protocol import Prepared
from monitor.types import Document, Partition, PublicationStatus, Rejected, RejectReason

LEFT, RIGHT = Partition("news", 0), Partition("news", 1)


def document(offset, partition=LEFT):
    news = Document(
        partition, offset, offset + 1, 0, f"urn:{offset}", "1", "headline", "", "en", "wire", PublicationStatus.USABLE, None
    )
    return news, Prepared((101, 102))


def rejected(offset, partition=LEFT):
    return Rejected(partition, offset, offset + 1, 0, RejectReason.NOT_JSON, "is no JSON", b"{", 1)


def test_nothing_is_due_while_the_queue_is_empty():
    batcher = Batcher(10, 3, 1.0)
    assert batcher.take(0.0) is None
    assert batcher.remaining_s(0.0) is None
    assert batcher.take_all() == ()


def test_a_batch_is_due_when_it_is_heavy_enough():
    batcher = Batcher(10, 100, 1.0)
    batcher.add(document(0), 6, 0.0)
    batcher.add(document(1), 3, 0.0)
    assert batcher.take(0.0) is None
    batcher.add(document(2), 1, 0.0)
    assert batcher.remaining_s(0.0) == 0.0
    batch = batcher.take(0.0)
    assert batch is not None
    assert batch.tokens == 10
    assert len(batch.entries) == 3


def test_what_does_not_fit_waits_for_the_next_batch():
    batcher = Batcher(10, 100, 1.0)
    for offset in range(2):
        batcher.add(document(offset), 6, 0.0)
    batch = batcher.take(0.0)
    assert batch is not None
    assert batch.entries == (document(0),)
    assert batcher.take(0.9) is None
    assert len(batcher) == 1


def test_a_batch_is_due_when_it_is_numerous_enough():
    batcher = Batcher(1_000, 3, 1.0)
    for offset in range(4):
        batcher.add(rejected(offset), 0, 0.0)
    batch = batcher.take(0.0)
    assert batch is not None
    assert [entry.offset for entry in batch.rejected] == [0, 1, 2]
    assert batcher.take(0.0) is None


def test_a_batch_is_due_when_its_oldest_entry_is_old_enough():
    batcher = Batcher(1_000, 100, 1.0)
    batcher.add(document(0), 5, 10.0)
    batcher.add(document(1), 5, 10.5)
    assert batcher.remaining_s(10.25) == 0.75
    assert batcher.take(10.75) is None
    batch = batcher.take(11.0)
    assert batch is not None
    assert len(batch.entries) == 2
    assert batcher.remaining_s(11.0) is None


def test_a_single_entry_may_be_heavier_than_a_batch():
    batcher = Batcher(10, 100, 1.0)
    batcher.add(document(0), 50, 0.0)
    batcher.add(document(1), 1, 0.0)
    batch = batcher.take(0.0)
    assert batch is not None
    assert (batch.tokens, len(batch.entries)) == (50, 1)


def test_everything_that_waits_can_be_taken_at_once():
    batcher = Batcher(10, 100, 60.0)
    for offset in range(5):
        batcher.add(document(offset), 4, 0.0)
    assert [len(batch.entries) for batch in batcher.take_all()] == [2, 2, 1]
    assert len(batcher) == 0
    assert batcher.take(1_000.0) is None


def test_entries_of_a_lost_partition_are_forgotten_with_their_weight():
    batcher = Batcher(10, 100, 1.0)
    batcher.add(document(0, LEFT), 6, 0.0)
    batcher.add(document(0, RIGHT), 3, 0.5)
    batcher.add(rejected(1, LEFT), 0, 0.6)
    assert batcher.drop({LEFT}) == 2
    assert batcher.remaining_s(0.5) == 1.0
    batcher.add(document(1, RIGHT), 6, 0.6)
    assert batcher.take(0.6) is None


def test_a_batch_knows_its_parts_and_where_reading_goes_on():
    batcher = Batcher(100, 100, 1.0)
    batcher.add(document(4, LEFT), 1, 0.0)
    batcher.add(rejected(7, RIGHT), 0, 0.0)
    batcher.add(document(5, LEFT), 1, 0.0)
    (batch,) = batcher.take_all()
    assert batch.documents == (document(4, LEFT), document(5, LEFT))
    assert batch.rejected == (rejected(7, RIGHT),)
    assert batch.next_offsets == {LEFT: 6, RIGHT: 8}
