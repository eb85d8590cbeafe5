"""Lines of text in, the classifier's answers out: one JSON line for each line, in order, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import msgspec

from monitor.classifier.protocol import Classifier, Prepared
from monitor.classifier.text import join, normalise
from monitor.config import DocumentSettings, Settings
from monitor.decode import Decoder, Undecodable, clean_line, clean_text, decode_utf8, parse_object
from monitor.types import SENTIMENTS, Opinion, Partition, Passage, Prediction, Record, Rejected, RejectReason
from monitor.watchlist import WatchList, find_name

MAX_CHUNK_BYTES: Final = 8_388_608
MAX_ENTITY_CHARACTERS: Final = 200

_ASKED: Final = "?"
_DIGITS: Final = 6
_SKIPPED_BYTES: Final = 65_536
_LINES: Final = Partition("score", 0)


class _Shape(msgspec.Struct, frozen=True):
    """What tells a `{"text": ...}` line from a `news.raw` document."""

    text: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    uri: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _Sentence(msgspec.Struct, frozen=True):
    text: str
    entity: str = ""


_SHAPE: Final = msgspec.json.Decoder(_Shape)
_SENTENCE: Final = msgspec.json.Decoder(_Sentence)


@dataclass(frozen=True, slots=True)
class _Question:
    """A line that can be answered. `id` is the document's uri, or the number of the line, counted from 1.

    `asked` is the entity that the line itself asks about (`find_name`).
    """

    line: int
    id: str | int
    text: str
    asked: str = ""


@dataclass(frozen=True, slots=True)
class _Fault:
    """A line that cannot be answered."""

    line: int
    reason: RejectReason
    detail: str


def score(
    lines: Iterable[bytes],
    classifier: Classifier,
    settings: Settings,
    watchlist: WatchList | None = None,
) -> Iterator[bytes]:
    """One JSON object, ending in a line feed, for each line, in order.

    A line is a `news.raw` document, or `{"text": ..., "entity": ...}`, or, where it does not begin with a brace, plain text; all
    meet the limits of `settings.documents`. A line that cannot be read is answered `{"line", "error": {"reason", "detail"}}`.
    Where a line names an entity that stands in its text, the answer's sentiment is the sentiment toward it (`sentiment_of`:
    "entity"). With a `watchlist` each answer says the sentiment toward each of the `entities` found in the text. No more than a
    chunk of `settings.batch.max_documents` lines, or about `MAX_CHUNK_BYTES`, is held at a time. Raises what the classifier
    raises.
    """
    reader = _Reader(settings.documents)
    for chunk in _chunks(lines, settings.batch.max_documents):
        read = [reader.read(number, line) for number, line in chunk]
        questions = [entry for entry in read if isinstance(entry, _Question)]
        passages = [_passage(question, watchlist) for question in questions]
        predictions = zip(passages, _predict(passages, classifier, settings.batch.max_tokens), strict=True)
        for entry in read:
            if isinstance(entry, _Fault):
                answer: dict[str, Any] = {"line": entry.line, "error": {"reason": entry.reason, "detail": entry.detail}}
            else:
                answer = _answer(entry, *next(predictions), topics=classifier.topics, watched=watchlist is not None)
            yield msgspec.json.encode(answer) + b"\n"


def read_lines(stream: BinaryIO, max_bytes: int) -> Iterator[bytes]:
    """The lines of a stream. Of a line longer than `max_bytes` only so much is kept as shows that it is."""
    enough = max_bytes + len(b"\r\n") + 1
    while line := stream.readline(enough):
        rest = line
        while rest and not rest.endswith(b"\n"):
            rest = stream.readline(_SKIPPED_BYTES)
        yield line


class _Reader:
    """Reads single lines; each stands for itself."""

    def __init__(self, documents: DocumentSettings) -> None:
        self._decoder = Decoder(documents)
        self._max_bytes = documents.max_bytes

    def read(self, number: int, line: bytes) -> _Question | _Fault:
        try:
            value = self._trim(line)
            return self._object(number, value) if value.startswith(b"{") else self._plain(number, value)
        except Undecodable as fault:
            return _Fault(number, fault.reason, fault.detail)

    def _trim(self, line: bytes) -> bytes:
        if len(line.rstrip(b"\r\n")) > self._max_bytes:
            raise Undecodable(RejectReason.TOO_LARGE, f"the line has more than {self._max_bytes} bytes")
        value = line.removeprefix(b"\xef\xbb\xbf").strip()
        if not value:
            raise Undecodable(RejectReason.MISSING_TEXT, "the line is blank")
        return value

    def _plain(self, number: int, value: bytes) -> _Question:
        return _Question(number, number, normalise(_visible("the line", decode_utf8(value))))

    def _object(self, number: int, value: bytes) -> _Question | _Fault:
        shape = parse_object(value, _SHAPE, self._max_bytes)
        if shape.text is msgspec.UNSET or shape.uri is not msgspec.UNSET:
            return self._document(number, value)
        sentence = parse_object(value, _SENTENCE, self._max_bytes)
        text = normalise(_visible("text", sentence.text))
        return _Question(number, number, text, normalise(clean_line("entity", sentence.entity, MAX_ENTITY_CHARACTERS)))

    def _document(self, number: int, value: bytes) -> _Question | _Fault:
        document = self._decoder.decode(Record(_LINES, number, number + 1, 0, value), received_ms=0)
        if isinstance(document, Rejected):
            return _Fault(number, document.reason, document.detail)
        return _Question(number, document.uri, join(document.headline, document.body))


def _visible(field: str, text: str) -> str:
    cleaned = clean_text(field, text)
    if not cleaned:
        raise Undecodable(RejectReason.MISSING_TEXT, f"{field} is blank")
    return cleaned


def _chunks(lines: Iterable[bytes], max_lines: int) -> Iterator[list[tuple[int, bytes]]]:
    """The lines with their numbers, in groups that are worth a batch and fit into memory."""
    chunk: list[tuple[int, bytes]] = []
    size = 0
    for number, line in enumerate(lines, start=1):
        chunk.append((number, line))
        size += len(line)
        if len(chunk) == max_lines or size >= MAX_CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _passage(question: _Question, watchlist: WatchList | None) -> Passage:
    """The text with the watched names and the name asked about; that one goes by `_ASKED`, which no watch list can use."""
    mentions = [] if watchlist is None else list(watchlist.find(question.text))
    if question.asked:
        mentions += find_name(question.asked, question.text, _ASKED)
    return Passage(question.text, tuple(sorted(mentions)))


def _predict(passages: Sequence[Passage], classifier: Classifier, max_tokens: int) -> Iterator[Prediction]:
    """One prediction per passage, in order, asked for in batches of at most `max_tokens` (or a single text)."""
    batch: list[Prepared] = []
    tokens = 0
    for prepared in classifier.prepare(passages) if passages else ():
        if batch and tokens + prepared.tokens > max_tokens:
            yield from classifier.classify(batch)
            batch, tokens = [], 0
        batch.append(prepared)
        tokens += prepared.tokens
    if batch:
        yield from classifier.classify(batch)


def _answer(
    question: _Question, passage: Passage, prediction: Prediction, *, topics: Sequence[str], watched: bool
) -> dict[str, Any]:
    asked = prediction.toward.get(_ASKED)
    answer: dict[str, Any] = {
        "id": question.id,
        "line": question.line,
        "topic": prediction.topic,
        "topic_probabilities": by_label(topics, prediction.topic_probabilities),
        "topic_uncertain": prediction.topic_uncertain,
        "unfamiliarity": None if prediction.unfamiliarity is None else round(prediction.unfamiliarity, _DIGITS),
        "out_of_domain": prediction.out_of_domain,
        **opinion_fields(asked or prediction.document),
    }
    if question.asked:
        answer |= {"entity": question.asked, "sentiment_of": "document" if asked is None else "entity"}
    if watched:
        answer["entities"] = {entity: opinion_fields(prediction.opinion(entity)) for entity in passage.entities if entity != _ASKED}
    return answer


def opinion_fields(opinion: Opinion) -> dict[str, Any]:
    """An opinion as the fields of a JSON object."""
    return {
        "sentiment": opinion.sentiment,
        "sentiment_probabilities": by_label(SENTIMENTS, opinion.probabilities),
        "sentiment_uncertain": opinion.uncertain,
        "score": round(opinion.score, _DIGITS),
    }


def by_label(labels: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    """Rounded probabilities by label."""
    return {label: round(probability, _DIGITS) for label, probability in zip(labels, probabilities, strict=True)}
