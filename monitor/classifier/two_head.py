"""Prepared texts to predictions on a device: one forward pass of one encoder answers every question."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import numpy as np
import structlog
from torch import Tensor

from monitor.classifier.answers import Array, finite, opinions_of, probabilities
from monitor.classifier.checkpoint import Checkpoint
from monitor.classifier.familiarity import unfamiliarity
from monitor.classifier.fused_encoder import FusedEncoder, can_fuse
from monitor.classifier.packed_encoder import encode, taken_apart
from monitor.classifier.packing import Packed
from monitor.classifier.passes import PRECISIONS, Answered, Passes, Precision, resolve_device, resolve_precision
from monitor.classifier.protocol import Effort, Engine, Prepared
from monitor.classifier.tokens import prepare
from monitor.types import Opinion, Passage, Prediction

log = structlog.get_logger(__name__)


class TwoHeadClassifier:
    """A `Classifier` made of a checkpoint.

    The encoder computes in `precision`, the heads in fp32. In fp32 an answer does not depend on what else is in the batch; in half
    precision it does in the second digit of a probability. `undefined` counts the documents for which the model gave no number;
    they are answered with equal probabilities and count as uncertain. `pass_tokens` is the size of a forward pass; None: what
    suits the device. Raises ModelError when the device is not there.
    """

    def __init__(
        self, checkpoint: Checkpoint, device: str = "auto", pass_tokens: int | None = None, precision: Precision = "auto"
    ) -> None:
        self._device = resolve_device(device)
        self._precision = resolve_precision(precision, self._device)
        self._checkpoint = checkpoint
        self._model = checkpoint.model
        for head in (self._model.topic_head, self._model.sentiment_head):
            head.to(self._device)
        self._encode, self._encoder = encoder_on(self._model.encoder, self._device, self._precision)
        self._passes = Passes(self._device, pass_tokens)
        self.undefined = 0
        self._effort = Effort()

    @property
    def version(self) -> str:
        """A short hash of the manifest, which holds the hashes of all weights; and the precision, where it is not fp32."""
        return self._checkpoint.version if self._precision == "fp32" else f"{self._checkpoint.version}-{self._precision}"

    @property
    def topics(self) -> tuple[str, ...]:
        """Topic labels, in the order of `Prediction.topic_probabilities`."""
        return self._checkpoint.manifest.topics

    @property
    def device(self) -> str:
        """Where it computes."""
        return self._device

    @property
    def engine(self) -> Engine:
        """How it computes."""
        return Engine(self._device, self._precision, self._encoder)

    def effort(self) -> Effort:
        """What was done since this was last asked."""
        done, self._effort = self._effort, Effort()
        return done

    def prepare(self, passages: Sequence[Passage]) -> list[Prepared]:
        """Tokenises; one result per passage, in order."""
        return prepare(passages, self._checkpoint.tokenizer, self._checkpoint.manifest.max_tokens)

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """One prediction per prepared passage, in order. Raises `DeviceLost` when the accelerator is gone for good."""
        answers: dict[int, Prediction] = {}
        before, halvings = self.undefined, self._passes.halvings
        tokens, padding = [], 0
        for answered in self._passes.run(prepared, self._forward):
            answers.update(zip(answered.places, self._predictions(answered), strict=True))
            tokens.append(answered.packed.tokens)
            if self._encoder == "padded":
                padding += answered.packed.rows * answered.packed.runs[0][1] - answered.packed.tokens
        self._effort = Effort(
            pass_tokens=(*self._effort.pass_tokens, *tokens),
            padding_tokens=self._effort.padding_tokens + padding,
            undefined=self._effort.undefined + self.undefined - before,
            halvings=self._effort.halvings + self._passes.halvings - halvings,
        )
        return [answers[place] for place in range(len(prepared))]

    def _forward(self, packed: Packed) -> tuple[Tensor, Tensor, Tensor]:
        logits = self._model.answer(self._encode(packed).float(), packed)
        return logits.topic, logits.sentiment, logits.toward

    def _predictions(self, answered: Answered) -> list[Prediction]:
        """The predictions of one pass, in the order of its rows before they were packed."""
        topic, sentiment, toward = answered.tensors
        rows, packed = answered.rows, answered.packed
        opinions = opinions_of(toward, self._checkpoint.manifest.calibration.toward)
        named: dict[int, dict[str, Opinion]] = {}
        for (place, which), opinion in zip(packed.target_order, opinions, strict=True):
            named.setdefault(place, {})[rows[place].targets[which].entity] = opinion
        foreign = unfamiliarity([rows[place].token_ids for place in packed.order], self._checkpoint.surprisals)
        predictions = dict(zip(packed.order, self._answers(topic, sentiment, foreign), strict=True))
        return [
            replace(predictions[place], toward=named[place]) if place in named else predictions[place] for place in range(len(rows))
        ]

    def _answers(self, topic: Array, sentiment: Array, foreign: Array) -> Iterator[Prediction]:
        manifest = self._checkpoint.manifest
        defined = finite(topic)
        self.undefined += int(np.count_nonzero(~np.logical_and(defined, finite(sentiment), dtype=np.bool_)))
        topics = probabilities(topic, manifest.calibration.topic.temperature)
        certain: list[bool] = np.logical_and(
            defined, topics.max(axis=1) >= manifest.calibration.topic.uncertain_below, dtype=np.bool_
        ).tolist()
        opinions = opinions_of(sentiment, manifest.calibration.sentiment)
        for row, sure, unlike, opinion in zip(topics.tolist(), certain, foreign.tolist(), opinions, strict=True):
            yield Prediction(
                topic=manifest.topics[row.index(max(row))],
                topic_probabilities=tuple(row),
                topic_uncertain=not sure,
                document=opinion,
                unfamiliarity=unlike,
                out_of_domain=unlike > manifest.out_of_domain_above,
            )


def encoder_on(
    encoder: Any, device: str, precision: Literal["fp32", "bf16", "fp16"]
) -> tuple[Callable[[Packed], Tensor], Literal["packed", "padded"]]:
    """Packed rows on the device to states, by the fastest way there is for this encoder, and whether that reads padding.

    The encoder itself stays as and where it is.
    """
    if can_fuse(encoder):
        return FusedEncoder(encoder, device, PRECISIONS[precision]), "packed"
    if taken_apart(encoder) is None:
        # Its own forward pass is right, and slower: rows are padded to the longest of a pass.
        log.warning("encoder.padded", architecture=type(encoder).__name__)
    own = encoder if (device, precision) == ("cpu", "fp32") else copy.deepcopy(encoder).to(device, PRECISIONS[precision])
    return partial(encode, own), "padded" if taken_apart(encoder) is None else "packed"
