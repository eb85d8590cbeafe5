"""Passes hold every row once, come back in order, and fail as what they are."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.passes import Passes, passes, resolve_device, resolve_precision
from monitor.classifier.protocol import Prepared
from monitor.errors import DeviceLost, ModelError


def text(token, length=3):
    return Prepared((2, token, *[9] * (length - 3), 3))


class Remembering:
    """A model whose answer for a row is the row's second token; it takes `most` rows at once, or raises `error`."""

    def __init__(self, most=None, error=None):
        self.most = most
        self.error = error
        self.sizes = []

    def __call__(self, packed):
        self.sizes.append(packed.rows)
        if self.error is not None:
            raise self.error
        if self.most is not None and packed.rows > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        second = packed.token_ids[packed.starts[:-1].long() + 1]
        return [second[:, None].float(), second[:, None].repeat(1, 2).bfloat16()]


def answers(model, prepared, tokens=None):
    """The second tokens in the order of `prepared`, from both tensors."""
    found = {}
    for answered in Passes("cpu", tokens).run(prepared, model):
        single, double = answered.tensors
        assert (single.dtype, single.shape, double.shape) == (np.float64, (len(answered.rows), 1), (len(answered.rows), 2))
        for row, place in enumerate(answered.packed.order):
            assert answered.rows[place] is prepared[answered.places[place]]
            assert double[row].tolist() == [single[row, 0]] * 2
            found[answered.places[place]] = single[row, 0]
    return [found[place] for place in range(len(prepared))]


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(10, 99), st.integers(3, 20)), max_size=20), st.sampled_from([1, 20, 60, 900]), st.integers(1, 20)
)
def test_every_row_is_answered_in_its_place_however_often_memory_does_not_suffice(rows, tokens, most):
    prepared = [text(token, length) for token, length in rows]
    assert answers(Remembering(most), prepared, tokens) == [token for token, _ in rows]


def test_a_pass_that_does_not_fit_is_made_in_halves():
    model = Remembering(most=2)
    engine = Passes("cpu")
    assert sum(len(answered.rows) for answered in engine.run([text(token) for token in range(10, 17)], model)) == 7
    assert model.sizes == [7, 3, 1, 2, 4, 2, 2]
    assert engine.halvings == 3


@pytest.mark.parametrize(
    "said", ["[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when"]
)
def test_memory_that_is_out_by_another_name_is_halved_too(said):
    def forward(packed):
        if packed.rows > 1:
            raise RuntimeError(said)
        return [packed.lengths[:, None].float()]

    assert len(list(Passes("cpu").run([text(5), text(6)], forward))) == 2


def test_one_row_that_does_not_fit_means_the_device_is_lost():
    with pytest.raises(DeviceLost, match="one text of 3 tokens does not fit"):
        answers(Remembering(most=0), [text(5), text(6)])


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("an illegal memory access was encountered"),
        RuntimeError("CUDA error: device-side assert triggered\nmore"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    ],
)
def test_any_other_failure_of_the_device_means_that_it_is_lost(error):
    with pytest.raises(DeviceLost, match=r"cpu: .*; restart the process$"):
        answers(Remembering(error=error), [text(5)])


def test_a_fault_of_ours_is_not_blamed_on_the_device():
    with pytest.raises(RuntimeError, match="mat1 and mat2") as caught:
        answers(Remembering(error=RuntimeError("mat1 and mat2 shapes cannot be multiplied")), [text(5)])
    assert not isinstance(caught.value, DeviceLost)


def test_nothing_is_differentiated_and_the_caller_s_own_mode_stays_as_it_was():
    modes = []

    def forward(packed):
        modes.append(torch.is_inference_mode_enabled())
        return [packed.lengths[:, None].float()]

    outside = [torch.is_inference_mode_enabled() for _ in Passes("cpu", 3).run([text(5), text(6)], forward)]
    assert modes == [True, True]
    assert outside == [False, False]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 30), max_size=30), st.sampled_from([1, 29, 30, 31, 60, 100, 1_000]))
def test_passes_hold_every_row_once_within_the_limit(lengths, tokens):
    found = list(passes(lengths, tokens))
    weights = [sum(lengths[place] for place in group) for group in found]
    assert sorted(place for group in found for place in group) == list(range(len(lengths)))
    assert all(len(group) == 1 or weight <= tokens for group, weight in zip(found, weights, strict=True))
    for (group, following), weight in zip(itertools.pairwise(found), weights, strict=False):
        assert weight + lengths[following[0]] > tokens
        assert min(lengths[place] for place in group) >= max(lengths[place] for place in following)


def test_a_device_that_is_not_there_is_refused():
    assert resolve_device("cpu") == "cpu"
    assert resolve_device("auto") == ("cuda:0" if torch.cuda.is_available() else "cpu")
    with pytest.raises(
        ModelError, match=r'model\.device is cuda:99, but torch sees \d+ CUDA devices here: choose another, or "cpu"'
    ):
        resolve_device("cuda:99")


def test_a_cpu_computes_in_fp32_unless_it_is_told_otherwise():
    assert resolve_precision("auto", "cpu") == "fp32"
    assert resolve_precision("bf16", "cpu") == "bf16"
