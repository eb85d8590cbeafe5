"""Lines of text in, the classifier's answers out: one JSON line for each line, in order, whatever is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

import msgspec

from monitor.classifier.protocol import Classifier, Prepared
from monitor.config import DocumentSettings, Settings
from monitor.decode import Decoder, Undecodable, clean_line, clean_text, decode_utf8, parse_object
from monitor.types import SENTIMENTS, Partition, Prediction, Record, Rejected, RejectReason
from monitor.watchlist import WatchList

MAX_CHUNK_BYTES: Final = 8_388_608
MAX_ENTITY_CHARACTERS: Final = 200

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
    """A line that can be answered. `id` is the document's uri, or the number of the line, counted from 1."""

    line: int
    id: str | int
    text: str
    entity: str = ""


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
    meet the limits of `settings.documents`. A line that cannot be read is answered `{"line", "error": {"reason", "detail"}}`. With
    a `watchlist` each answer names the `entities` found in the text. No more than a chunk of `settings.batch.max_documents` lines,
    or about `MAX_CHUNK_BYTES`, is held at a time. Raises what the classifier raises.
    """
    reader = _Reader(settings.documents)
    for chunk in _chunks(lines, settings.batch.max_documents):
        read = [reader.read(number, line) for number, line in chunk]
        questions = [entry for entry in read if isinstance(entry, _Question)]
        predictions = _predict([question.text for question in questions], classifier, settings.batch.max_tokens)
        for entry in read:
            if isinstance(entry, _Fault):
                answer: dict[str, Any] = {"line": entry.line, "error": {"reason": entry.reason, "detail": entry.detail}}
            else:
                answer = _answer(entry, next(predictions), classifier.topics, watchlist)
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
        return _Question(number, number, _visible("the line", decode_utf8(value)))

    def _object(self, number: int, value: bytes) -> _Question | _Fault:
        shape = parse_object(value, _SHAPE, self._max_bytes)
        if shape.text is msgspec.UNSET or shape.uri is not msgspec.UNSET:
            return self._document(number, value)
        sentence = parse_object(value, _SENTENCE, self._max_bytes)
        text = _visible("text", sentence.text)
        return _Question(number, number, text, clean_line("entity", sentence.entity, MAX_ENTITY_CHARACTERS))

    def _document(self, number: int, value: bytes) -> _Question | _Fault:
        document = self._decoder.decode(Record(_LINES, number, number + 1, 0, value), received_ms=0)
        if isinstance(document, Rejected):
            return _Fault(number, document.reason, document.detail)
        return _Question(number, document.uri, document.text)


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


def _predict(texts: Sequence[str], classifier: Classifier, max_tokens: int) -> Iterator[Prediction]:
    """One prediction per text, in order, asked for in batches of at most `max_tokens` (or a single text)."""
    batch: list[Prepared] = []
    tokens = 0
    for prepared in classifier.prepare(texts) if texts else ():
        if batch and tokens + prepared.tokens > max_tokens:
            yield from classifier.classify(batch)
            batch, tokens = [], 0
        batch.append(prepared)
        tokens += prepared.tokens
    if batch:
        yield from classifier.classify(batch)


def _answer(question: _Question, prediction: Prediction, topics: Sequence[str], watchlist: WatchList | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "id": question.id,
        "line": question.line,
        "topic": prediction.topic,
        "topic_probabilities": _by_label(topics, prediction.topic_probabilities),
        "topic_uncertain": prediction.topic_uncertain,
        "sentiment": prediction.sentiment,
        "sentiment_probabilities": _by_label(SENTIMENTS, prediction.sentiment_probabilities),
        "sentiment_uncertain": prediction.sentiment_uncertain,
        "score": round(prediction.score, _DIGITS),
    }
    if question.entity:
        answer |= {"entity": question.entity, "sentiment_of": "document"}
    if watchlist is not None:
        answer["entities"] = watchlist.match(question.text)
    return answer


def _by_label(labels: Sequence[str], probabilities: Sequence[float]) -> dict[str, float]:
    return {label: round(probability, _DIGITS) for label, probability in zip(labels, probabilities, strict=True)}
