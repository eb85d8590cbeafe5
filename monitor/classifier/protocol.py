"""The contract of a classifier: texts to prepared texts on the CPU, prepared texts to predictions on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from monitor.types import Prediction


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tokenised text: the ids that the encoder reads, special tokens included, cut to the encoder's limit.

    `truncated` says that the text was longer than the limit.
    """

    token_ids: tuple[int, ...]
    truncated: bool = False

    @property
    def tokens(self) -> int:
        """The weight of this text in a batch."""
        return len(self.token_ids)


class Classifier(Protocol):
    """Topic and sentiment for texts, the same answer whatever else is in the batch."""

    @property
    def version(self) -> str:
        """Names the weights and everything else that decides an answer; stored with what is decided from it."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Topic labels, in the order of `Prediction.topic_probabilities`."""

    @property
    def device(self) -> str:
        """Where it computes: "cpu", "cuda:0", or "none"."""

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        """Tokenises; one result per text, in order. Runs on the CPU and is safe beside `classify` in another thread."""

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """One prediction per prepared text, in order. Raises `DeviceLost` when the accelerator is gone for good."""
