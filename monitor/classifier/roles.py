"""Two questions, each answered by a checkpoint of its own or by the Bellwether checkpoint, to one `Classifier`."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import islice
from typing import Final

from monitor.classifier.excerpt import Span, sentence_around
from monitor.classifier.protocol import Effort, Engine, Prepared
from monitor.classifier.sequence_classification import Answer, SequenceClassifier, added
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.types import SENTIMENTS, Opinion, Passage, Prediction

_SENTENCES: Final = 8
"""So many sentences that name an entity are read for what they say of it."""

_WHOLE: Final = 0
"""Of the rows of a passage the first is the passage as a whole."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What the checkpoint in the sentiment role reads of a passage: `rows` are the passage, then what is said about entities.

    `toward` has the place in `rows` that speaks of an entity, for each entity that is named.
    """

    rows: tuple[Prepared, ...] = ()
    toward: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Opinions:
    """What the checkpoint in the sentiment role answers: the opinion of a text, and that of each entity by its id."""

    document: Opinion
    toward: Mapping[str, Opinion]


@dataclass(frozen=True, slots=True)
class PreparedForRoles(Prepared):
    """A passage tokenised for each checkpoint that reads it; it has no tokens of its own.

    `own` is for the Bellwether checkpoint, `topic` for the checkpoint in that role; None where there is none. `truncated` says that
    one of them does not read all of the passage.
    """

    own: Prepared | None = None
    topic: Prepared | None = None
    sentiment: Asked = Asked()

    @property
    def tokens(self) -> int:
        """The weight of all rows in a batch."""
        return sum(row.tokens for row in (self.own, self.topic, *self.sentiment.rows) if row is not None)


class RolesClassifier:
    """A `Classifier` with a published checkpoint in one role or in both.

    A plain sequence classifier knows nothing of entities. What it thinks of one is what it thinks of the sentences that name it,
    read by themselves; where those are all of the text, it is the opinion of the text. So it cannot tell two entities in one
    sentence apart, as the Bellwether checkpoint can.
    """

    def __init__(
        self, own: TwoHeadClassifier | None, topic: SequenceClassifier | None, sentiment: SequenceClassifier | None
    ) -> None:
        assert own is not None or (topic is not None and sentiment is not None), "a question that nobody answers"
        self._own = own
        self._topic = topic
        self._sentiment = sentiment
        self._parts = [part for part in (own, topic, sentiment) if part is not None]

    @property
    def version(self) -> str:
        """A short hash of the versions of all checkpoints that answer."""
        return hashlib.sha256(" ".join(part.version for part in self._parts).encode()).hexdigest()[:12]

    @property
    def topics(self) -> tuple[str, ...]:
        """Topic labels, in the order of `Prediction.topic_probabilities`."""
        if self._topic is not None:
            return self._topic.labels
        assert self._own is not None
        return self._own.topics

    @property
    def device(self) -> str:
        """Where all of them compute."""
        return self._parts[0].engine.device

    @property
    def engine(self) -> Engine:
        """How all of them compute; their encoders count as packed when each of them does."""
        engines = [part.engine for part in self._parts]
        return next((engine for engine in engines if engine.encoder == "padded"), engines[0])

    def effort(self) -> Effort:
        """What all of them did since this was last asked."""
        return reduce(added, (part.effort() for part in self._parts))

    def prepare(self, passages: Sequence[Passage]) -> list[Prepared]:
        """Tokenises for each checkpoint; one result per passage, in order."""
        own: Sequence[Prepared | None] = [None] * len(passages)
        if self._own is not None:
            own = [row if self._sentiment is None else replace(row, targets=()) for row in self._own.prepare(passages)]
        topic: Sequence[Prepared | None] = [None] * len(passages)
        if self._topic is not None:
            topic = [replace(row, targets=()) for row in self._topic.prepare(passages)]
        asked = [Asked()] * len(passages) if self._sentiment is None else ask(passages, self._sentiment)
        return [
            PreparedForRoles(
                token_ids=(),
                truncated=any(row.truncated for row in (mine, other, *about.rows[:1]) if row is not None),
                own=mine,
                topic=other,
                sentiment=about,
            )
            for mine, other, about in zip(own, topic, asked, strict=True)
        ]

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """One prediction per prepared passage, in order. Raises `DeviceLost` when the accelerator is gone for good."""
        passages = [_for_roles(one) for one in prepared]
        own: Sequence[Prediction | None] = [None] * len(passages)
        if self._own is not None:
            own = self._own.classify([one.own for one in passages if one.own is not None])
        topic: Sequence[Answer | None] = [None] * len(passages)
        if self._topic is not None:
            topic = self._topic.answer([one.topic for one in passages if one.topic is not None])
        opinions: Sequence[Opinions | None] = [None] * len(passages)
        if self._sentiment is not None:
            opinions = _opinions([one.sentiment for one in passages], self._sentiment)
        return [_prediction(*answered) for answered in zip(own, topic, opinions, strict=True)]


def ask(passages: Sequence[Passage], sentiment: SequenceClassifier) -> list[Asked]:
    """What the checkpoint in the sentiment role is asked about each passage."""
    whole = sentiment.prepare(passages)
    said = [
        {target.entity: sentences_about(passage, target.entity) for target in row.targets}
        for passage, row in zip(passages, whole, strict=True)
    ]
    # Sentences that are all of the text are not read twice, nor those that name two entities.
    parts = [
        list(dict.fromkeys(text for text in by_entity.values() if text != " ".join(passage.text.split())))
        for passage, by_entity in zip(passages, said, strict=True)
    ]
    read = iter(sentiment.prepare([Passage(text) for texts in parts for text in texts]))
    asked = []
    for row, by_entity, texts in zip(whole, said, parts, strict=True):
        places = {text: place for place, text in enumerate(texts, start=1)}
        toward = tuple((entity, places.get(text, _WHOLE)) for entity, text in by_entity.items())
        asked.append(Asked((replace(row, targets=()), *islice(read, len(texts))), toward))
    return asked


def sentences_about(passage: Passage, entity: str) -> str:
    """The first sentences of a passage that name an entity, in order, on one line.

    Of a very long sentence it is what stands around the name (`excerpt.sentence_around`).
    """
    chosen: list[Span] = []
    for mention in (mention for mention in passage.mentions if mention.entity == entity):
        span = sentence_around(passage.text, mention.start, mention.end)
        if chosen and span.start <= chosen[-1].end:
            chosen[-1] = Span(chosen[-1].start, max(span.end, chosen[-1].end))
        elif len(chosen) == _SENTENCES:
            break
        else:
            chosen.append(span)
    return " ".join(" ".join(passage.text[span.start : span.end].split()) for span in chosen)


def _for_roles(prepared: Prepared) -> PreparedForRoles:
    if not isinstance(prepared, PreparedForRoles):
        raise TypeError("a passage is classified by the classifier that prepared it")
    return prepared


def _opinions(asked: Sequence[Asked], sentiment: SequenceClassifier) -> list[Opinions]:
    answers = iter(sentiment.answer([row for about in asked for row in about.rows]))
    opinions = []
    for about in asked:
        given = [_opinion(answer) for answer in islice(answers, len(about.rows))]
        opinions.append(Opinions(given[_WHOLE], {entity: given[place] for entity, place in about.toward}))
    return opinions


def _opinion(answer: Answer) -> Opinion:
    """An answer in the order of `SENTIMENTS` as an opinion; where all are equally likely it is "neutral"."""
    negative, neutral, positive = answer.probabilities
    undecided = negative == neutral == positive
    sentiment = "neutral" if undecided else SENTIMENTS[answer.probabilities.index(max(answer.probabilities))]
    return Opinion(sentiment, (negative, neutral, positive), uncertain=answer.uncertain)


def _prediction(own: Prediction | None, topic: Answer | None, opinions: Opinions | None) -> Prediction:
    """What each answers in its role; what no checkpoint in a role answers is the Bellwether checkpoint's."""
    if own is None:
        assert topic is not None
        assert opinions is not None
        return Prediction(topic.label, topic.probabilities, topic.uncertain, opinions.document, opinions.toward)
    if topic is not None:
        own = replace(own, topic=topic.label, topic_probabilities=topic.probabilities, topic_uncertain=topic.uncertain)
    if opinions is not None:
        own = replace(own, document=opinions.document, toward=opinions.toward)
    return own
