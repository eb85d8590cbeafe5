"""Texts in, "neutral" out, at no cost: to run and to measure everything but the model."""

from __future__ import annotations

import math
from collections.abc import Sequence

from monitor.classifier.protocol import Prepared
from monitor.types import Opinion, Passage, Prediction

_CHARACTERS_A_TOKEN = 4


class NullClassifier:
    """A `Classifier` that is certain that everything is neutral and about the first topic.

    A text weighs a token for each four characters, as an English text does, cut to `max_tokens`.
    """

    def __init__(self, topics: tuple[str, ...] = ("any",), max_tokens: int = 128) -> None:
        self._topics = topics
        self._max_tokens = max_tokens
        self._answer = Prediction(
            topic=topics[0],
            topic_probabilities=(1.0, *[0.0] * (len(topics) - 1)),
            topic_uncertain=False,
            document=Opinion("neutral", (0.0, 1.0, 0.0)),
        )

    @property
    def version(self) -> str:
        """No weights stand behind its answers."""
        return "null"

    @property
    def topics(self) -> tuple[str, ...]:
        """Topic labels, in the order of `Prediction.topic_probabilities`."""
        return self._topics

    @property
    def device(self) -> str:
        """It computes nowhere."""
        return "none"

    def prepare(self, passages: Sequence[Passage]) -> list[Prepared]:
        """One result per passage, in order; the ids mean nothing."""
        return [self._weigh(math.ceil(len(passage.text) / _CHARACTERS_A_TOKEN) or 1) for passage in passages]

    def _weigh(self, tokens: int) -> Prepared:
        return Prepared((0,) * min(tokens, self._max_tokens), truncated=tokens > self._max_tokens)

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """The same answer for each."""
        return [self._answer] * len(prepared)
