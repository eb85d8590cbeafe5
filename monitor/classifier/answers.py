"""Rows to answers on a device that may run out of memory, or be lost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import torch

from monitor.classifier.protocol import Prepared
from monitor.errors import DeviceLost

_Answer = TypeVar("_Answer")

_DEVICE_ERRORS: Final = ("CUDA", "CUBLAS", "cuDNN", "CUDNN")


def answer_in_memory(rows: Sequence[Prepared], answer: Callable[[Sequence[Prepared]], list[_Answer]], device: str) -> list[_Answer]:
    """`answer(rows)`; rows that do not fit into the device's memory are answered in halves.

    Raises DeviceLost when one row does not fit, or when the device fails in any other way.
    """
    try:
        return answer(rows)
    except torch.OutOfMemoryError as error:
        if len(rows) == 1:
            raise DeviceLost(f"{device}: one text of {rows[0].tokens} tokens does not fit into memory") from error
    except RuntimeError as error:
        if isinstance(error, torch.AcceleratorError) or any(word in str(error) for word in _DEVICE_ERRORS):
            raise DeviceLost(f"{device}: {str(error).splitlines()[0]}; restart the process") from error
        raise
    # Here and not in the handler: there the exception would still hold the failed pass's tensors.
    if device != "cpu":
        torch.cuda.empty_cache()
    half = len(rows) // 2
    return answer_in_memory(rows[:half], answer, device) + answer_in_memory(rows[half:], answer, device)
