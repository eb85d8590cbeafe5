"""Stand-ins for what is slow or far away, each as small as the protocol that it keeps."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from monitor.classifier.protocol import Prepared, Target
from monitor.types import SENTIMENTS, Opinion, Partition, Passage, Prediction, PublicationStatus, Scored, Stance

BAD = "loses"
GOOD = "gains"
UNSURE = "perhaps"


@dataclass
class FakeClassifier:
    """Judges by single words: "loses" is negative, "gains" positive, "perhaps" uncertain; the topic is one that the text names.
    Toward an entity it judges by the words after the last mention.

    A prepared text is its code points, cut at `max_tokens`. `batches` keeps the texts of every call of `classify`.
    """

    topics: tuple[str, ...] = ("earnings", "credit", "other")
    max_tokens: int = 256
    version: str = "fake"
    device: str = "none"
    batches: list[list[str]] = field(default_factory=list)

    def prepare(self, passages: Sequence[Passage]) -> list[Prepared]:
        return [self._prepare(passage) for passage in passages]

    def _prepare(self, passage: Passage) -> Prepared:
        places: dict[str, list[int]] = {}
        for mention in passage.mentions:
            if mention.end <= self.max_tokens:
                places.setdefault(mention.entity, []).extend(range(mention.start, mention.end))
        return Prepared(
            tuple(map(ord, passage.text[: self.max_tokens])),
            tuple(Target(entity, tuple(found)) for entity, found in places.items()),
            truncated=len(passage.text) > self.max_tokens,
        )

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        texts = ["".join(map(chr, one.token_ids)) for one in prepared]
        self.batches.append(texts)
        return [self._predict(text, one.targets) for text, one in zip(texts, prepared, strict=True)]

    def _predict(self, text: str, targets: Sequence[Target]) -> Prediction:
        words = text.lower().split()
        topic = next((topic for topic in self.topics if topic in words), self.topics[-1])
        return Prediction(
            topic=topic,
            topic_probabilities=tuple(1.0 if label == topic else 0.0 for label in self.topics),
            topic_uncertain=UNSURE in words,
            document=opinion(words),
            toward={target.entity: opinion(text[target.places[-1] + 1 :].lower().split()) for target in targets},
        )


def opinion(words: Sequence[str]) -> Opinion:
    """What the words say; the first of them that says something decides."""
    certainty = 1 / 3 if UNSURE in words else 0.8
    rest = (1 - certainty) / 2
    told = next((word for word in words if word in {BAD, GOOD}), None)
    sentiment = "negative" if told == BAD else "positive" if told == GOOD else "neutral"
    negative, neutral, positive = (certainty if label == sentiment else rest for label in SENTIMENTS)
    return Opinion(sentiment, (negative, neutral, positive), uncertain=UNSURE in words)


def a_scored(number: int, partition: Partition, received_ms: int, **changes: Any) -> Scored:
    """A bad story about Halden at an offset, under the key and the uri of the same number."""
    fields: dict[str, Any] = {
        "partition": partition,
        "offset": number,
        "received_ms": received_ms,
        "document_key": number,
        "uri": f"urn:{number}",
        "version": "1",
        "source": "wire",
        "language": "en",
        "status": PublicationStatus.USABLE,
        "published_ms": None,
        "stale": False,
        "headline": "Halden falls",
        "topic": "fraud",
        "stance": Stance("negative", -9_000),
        "toward": (),
        "shingles": b"12345678",
        "keys": b"87654321",
        "model": "model",
    }
    return Scored(**(fields | changes))
