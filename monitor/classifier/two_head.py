"""Prepared texts to predictions on a device: one forward pass of one encoder answers both questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.classifier.checkpoint import Checkpoint
from monitor.classifier.manifest import Calibration
from monitor.classifier.packing import pack
from monitor.classifier.protocol import Prepared
from monitor.classifier.tokens import prepare
from monitor.errors import DeviceLost, ModelError
from monitor.types import SENTIMENTS, Opinion, Passage, Prediction

Array = NDArray[np.float64]

_PASS_TOKENS: Final = {"cpu": 1_536, "cuda": 65_536}
"""Most tokens that one forward pass takes: enough to fill the device, little enough to stay in its cache."""

_DEVICE_ERRORS: Final = ("CUDA", "CUBLAS", "cuDNN", "CUDNN")


def resolve_device(name: str) -> str:
    """The torch device that "auto", "cpu", "cuda" or "cuda:N" means on this machine. Raises ModelError when it is not there."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    number = int(name.partition(":")[2] or 0)
    there = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if number >= there:
        raise ModelError(f'model.device is {name}, but torch sees {there} CUDA devices here: choose another, or "cpu"')
    return f"cuda:{number}"


class TwoHeadClassifier:
    """A `Classifier` made of a checkpoint.

    It computes in fp32 everywhere, so that an answer does not depend on what else is in the batch. `undefined` counts the documents
    for which the model gave no number; they are answered with equal probabilities and count as uncertain. `pass_tokens` is the size
    of a forward pass, padding included; None: what suits the device.
    """

    def __init__(self, checkpoint: Checkpoint, device: str = "auto", pass_tokens: int | None = None) -> None:
        self._device = resolve_device(device)
        self._checkpoint = checkpoint
        self._model = checkpoint.model.to(self._device)
        self._pass_tokens = pass_tokens or _PASS_TOKENS[self._device.partition(":")[0]]
        self.undefined = 0

    @property
    def version(self) -> str:
        """A short hash of the manifest, which holds the hashes of all weights."""
        return self._checkpoint.version

    @property
    def topics(self) -> tuple[str, ...]:
        """Topic labels, in the order of `Prediction.topic_probabilities`."""
        return self._checkpoint.manifest.topics

    @property
    def device(self) -> str:
        """Where it computes."""
        return self._device

    def prepare(self, passages: Sequence[Passage]) -> list[Prepared]:
        """Tokenises; one result per passage, in order."""
        return prepare(passages, self._checkpoint.tokenizer, self._checkpoint.manifest.max_tokens)

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """One prediction per prepared passage, in order. Raises `DeviceLost` when the accelerator is gone for good."""
        answers: dict[int, Prediction] = {}
        for places in passes([one.tokens for one in prepared], self._pass_tokens):
            rows = [prepared[place] for place in places]
            answers.update(zip(places, self._predictions(rows), strict=True))
        return [answers[place] for place in range(len(prepared))]

    def _predictions(self, rows: Sequence[Prepared]) -> list[Prediction]:
        """The predictions of one pass; a pass that does not fit into the device's memory is made in halves."""
        try:
            return self._forward(rows)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise DeviceLost(f"{self._device}: one text of {rows[0].tokens} tokens does not fit into memory") from error
        except RuntimeError as error:
            if isinstance(error, torch.AcceleratorError) or any(word in str(error) for word in _DEVICE_ERRORS):
                raise DeviceLost(f"{self._device}: {str(error).splitlines()[0]}; restart the process") from error
            raise
        # Here and not in the handler: there the exception would still hold the failed pass's tensors.
        if self._device != "cpu":
            torch.cuda.empty_cache()
        half = len(rows) // 2
        return self._predictions(rows[:half]) + self._predictions(rows[half:])

    def _forward(self, rows: Sequence[Prepared]) -> list[Prediction]:
        packed = pack(rows)
        with torch.inference_mode():
            logits = self._model(packed.to(self._device))
            topic, sentiment, toward = (part.double().cpu().numpy() for part in (logits.topic, logits.sentiment, logits.toward))
        answered = self._answers(topic, sentiment)
        opinions = opinions_of(toward, self._checkpoint.manifest.calibration.toward)
        named: dict[int, dict[str, Opinion]] = {}
        for (place, which), opinion in zip(packed.target_order, opinions, strict=True):
            named.setdefault(place, {})[rows[place].targets[which].entity] = opinion
        predictions = dict(zip(packed.order, answered, strict=True))
        return [
            replace(predictions[place], toward=named[place]) if place in named else predictions[place] for place in range(len(rows))
        ]

    def _answers(self, topic: Array, sentiment: Array) -> Iterator[Prediction]:
        manifest = self._checkpoint.manifest
        defined = finite(topic)
        self.undefined += int(np.count_nonzero(~np.logical_and(defined, finite(sentiment), dtype=np.bool_)))
        topics = probabilities(topic, manifest.calibration.topic.temperature)
        certain: list[bool] = np.logical_and(
            defined, topics.max(axis=1) >= manifest.calibration.topic.uncertain_below, dtype=np.bool_
        ).tolist()
        foreign: list[bool] = (energy(topic) > manifest.out_of_domain_above).tolist()
        opinions = opinions_of(sentiment, manifest.calibration.sentiment)
        for row, sure, unknown, opinion in zip(topics.tolist(), certain, foreign, opinions, strict=True):
            yield Prediction(
                topic=manifest.topics[row.index(max(row))],
                topic_probabilities=tuple(row),
                topic_uncertain=not sure,
                document=opinion,
                out_of_domain=unknown,
            )


def passes(lengths: Sequence[int], pass_tokens: int) -> Iterator[list[int]]:
    """The places of all texts in groups of about one length that have at most `pass_tokens` tokens together, or of one text."""
    group: list[int] = []
    tokens = 0
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if group and tokens + lengths[place] > pass_tokens:
            yield group
            group, tokens = [], 0
        group.append(place)
        tokens += lengths[place]
    if group:
        yield group


def finite(logits: Array) -> NDArray[np.bool_]:
    """Which rows hold nothing but numbers."""
    return np.asarray(np.isfinite(logits).all(axis=1), dtype=np.bool_)


def probabilities(logits: Array, temperature: float) -> Array:
    """Softmax of `logits / temperature` per row; equal probabilities in a row that holds a number that is not finite."""
    defined = finite(logits)
    scaled = np.where(defined[:, None], logits, 0.0) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def energy(logits: Array) -> Array:
    """The free energy -log(sum(exp(logits))) per row: high for a text unlike any trained on (Liu et al., arXiv:2010.03759)."""
    largest = logits.max(axis=1, initial=-np.inf)
    result: Array = -(largest + np.log(np.exp(logits - largest[:, None]).sum(axis=1)))
    return result


def opinions_of(logits: Array, calibration: Calibration) -> list[Opinion]:
    """One opinion per row of sentiment logits in the order of `SENTIMENTS`; "neutral" and uncertain where there is no number."""
    defined = finite(logits)
    given = probabilities(logits, calibration.temperature)
    certain: list[bool] = np.logical_and(
        defined, given.max(axis=1, initial=0.0) >= calibration.uncertain_below, dtype=np.bool_
    ).tolist()
    return [
        Opinion(SENTIMENTS[row.index(max(row))] if known else "neutral", (row[0], row[1], row[2]), uncertain=not sure)
        for row, known, sure in zip(given.tolist(), defined.tolist(), certain, strict=True)
    ]
