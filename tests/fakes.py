"""Stand-ins for what is slow or far away, each as small as the protocol that it keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from monitor.classifier.protocol import Prepared
from monitor.types import Prediction

BAD = "loses"
GOOD = "gains"
UNSURE = "perhaps"


@dataclass
class FakeClassifier:
    """Judges by single words: "loses" is negative, "gains" positive, "perhaps" uncertain; the topic is one that the text names.

    A prepared text is its code points, cut at `max_tokens`. `batches` keeps the texts of every call of `classify`.
    """

    topics: tuple[str, ...] = ("earnings", "credit", "other")
    max_tokens: int = 256
    version: str = "fake"
    device: str = "none"
    batches: list[list[str]] = field(default_factory=list)

    def prepare(self, texts: Sequence[str]) -> list[Prepared]:
        return [Prepared(tuple(map(ord, text[: self.max_tokens])), len(text) > self.max_tokens) for text in texts]

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        texts = ["".join(map(chr, one.token_ids)) for one in prepared]
        self.batches.append(texts)
        return [self._predict(text) for text in texts]

    def _predict(self, text: str) -> Prediction:
        words = text.lower().split()
        topic = next((topic for topic in self.topics if topic in words), self.topics[-1])
        certainty = 1 / 3 if UNSURE in words else 0.8
        rest = (1 - certainty) / 2
        sentiment = "negative" if BAD in words else "positive" if GOOD in words else "neutral"
        return Prediction(
            topic=topic,
            topic_probabilities=tuple(1.0 if label == topic else 0.0 for label in self.topics),
            topic_uncertain=UNSURE in words,
            sentiment=sentiment,
            sentiment_probabilities=tuple(
                certainty if label == sentiment else rest for label in ("negative", "neutral", "positive")
            ),
            sentiment_uncertain=UNSURE in words,
        )
