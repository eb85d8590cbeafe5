"""Rows as one matrix: every token once, every row and every target found again."""

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.packing import mean_per_segment, pack
from monitor.classifier.protocol import Prepared, Target

ROW = st.lists(st.integers(0, 99), min_size=1, max_size=9)


@st.composite
def prepared(draw):
    token_ids = draw(ROW)
    places = st.sets(st.integers(0, len(token_ids) - 1), min_size=1).map(lambda found: tuple(sorted(found)))
    targets = [Target(f"entity-{number}", draw(places)) for number in range(draw(st.integers(0, 3)))]
    return Prepared(tuple(token_ids), tuple(targets))


BATCHES = st.lists(prepared(), min_size=1, max_size=12)


def rows_of(packed):
    return [part.tolist() for part in torch.split(packed.token_ids, packed.lengths.tolist())]


@settings(max_examples=200, deadline=None)
@given(BATCHES)
def test_every_token_of_every_row_is_there_once_and_the_order_leads_back(batch):
    packed = pack(batch)
    assert sorted(packed.order) == list(range(len(batch)))
    assert packed.tokens == sum(row.tokens for row in batch)
    assert packed.rows == len(batch)
    for place, row in zip(packed.order, rows_of(packed), strict=True):
        assert tuple(row) == batch[place].token_ids


@settings(max_examples=200, deadline=None)
@given(BATCHES)
def test_rows_get_shorter_and_runs_starts_and_positions_say_where_they_lie(batch):
    packed = pack(batch)
    lengths = packed.lengths.tolist()
    assert lengths == sorted(lengths, reverse=True)
    assert [length for rows, length in packed.runs for _ in range(rows)] == lengths
    assert len({length for _, length in packed.runs}) == len(packed.runs)
    assert packed.starts.dtype == torch.int32
    assert packed.starts.tolist() == [sum(lengths[:row]) for row in range(len(lengths) + 1)]
    assert packed.positions.tolist() == [place for length in lengths for place in range(length)]


@settings(max_examples=200, deadline=None)
@given(BATCHES)
def test_targets_point_at_the_tokens_that_name_them(batch):
    packed = pack(batch)
    assert sorted(packed.target_order) == [(place, which) for place, row in enumerate(batch) for which in range(len(row.targets))]
    named = [part.tolist() for part in torch.split(packed.token_ids[packed.target_tokens], packed.target_lengths.tolist())]
    for (place, which), row, tokens in zip(packed.target_order, packed.target_rows.tolist(), named, strict=True):
        assert packed.order[row] == place
        assert tokens == [batch[place].token_ids[token] for token in batch[place].targets[which].places]


def test_rows_of_one_length_keep_their_order():
    batch = [Prepared((number, number)) for number in range(5)]
    assert pack(batch).order == (0, 1, 2, 3, 4)


def test_on_the_cpu_nothing_is_copied():
    packed = pack([Prepared((1, 2))])
    assert packed.to("cpu") is packed


def test_the_mean_is_taken_within_each_segment():
    states = torch.tensor([[1.0, 2.0], [3.0, 6.0], [math.nan, math.inf], [5.0, 5.0]])
    means = mean_per_segment(states, torch.tensor([2, 1, 1]))
    assert means[0].tolist() == [2.0, 4.0]
    assert means[1].isfinite().tolist() == [False, False]
    assert means[2].tolist() == [5.0, 5.0]


def test_no_segment_no_mean():
    assert mean_per_segment(torch.ones(3, 2), torch.tensor([], dtype=torch.long)).shape == (0, 2)
