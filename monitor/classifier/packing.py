"""Tokenised rows of different lengths to one matrix without padding, with everything that says where each row lies in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from itertools import chain, groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor

from monitor.classifier.protocol import Prepared


@dataclass(frozen=True, slots=True)
class Packed:
    """The tokens of all rows, one after the other, the longest row first.

    Per token: `token_ids` and `positions` (its place in its row), both (tokens). Per row: `lengths` (rows), and `order`, the place
    that the row had before it was packed. `starts` (rows + 1) are where each row begins, and the end of the last, in 32 bits as
    attention kernels want them. `runs` are (rows, length) of neighbours of one length. The tokens of all targets are
    `target_tokens` (places in `token_ids`), one target after the other; `target_lengths` (targets) says how many each has,
    `target_rows` (targets) which packed row it lies in. `target_order` are (place of the row before packing, place of the target
    in that row).
    """

    token_ids: Tensor
    positions: Tensor
    lengths: Tensor
    starts: Tensor
    runs: tuple[tuple[int, int], ...]
    order: tuple[int, ...]
    target_tokens: Tensor
    target_lengths: Tensor
    target_rows: Tensor
    target_order: tuple[tuple[int, int], ...]

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.order)

    @property
    def tokens(self) -> int:
        """How many tokens all rows have together; no token is padding."""
        return int(self.token_ids.shape[0])

    def to(self, device: str) -> Packed:
        """The same on a device. To CUDA it is copied from pinned memory, and nobody waits for the copy."""
        if device == "cpu":
            return self
        moved: dict[str, Any] = {
            field.name: value.pin_memory().to(device, non_blocking=True)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


def pack(prepared: Sequence[Prepared]) -> Packed:
    """All rows as one matrix on the CPU. Rows must have at least one token."""
    order = sorted(range(len(prepared)), key=lambda place: -prepared[place].tokens)
    rows = [prepared[place] for place in order]
    lengths = np.fromiter((row.tokens for row in rows), dtype=np.int64, count=len(rows))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    targets = [
        (number, place, which, target)
        for number, (place, row) in enumerate(zip(order, rows, strict=True))
        for which, target in enumerate(row.targets)
    ]
    return Packed(
        token_ids=_long(chain.from_iterable(row.token_ids for row in rows)),
        positions=torch.from_numpy(np.arange(starts[-1]) - np.repeat(starts[:-1], lengths)),
        lengths=torch.from_numpy(lengths),
        starts=torch.from_numpy(starts.astype(np.int32)),
        runs=tuple((len(list(group)), length) for length, group in groupby(row.tokens for row in rows)),
        order=tuple(order),
        target_tokens=_long(starts[number] + token for number, _, _, target in targets for token in target.places),
        target_lengths=_long(len(target.places) for _, _, _, target in targets),
        target_rows=_long(number for number, _, _, _ in targets),
        target_order=tuple((place, which) for _, place, which, _ in targets),
    )


def _long(numbers: Any) -> Tensor:
    return torch.from_numpy(np.fromiter(numbers, dtype=np.int64))


def mean_per_segment(states: Tensor, lengths: Tensor) -> Tensor:
    """The mean (segments, hidden) of each of the consecutive segments of `states` (tokens, hidden); none may be empty."""
    if len(lengths) == 0:
        return states.new_zeros((0, states.shape[1]))
    return torch.segment_reduce(states, "mean", lengths=lengths, axis=0)
