"""Prepared texts to predictions on a device: one forward pass of one encoder answers both questions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from monitor.classifier.checkpoint import Checkpoint
from monitor.classifier.manifest import Head
from monitor.classifier.model import pad
from monitor.classifier.protocol import Prepared
from monitor.classifier.tokens import prepare
from monitor.errors import DeviceLost, ModelError
from monitor.types import SENTIMENTS, Prediction

Logits = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Topic (texts, topics) and sentiment (texts, 3)."""

_PASS_TOKENS: Final = {"cpu": 4_096, "cuda": 65_536}
"""Most tokens, padding included, that one forward pass takes: enough to fill the device, little enough to fit."""

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
        return self._checkpoint.manifest.topic.labels

    @property
    def device(self) -> str:
        """Where it computes."""
        return self._device

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Tokenises; one result per text, in order."""
        return prepare(texts, self._checkpoint.tokenizer, self._checkpoint.manifest.max_tokens)

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """One prediction per prepared text, in order. Raises `DeviceLost` when the accelerator is gone for good."""
        answers: dict[int, Prediction] = {}
        for places in _passes([one.tokens for one in prepared], self._pass_tokens):
            logits = self._logits([prepared[place].token_ids for place in places])
            answers.update(zip(places, self._predictions(logits), strict=True))
        return [answers[place] for place in range(len(prepared))]

    def _logits(self, rows: Sequence[tuple[int, ...]]) -> Logits:
        """The logits of one pass; a pass that does not fit into the device's memory is made in halves."""
        try:
            return self._forward(rows)
        except torch.OutOfMemoryError as error:
            if len(rows) == 1:
                raise DeviceLost(f"{self._device}: one text of {len(rows[0])} tokens does not fit into memory") from error
        except RuntimeError as error:
            if isinstance(error, torch.AcceleratorError) or any(word in str(error) for word in _DEVICE_ERRORS):
                raise DeviceLost(f"{self._device}: {str(error).splitlines()[0]}; restart the process") from error
            raise
        # Here and not in the handler: there the exception would still hold the failed pass's tensors.
        if self._device != "cpu":
            torch.cuda.empty_cache()
        half = len(rows) // 2
        (topics, sentiments), (more_topics, more_sentiments) = self._logits(rows[:half]), self._logits(rows[half:])
        return np.concatenate([topics, more_topics]), np.concatenate([sentiments, more_sentiments])

    def _forward(self, rows: Sequence[tuple[int, ...]]) -> Logits:
        token_ids, mask = pad(rows, self._checkpoint.padding_id)
        with torch.inference_mode():
            topics, sentiments = self._model(token_ids.to(self._device), mask.to(self._device))
            return topics.double().cpu().numpy(), sentiments.double().cpu().numpy()

    def _predictions(self, logits: Logits) -> Iterator[Prediction]:
        topics, sentiments = logits
        manifest = self._checkpoint.manifest
        defined = np.logical_and(np.isfinite(topics).all(axis=1), np.isfinite(sentiments).all(axis=1), dtype=np.bool_)
        self.undefined += int((~defined).sum())
        topic_rows = probabilities(topics, defined, manifest.topic.temperature)
        sentiment_rows = probabilities(sentiments, defined, manifest.sentiment.temperature)
        for topic_row, sentiment_row, known in zip(topic_rows.tolist(), sentiment_rows.tolist(), defined.tolist(), strict=True):
            yield predict(tuple(topic_row), tuple(sentiment_row), manifest.topic, manifest.sentiment, known=known)


def _passes(lengths: Sequence[int], pass_tokens: int) -> Iterator[list[int]]:
    """The places of all texts in groups of about one length whose padded size stays within `pass_tokens`, or of one text."""
    group: list[int] = []
    for place in sorted(range(len(lengths)), key=lambda place: -lengths[place]):
        if group and (len(group) + 1) * lengths[group[0]] > pass_tokens:
            yield group
            group = []
        group.append(place)
    if group:
        yield group


def probabilities(logits: NDArray[np.float64], defined: NDArray[np.bool_], temperature: float) -> NDArray[np.float64]:
    """Softmax of `logits / temperature` per row; equal probabilities in rows that are not `defined`."""
    scaled = np.where(defined[:, None], logits, 0.0) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return result


def predict(
    topic_row: tuple[float, ...], sentiment_row: tuple[float, ...], topic: Head, sentiment: Head, *, known: bool
) -> Prediction:
    """The answer that two rows of probabilities give under the heads' limits; the sentiments stand in the order of `SENTIMENTS`."""
    most, strongest = max(topic_row), max(sentiment_row)
    negative, neutral, positive = sentiment_row
    return Prediction(
        topic=topic.labels[topic_row.index(most)],
        topic_probabilities=topic_row,
        topic_uncertain=not known or most < topic.uncertain_below,
        sentiment=SENTIMENTS[sentiment_row.index(strongest)] if known else "neutral",
        sentiment_probabilities=(negative, neutral, positive),
        sentiment_uncertain=not known or strongest < sentiment.uncertain_below,
    )
