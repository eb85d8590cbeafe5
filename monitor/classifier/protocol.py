"""The contract of a classifier: passages to prepared passages on the CPU, prepared passages to predictions on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from monitor.types import Passage, Prediction


@dataclass(frozen=True, slots=True)
class Target:
    """An entity that the classifier is asked about: `places` are the tokens of the row that name it, at least one."""

    entity: str
    places: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Prepared:
    """A tokenised passage: the ids that the encoder reads, special tokens included, within the encoder's limit.

    `truncated` says that the passage was longer than the limit. An entity that no kept token names has no target.
    """

    token_ids: tuple[int, ...]
    targets: tuple[Target, ...] = ()
    truncated: bool = False

    @property
    def tokens(self) -> int:
        """The weight of this text in a batch."""
        return len(self.token_ids)


class Classifier(Protocol):
    """Topic, sentiment and the sentiment toward each named entity, the same answer whatever else is in the batch."""

    @property
    def version(self) -> str:
        """Names the weights and everything else that decides an answer; stored with what is decided from it."""

    @property
    def topics(self) -> tuple[str, ...]:
        """Topic labels, in the order of `Prediction.topic_probabilities`."""

    @property
    def device(self) -> str:
        """Where it computes: "cpu", "cuda:0", or "none"."""

    def prepare(self, passages: Sequence[Passage]) -> list[Prepared]:
        """Tokenises; one result per passage, in order. Runs on the CPU and is safe beside `classify` in another thread."""

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """One prediction per prepared passage, in order. Raises `DeviceLost` when the accelerator is gone for good."""


@dataclass(frozen=True, slots=True)
class Engine:
    """How a classifier computes. A packed encoder reads no padding."""

    device: str
    precision: Literal["fp32", "bf16", "fp16"]
    encoder: Literal["packed", "padded"]


@dataclass(frozen=True, slots=True)
class Effort:
    """What a classifier's forward passes came to: the tokens of each pass, without padding, and the padding of all.

    `undefined` are passages that the model gave no number for, `halvings` passes that did not fit into memory and were cut in two.
    """

    pass_tokens: tuple[int, ...] = ()
    padding_tokens: int = 0
    undefined: int = 0
    halvings: int = 0


@runtime_checkable
class Accountable(Protocol):
    """A classifier that can tell what it does."""

    @property
    def engine(self) -> Engine:
        """How it computes."""

    def effort(self) -> Effort:
        """What was done since this was last asked."""
