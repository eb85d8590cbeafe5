"""A checkpoint's model to an ONNX file that takes padded rows, checked against the model itself."""

from __future__ import annotations

import copy
import json
import random
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from monitor.classifier.checkpoint import Checkpoint
from monitor.classifier.protocol import Prepared, Target
from monitor.errors import PipelineError

OPSET: Final = 20
INPUTS: Final = ("input_ids", "attention_mask", "target_mask")
OUTPUTS: Final = ("topic", "sentiment", "toward")
TOLERANCE: Final = 1e-4
SHAPES: Final = ((1, 3), (2, 9), (5, 17), (3, 64), (16, 33), (1, 128))
"""Rows and the length of the longest that the file is checked with, cut to what the model reads."""


@dataclass(frozen=True, slots=True)
class Exported:
    """What was written: its opset, its size in bytes, on how many batches it was checked, the largest difference of a logit."""

    opset: int
    bytes: int
    checked: int
    largest_difference: float


def export(checkpoint: Checkpoint, path: Path) -> Exported:
    """Writes `path`. Rows and tokens are dynamic; each row is asked about the target that its `target_mask` marks.

    Metadata: `topics`, `sentiments`, `calibration` (temperature and limit of certainty of each output), `version`, `max_tokens`, as
    JSON. Raises PipelineError, and leaves no file, when it answers otherwise than the model by more than 1e-4 of a logit.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(checkpoint, path)
    opset = _describe(checkpoint, path)
    difference = check(checkpoint, path)
    if not difference <= TOLERANCE:
        path.unlink()
        raise PipelineError(
            f"{path} answers otherwise than the model: a logit differs by {difference:.1e}, more than {TOLERANCE:g}"
        )
    return Exported(opset, path.stat().st_size, len(SHAPES), difference)


def _padded(model: Any) -> Any:
    """The model as a module of padded tensors, with the encoder's own forward pass."""
    import torch
    from torch import Tensor, nn

    class Padded(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = copy.deepcopy(model.encoder)
            self.topic_head, self.sentiment_head = copy.deepcopy(model.topic_head), copy.deepcopy(model.sentiment_head)

        def forward(self, input_ids: Tensor, attention_mask: Tensor, target_mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
            rows, targets = mean(states, attention_mask), mean(states, target_mask)
            return (
                self.topic_head(rows),
                self.sentiment_head(torch.cat([rows, rows], dim=1)),
                self.sentiment_head(torch.cat([targets, rows], dim=1)),
            )

    def mean(states: Tensor, mask: Tensor) -> Tensor:
        counted = mask.to(states.dtype).unsqueeze(-1)
        return (states * counted).sum(dim=1) / counted.sum(dim=1).clamp(min=1.0)

    return Padded().eval()


def _write(checkpoint: Checkpoint, path: Path) -> None:
    import logging

    import torch
    from torch.export import Dim

    rows, tokens = Dim("rows", min=1), Dim("tokens", min=2, max=checkpoint.manifest.max_tokens)
    ids = torch.ones((2, 5), dtype=torch.long)
    # The exporter tells of every step, and torch warns of what it itself calls; what goes wrong it raises.
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _padded(checkpoint.model),
            (ids, torch.ones_like(ids), torch.ones_like(ids)),
            str(path),
            dynamo=True,
            external_data=False,
            opset_version=OPSET,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_shapes={name: {0: rows, 1: tokens} for name in INPUTS},
            verbose=False,
        )


def _describe(checkpoint: Checkpoint, path: Path) -> int:
    """Writes the metadata into the file; gives back its opset."""
    import onnx

    from monitor.types import SENTIMENTS

    model = onnx.load(path)
    manifest = checkpoint.manifest
    said = {
        "topics": manifest.topics,
        "sentiments": SENTIMENTS,
        "calibration": asdict(manifest.calibration),
        "version": checkpoint.version,
        "max_tokens": manifest.max_tokens,
    }
    onnx.helper.set_model_props(model, {name: json.dumps(value, ensure_ascii=False) for name, value in said.items()})
    onnx.checker.check_model(model)
    onnx.save(model, path)
    return int(next(one.version for one in model.opset_import if one.domain in {"", "ai.onnx"}))


def check(checkpoint: Checkpoint, path: Path) -> float:
    """The largest difference of a logit between ONNX Runtime on the file and the packed model, over random batches."""
    import onnxruntime
    import torch

    from monitor.classifier.packing import pack

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    order = random.Random(0)  # noqa: S311 (token ids)
    vocabulary = int(checkpoint.model.encoder.config.vocab_size)
    largest = 0.0
    for rows, longest in SHAPES:
        batch = _random_rows(rows, min(longest, checkpoint.manifest.max_tokens), vocabulary, order)
        answers = session.run(list(OUTPUTS), padded(batch))
        packed = pack(batch)
        with torch.inference_mode():
            logits = checkpoint.model(packed)
        for answer, packed_logits, places in (
            (answers[0], logits.topic, packed.order),
            (answers[1], logits.sentiment, packed.order),
            (answers[2], logits.toward, [place for place, _ in packed.target_order]),
        ):
            largest = max(largest, float(np.abs(answer[list(places)] - packed_logits.numpy()).max()))
    return largest


def _random_rows(rows: int, longest: int, vocabulary: int, order: random.Random) -> list[Prepared]:
    """Rows of random length, the first the longest, each with one target."""
    batch = []
    for number in range(rows):
        length = longest if number == 0 else order.randint(2, longest)
        start = order.randrange(length)
        places = tuple(range(start, order.randint(start + 1, length)))
        batch.append(Prepared(tuple(order.randrange(vocabulary) for _ in range(length)), (Target("it", places),)))
    return batch


def padded(rows: Sequence[Prepared]) -> dict[str, Any]:
    """The rows as the file's inputs, each filled up to the longest; asked about the first target of each."""
    longest = max(row.tokens for row in rows)
    inputs = {name: np.zeros((len(rows), longest), dtype=np.int64) for name in INPUTS}
    for place, row in enumerate(rows):
        inputs["input_ids"][place, : row.tokens] = row.token_ids
        inputs["attention_mask"][place, : row.tokens] = 1
        if row.targets:
            inputs["target_mask"][place, list(row.targets[0].places)] = 1
    return inputs
