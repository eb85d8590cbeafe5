"""The GPU's benchmark runs, if only in the small, where there is no GPU."""

import pytest
import torch

from tests.benchmarks.encoder_gpu import BERT_BASE, LENGTHS, MINILM, SHAPES, flops, invented, lengths, measure, plan_for


def test_in_the_small_every_figure_is_there():
    found = measure(plan_for("bf16", 0.0, smoke=True))
    assert found["device"] == "cpu"
    assert set(found["encoders"]) == {MINILM, BERT_BASE}
    for lines in found["encoders"].values():
        assert tuple(lines) == LENGTHS
        assert all(value >= 0 for line in lines.values() for value in line.values())
        assert lines["mixed"]["mean_tokens"] > 20


def test_the_work_of_a_document_is_that_of_its_matrix_products():
    assert flops(SHAPES[BERT_BASE], invented("128", 1)) == pytest.approx(22.3e9, rel=0.01)
    assert flops(SHAPES[MINILM], invented("20", 1)) == pytest.approx(0.43e9, rel=0.02)


def test_mixed_lengths_are_those_of_the_news():
    found = lengths("mixed", 20_000)
    assert sum(found) / len(found) == pytest.approx(41.3, abs=1.0)
    assert (min(found), max(found)) == (12, 256)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is CUDA here")
def test_without_cuda_there_is_nothing_to_measure():
    assert plan_for("bf16", 1.0, smoke=False) is None
