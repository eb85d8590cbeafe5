from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.batches import Batcher
from monitor.types import Partition, Rejected, RejectReason

MAX_TOKENS, MAX_DOCUMENTS, MAX_WAIT_S = 10, 4, 2.0


@dataclass(frozen=True)
class Add:
    number: int
    tokens: int


@dataclass(frozen=True)
class Wait:
    seconds: float


@dataclass(frozen=True)
class Drop:
    number: int


steps = st.lists(
    st.one_of(
        st.builds(Add, st.integers(0, 2), st.sampled_from([0, 1, 4, 5, 6, 9, 10, 11, 30])),
        st.builds(Wait, st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0, 2.5])),
        st.builds(Drop, st.integers(0, 2)),
    ),
    max_size=60,
)


def entry(number, offset):
    return Rejected(Partition("news", number), offset, offset + 1, 0, RejectReason.NOT_JSON, "", b"", 0)


@settings(max_examples=100, deadline=None)
@given(steps)
def test_every_entry_comes_out_once_in_order_in_time_and_within_the_limits(history):
    """The loop takes after every step until nothing is due; a dropped partition's waiting entries are the only ones lost."""
    batcher = Batcher(MAX_TOKENS, MAX_DOCUMENTS, MAX_WAIT_S)
    now_s, offset = 0.0, 0
    waiting: list[tuple[Rejected, int, float]] = []
    for step in history:
        match step:
            case Add(number, tokens):
                batcher.add(entry(number, offset), tokens, now_s)
                waiting.append((entry(number, offset), tokens, now_s))
                offset += 1
            case Wait(seconds):
                now_s += seconds
            case Drop(number):
                dropped = [item for item in waiting if item[0].partition.number == number]
                assert batcher.drop({Partition("news", number)}) == len(dropped)
                waiting = [item for item in waiting if item not in dropped]
        while (batch := batcher.take(now_s)) is not None:
            due = waiting[: len(batch.entries)]
            assert list(batch.entries) == [item[0] for item in due]
            assert batch.tokens == sum(item[1] for item in due)
            assert batch.tokens <= MAX_TOKENS or len(due) == 1
            assert len(due) <= MAX_DOCUMENTS
            heavy = sum(item[1] for item in waiting) >= MAX_TOKENS
            assert heavy or len(waiting) >= MAX_DOCUMENTS or now_s - due[0][2] >= MAX_WAIT_S
            waiting = waiting[len(due) :]
            if waiting and len(due) < MAX_DOCUMENTS:
                assert batch.tokens + waiting[0][1] > MAX_TOKENS
        assert len(batcher) == len(waiting) < MAX_DOCUMENTS
        assert sum(item[1] for item in waiting) < MAX_TOKENS
        assert all(now_s - item[2] < MAX_WAIT_S for item in waiting)
        remaining_s = batcher.remaining_s(now_s)
        assert remaining_s == (waiting[0][2] + MAX_WAIT_S - now_s if waiting else None)
    rest = [item for batch in batcher.take_all() for item in batch.entries]
    assert rest == [item[0] for item in waiting]
