"""Passages in, the classifier's predictions out: each text is asked about once, and remembered in a file over all runs."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from itertools import islice
from pathlib import Path
from typing import Final

import msgspec

from monitor.classifier.protocol import Classifier, Prepared
from monitor.errors import PipelineError
from monitor.types import Opinion, Passage, Prediction, Sentiment

FORMAT: Final = 1

_KEYS_A_QUERY: Final = 500
_CACHE_KIB: Final = 262_144
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS model (number INTEGER PRIMARY KEY, version TEXT NOT NULL UNIQUE);
CREATE TABLE IF NOT EXISTS score (
    model INTEGER NOT NULL, passage BLOB NOT NULL, content BLOB NOT NULL, PRIMARY KEY (model, passage)
) WITHOUT ROWID;
"""

_Opinion = tuple[Sentiment, tuple[float, float, float], bool]
_Content = tuple[str, tuple[float, ...], bool, _Opinion, dict[int, _Opinion], float | None, bool]
"""A prediction as it is kept. Entities go by their place among those that the passage names: a cache outlives a change of ids."""

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final = msgspec.msgpack.Decoder(_Content)


def passage_key(passage: Passage) -> bytes:
    """16 bytes that name what the classifier is asked: the text, and where in it each watched entity stands."""
    places: dict[str, list[tuple[int, int]]] = {}
    for mention in passage.mentions:
        places.setdefault(mention.entity, []).append((mention.start, mention.end))
    asked = f"{len(passage.text)}:{passage.text}{list(places.values())}"
    return blake2b(asked.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class ScoreCache:
    """Predictions in a SQLite file, by the version of the model and by `passage_key`: about 300 bytes each.

    What was saved survives the process. Raises PipelineError, also from its methods, when the file cannot be used.
    """

    def __init__(self, path: Path, version: str) -> None:
        self._path = path
        with self._translated():
            # One thread looks up while another saves; this SQLite is built to serialise them.
            self._connection = sqlite3.connect(path, check_same_thread=False)
            (kept,) = self._connection.execute("PRAGMA user_version").fetchone()
            if kept not in {0, FORMAT}:
                raise PipelineError(f"{path} has format {kept}, this Bellwether reads {FORMAT}: name another file")
            self._connection.executescript(
                f"PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA cache_size=-{_CACHE_KIB}; "
                f"PRAGMA user_version={FORMAT}; {_SCHEMA}"
            )
            with self._connection:
                self._connection.execute("INSERT INTO model (version) VALUES (?) ON CONFLICT DO NOTHING", (version,))
            (self._model,) = self._connection.execute("SELECT number FROM model WHERE version = ?", (version,)).fetchone()

    def __len__(self) -> int:
        """How many predictions of this model are kept."""
        with self._translated():
            (number,) = self._connection.execute("SELECT count(*) FROM score WHERE model = ?", (self._model,)).fetchone()
        return int(number)

    def find(self, passages: Mapping[bytes, Passage]) -> dict[bytes, Prediction]:
        """The predictions that are kept, by key."""
        found: dict[bytes, Prediction] = {}
        keys = iter(passages)
        with self._translated():
            while part := list(islice(keys, _KEYS_A_QUERY)):
                marks = ",".join("?" * len(part))
                statement = f"SELECT passage, content FROM score WHERE model = ? AND passage IN ({marks})"  # noqa: S608 (marks only)
                for key, content in self._connection.execute(statement, (self._model, *part)):
                    found[key] = _prediction(content, passages[key].entities)
        return found

    def save(self, predictions: Collection[tuple[bytes, Passage, Prediction]]) -> None:
        """Keeps predictions, in one transaction."""
        rows = [(self._model, key, _content(prediction, passage.entities)) for key, passage, prediction in predictions]
        rows.sort()
        with self._translated(), self._connection:
            self._connection.executemany("INSERT INTO score VALUES (?, ?, ?) ON CONFLICT DO NOTHING", rows)

    def close(self) -> None:
        """Frees the file. Safe to call twice."""
        self._connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise PipelineError(f"the scores in {self._path} cannot be used: {error}") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked(Prepared):
    """A passage that the classifier must be asked about; `row` is what it prepared."""

    key: bytes
    passage: Passage
    row: Prepared

    @property
    def tokens(self) -> int:
        """The weight of the row."""
        return self.row.tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(Prepared):
    """A passage whose prediction is known; it weighs nothing."""

    prediction: Prediction


class RememberingClassifier:
    """A `Classifier` that asks another one, and that one only about what it was never asked before.

    `asked` counts the texts that it had to ask about, `answered` all. `classify` may run in a thread beside `prepare`.
    """

    def __init__(self, classifier: Classifier, cache: ScoreCache) -> None:
        self._classifier = classifier
        self._cache = cache
        self.asked = 0
        self.answered = 0

    @property
    def version(self) -> str:
        """The version of whoever answers."""
        return self._classifier.version

    @property
    def topics(self) -> tuple[str, ...]:
        """Topic labels, in the order of `Prediction.topic_probabilities`."""
        return self._classifier.topics

    @property
    def device(self) -> str:
        """Where the answers are computed."""
        return self._classifier.device

    def prepare(self, passages: Sequence[Passage]) -> list[Prepared]:
        """What is known is looked up, the rest is tokenised; one result per passage, in order. Raises PipelineError."""
        keys = [passage_key(passage) for passage in passages]
        asked = dict(zip(keys, passages, strict=True))
        found = self._cache.find(asked)
        missing = {key: passage for key, passage in asked.items() if key not in found}
        rows = dict(zip(missing, self._classifier.prepare(list(missing.values())) if missing else (), strict=True))
        return [
            Answered((), prediction=found[key])
            if key in found
            else Asked((), truncated=rows[key].truncated, key=key, passage=missing[key], row=rows[key])
            for key in keys
        ]

    def classify(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        """One prediction per prepared passage, in order; new ones are kept first. Raises PipelineError, ModelError."""
        asked = {one.key: one for one in prepared if isinstance(one, Asked)}
        predictions = dict(zip(asked, self._classifier.classify([one.row for one in asked.values()]) if asked else (), strict=True))
        self._cache.save([(key, one.passage, predictions[key]) for key, one in asked.items()])
        self.asked += len(asked)
        self.answered += len(prepared)
        return [_prediction_of(one, predictions) for one in prepared]


def _prediction_of(prepared: Prepared, predictions: Mapping[bytes, Prediction]) -> Prediction:
    if isinstance(prepared, Asked):
        return predictions[prepared.key]
    if isinstance(prepared, Answered):
        return prepared.prediction
    raise TypeError("a passage is classified by the classifier that prepared it")


def _content(prediction: Prediction, entities: Sequence[str]) -> bytes:
    toward = {entities.index(entity): _kept(opinion) for entity, opinion in prediction.toward.items()}
    content: _Content = (
        prediction.topic,
        prediction.topic_probabilities,
        prediction.topic_uncertain,
        _kept(prediction.document),
        toward,
        prediction.unfamiliarity,
        prediction.out_of_domain,
    )
    return _ENCODER.encode(content)


def _prediction(content: bytes, entities: Sequence[str]) -> Prediction:
    topic, probabilities, topic_uncertain, document, toward, unfamiliarity, out_of_domain = _DECODER.decode(content)
    return Prediction(
        topic=topic,
        topic_probabilities=probabilities,
        topic_uncertain=topic_uncertain,
        document=Opinion(*document),
        toward={entities[place]: Opinion(*opinion) for place, opinion in toward.items()},
        unfamiliarity=unfamiliarity,
        out_of_domain=out_of_domain,
    )


def _kept(opinion: Opinion) -> _Opinion:
    return opinion.sentiment, opinion.probabilities, opinion.uncertain
