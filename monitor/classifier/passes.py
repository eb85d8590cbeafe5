"""Prepared rows in, tensors out: in forward passes that fill the device and fit into it, the next made while one computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor

from monitor.classifier.answers import Array
from monitor.classifier.packing import Packed, pack
from monitor.classifier.protocol import Prepared
from monitor.errors import DeviceLost, ModelError

Forward = Callable[[Packed], Sequence[Tensor]]
"""Packed rows on the device to tensors (rows or targets, logits) on the device, in packed order."""

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""What the encoder computes in; "auto": fp32 on a CPU, else half precision, bf16 where the device has it."""

PRECISIONS: Final[dict[str, torch.dtype]] = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_PASS_TOKENS: Final = {"cpu": 1_536, "cuda": 65_536}
"""Most tokens that one forward pass takes: enough to fill the device, little enough to stay in a CPU's cache."""

_BF16_CAPABILITY: Final = (8, 0)
_DEVICE_ERRORS: Final = ("CUDA", "CUBLAS", "cuDNN", "CUDNN")
_OUT_OF_MEMORY: Final = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "can't allocate memory")


def resolve_device(name: str) -> str:
    """The torch device that "auto", "cpu", "cuda" or "cuda:N" means on this machine. Raises ModelError when it is not there."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    number = int(name.partition(":")[2] or 0)
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= there:
        raise ModelError(f'model.device is {name}, but torch sees {there} CUDA devices here: choose another, or "cpu"')
    return f"cuda:{number}"


def resolve_precision(name: Precision, device: str) -> Literal["fp32", "bf16", "fp16"]:
    """The precision that `name` means on a device of this machine; older cards compute bf16 by detours, and get fp16."""
    if name != "auto":
        return name
    if device == "cpu":
        return "fp32"
    return "bf16" if torch.cuda.get_device_capability(device) >= _BF16_CAPABILITY else "fp16"


@dataclass(frozen=True, slots=True)
class Answered:
    """One pass: the rows that were in it, as they were packed, and the tensors that came back, in fp64."""

    rows: Sequence[Prepared]
    places: Sequence[int]
    packed: Packed
    tensors: tuple[Array, ...]


@dataclass(frozen=True, slots=True)
class _Launched:
    """A pass whose tensors may still be on their way to `host`."""

    rows: Sequence[Prepared]
    places: Sequence[int]
    packed: Packed
    host: Tensor
    shapes: tuple[torch.Size, ...]
    arrived: Any | None


class Passes:
    """Runs a model over any number of rows.

    On CUDA a pass is only launched: its inputs are copied from pinned memory, its results back into it, and the next pass is
    packed meanwhile. A pass that does not fit into memory is made in halves. `tokens` is the size of a pass; None: what suits the
    device. `halvings` counts the passes that did not fit.
    """

    def __init__(self, device: str, tokens: int | None = None) -> None:
        self.device = device
        self.halvings = 0
        self._tokens = tokens or _PASS_TOKENS[device.partition(":")[0]]

    def run(self, prepared: Sequence[Prepared], forward: Forward) -> Iterator[Answered]:
        """Every row in one pass, the longest rows first. Raises `DeviceLost` when the device has failed for good."""
        running: _Launched | None = None
        for places in passes([row.tokens for row in prepared], self._tokens):
            for launched in self._launch([prepared[place] for place in places], places, forward):
                if running is not None:
                    yield self._collect(running)
                running = launched
        if running is not None:
            yield self._collect(running)

    def _launch(self, rows: Sequence[Prepared], places: Sequence[int], forward: Forward) -> Iterator[_Launched]:
        launched = None
        try:
            with _device_errors(self.device), torch.inference_mode():
                launched = self._launched(rows, places, forward)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise DeviceLost(f"{self.device}: one text of {rows[0].tokens} tokens does not fit into memory") from error
        if launched is not None:
            yield launched
            return
        # Here and not in the handler: there the exception would still hold the failed pass's tensors.
        self.halvings += 1
        if self.device != "cpu":
            torch.cuda.empty_cache()
        half = len(rows) // 2
        yield from self._launch(rows[:half], places[:half], forward)
        yield from self._launch(rows[half:], places[half:], forward)

    def _launched(self, rows: Sequence[Prepared], places: Sequence[int], forward: Forward) -> _Launched:
        packed = pack(rows)
        tensors = forward(packed.to(self.device))
        found = torch.cat([tensor.float().reshape(-1) for tensor in tensors])
        shapes = tuple(tensor.shape for tensor in tensors)
        if self.device == "cpu":
            return _Launched(rows, places, packed, found, shapes, None)
        host = torch.empty(found.shape, pin_memory=True).copy_(found, non_blocking=True)
        arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        arrived.record(torch.cuda.current_stream(self.device))
        return _Launched(rows, places, packed, host, shapes, arrived)

    def _collect(self, launched: _Launched) -> Answered:
        if launched.arrived is not None:
            with _device_errors(self.device):
                launched.arrived.synchronize()
        parts = torch.split(launched.host.double(), [shape.numel() for shape in launched.shapes])
        tensors = tuple(part.view(shape).numpy() for part, shape in zip(parts, launched.shapes, strict=True))
        return Answered(launched.rows, launched.places, launched.packed, tensors)


@contextmanager
def _device_errors(device: str) -> Iterator[None]:
    """Raises what torch says of a device as what it means: out of memory, or lost."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        said = str(error)
        if any(word in said for word in _OUT_OF_MEMORY):
            raise torch.OutOfMemoryError(said) from error
        if isinstance(error, torch.AcceleratorError) or any(word in said for word in _DEVICE_ERRORS):
            raise DeviceLost(f"{device}: {said.splitlines()[0]}; restart the process") from error
        raise


def passes(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """The places of all rows in groups of about one length that have at most `tokens` tokens together, or of one row."""
    group: list[int] = []
    weight = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if group and weight + lengths[place] > tokens:
            yield group
            group, weight = [], 0
        group.append(place)
        weight += lengths[place]
    if group:
        yield group
