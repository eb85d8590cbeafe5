"""The nouns that flow through Bellwether, from a record of the log to the reading of a window: frozen, typed, free of I/O."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, Protocol

MINUTE_MS: Final = 60_000
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
"""One bucket is one minute of received time."""

SCORE_UNIT: Final = 10_000
"""Scores are summed as integers of 1/10,000, so that no order of additions changes a sum."""

NO_TIME: Final = -1
"""The `time_ms` of a record that has none of its own."""


# --- the log -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Partition:
    """One ordered log: a Kafka topic partition, or a tailed file (number 0)."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.number}"


@dataclass(frozen=True, slots=True)
class Record:
    """What a source hands over: the bytes of one message and where they stood.

    `next_offset` is where reading goes on after this record: `offset + 1` in Kafka, the byte after the line's end in a file.
    `time_ms` is the log's own timestamp, or the moment of arrival where the log keeps none; `NO_TIME` where the log goes by what
    its records say and this one says nothing: then it has the time of the record before it.
    """

    partition: Partition
    offset: int
    next_offset: int
    time_ms: int
    value: bytes | None
    key: bytes | None = None


# --- documents ---------------------------------------------------------------------------------


class RejectReason(StrEnum):
    """Why a record became a dead letter. A fixed vocabulary, because it labels a metric."""

    TOMBSTONE = "tombstone"
    TOO_LARGE = "too_large"
    NOT_UTF8 = "not_utf8"
    NOT_JSON = "not_json"
    TOO_DEEP = "too_deep"
    NOT_AN_OBJECT = "not_an_object"
    WRONG_TYPE = "wrong_type"
    MISSING_ID = "missing_id"
    MISSING_TEXT = "missing_text"
    FORBIDDEN_CHARACTER = "forbidden_character"
    BAD_TIME = "bad_time"
    UNSUPPORTED_VERSION = "unsupported_version"


class PublicationStatus(StrEnum):
    """IPTC ninjs `pubstatus`: may the text be used, is it held back, was it withdrawn."""

    USABLE = "usable"
    WITHHELD = "withheld"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True, order=True)
class Mention:
    """The name of a watched entity at a place in a text: the characters from `start` up to `end`."""

    start: int
    end: int
    entity: str


@dataclass(frozen=True, slots=True)
class Passage:
    """What the watch list searches and the classifier reads: the normalised headline, a line feed, the normalised body.

    Either may be missing, and then the line feed is too. `mentions` stand in the order of the text.
    """

    text: str
    mentions: tuple[Mention, ...] = ()

    @property
    def entities(self) -> tuple[str, ...]:
        """The entities named, in order of first mention."""
        return tuple(dict.fromkeys(mention.entity for mention in self.mentions))


@dataclass(frozen=True, slots=True)
class Document:
    """A decoded piece of news.

    `received_ms` is the time all windows run on: the record's own time, made monotone within its partition.
    `published_ms` is the publisher's claim, clamped to the received time when it lies in the future (`clamped`).
    `stale` documents were published longer before they were received than the configured limit: scored, stored, not counted.
    `passage` is the text as the classifier reads it, with the watched names in it; `entities` are their ids, in order of first
    mention.
    """

    partition: Partition
    offset: int
    next_offset: int
    received_ms: int
    uri: str
    version: str
    headline: str
    body: str
    language: str
    source: str
    status: PublicationStatus
    published_ms: int | None
    stale: bool = False
    clamped: bool = False
    entities: tuple[str, ...] = ()
    passage: Passage = Passage("")


@dataclass(frozen=True, slots=True)
class Rejected:
    """A record that is no document: one dead letter, with its position, its reason and a bounded copy of its bytes.

    `received_ms` is the record's time made monotone within its partition, as in `Document`.
    `excerpt` is at most the configured number of bytes of the value; `size` is the full length.
    `detail` is one plain sentence for a person; it never repeats more of the text than a field name.
    """

    partition: Partition
    offset: int
    next_offset: int
    received_ms: int
    reason: RejectReason
    detail: str
    excerpt: bytes
    size: int


# --- scores ------------------------------------------------------------------------------------

Sentiment = Literal["negative", "neutral", "positive"]
SENTIMENTS: Final[tuple[Sentiment, ...]] = ("negative", "neutral", "positive")

Tone = Literal["negative", "neutral", "positive", "uncertain"]
TONES: Final[tuple[Tone, ...]] = ("negative", "neutral", "positive", "uncertain")
"""What a document is counted as: its sentiment, or "uncertain" where the model is not sure enough."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """How a text speaks: of everything in it, or of one entity.

    `probabilities` stand in the order of `SENTIMENTS` and sum to 1; `sentiment` is the most probable; `uncertain` says that its
    probability is below the model's own limit.
    """

    sentiment: Sentiment
    probabilities: tuple[float, float, float]
    uncertain: bool = False

    @property
    def tone(self) -> Tone:
        """The class that this opinion is counted in."""
        return "uncertain" if self.uncertain else self.sentiment

    @property
    def score(self) -> float:
        """P(positive) - P(negative), from -1 to 1."""
        return self.probabilities[2] - self.probabilities[0]

    @property
    def score_units(self) -> int:
        """`score` as an integer number of 1/`SCORE_UNIT`."""
        return round(self.score * SCORE_UNIT)

    @property
    def stance(self) -> Stance:
        """What is counted of it."""
        return Stance(self.tone, self.score_units)


@dataclass(frozen=True, slots=True)
class Prediction:
    """The classifier's answers about one passage.

    `topic_probabilities` stand in the order of the classifier's topics and sum to 1. `document` is the opinion of the text as a
    whole, `toward` the opinion of each entity that it names, by id. `unfamiliarity` is how surprising its
    words are after those of training, in nats, None where the model cannot tell; `out_of_domain` says that they are too surprising
    for an answer to be trusted.
    """

    topic: str
    topic_probabilities: tuple[float, ...]
    topic_uncertain: bool
    document: Opinion
    toward: Mapping[str, Opinion] = field(default_factory=dict)
    unfamiliarity: float | None = None
    out_of_domain: bool = False

    def opinion(self, entity: str) -> Opinion:
        """The opinion of an entity; where the model gave none, that of the text as a whole."""
        return self.toward.get(entity, self.document)


Turn = tuple[int, str, int, int]
"""A place in the one order in which the documents of all partitions are told: received time, topic, partition, offset."""


@dataclass(frozen=True, slots=True)
class Stance:
    """What is counted of an opinion."""

    tone: Tone
    score_units: int


EventSeverity = Literal["critical", "warning"]


@dataclass(frozen=True, slots=True, order=True)
class SevereEvent:
    """A document says that something severe happened to a watched entity: an event of a category, by its id.

    `negative_units` is P(negative) of the document's opinion of the entity, as an integer number of 1/`SCORE_UNIT`.
    """

    entity: str
    category: str
    severity: EventSeverity
    negative_units: int


@dataclass(frozen=True, slots=True)
class Scored:
    """A document as the classifier has judged it, waiting for its turn in stream time. Its text is gone, but for the `headline`.

    `document_key` is 63 bits that name its uri and version, the same in every process. `topic` is the label that it was given,
    `stance` how it speaks as a whole, `toward` how it speaks of each watched entity that it names, in order of first mention.
    `shingles` and `keys` are its `Fingerprint`, `model` the version of the classifier. `events` are the severe events that it tells
    of watched entities, sorted, at most one for an entity and a category; a document scored by an older version has none.
    """

    partition: Partition
    offset: int
    received_ms: int
    document_key: int
    uri: str
    version: str
    source: str
    language: str
    status: PublicationStatus
    published_ms: int | None
    stale: bool
    headline: str
    topic: str
    stance: Stance
    toward: tuple[tuple[str, Stance], ...]
    shingles: bytes
    keys: bytes
    model: str
    events: tuple[SevereEvent, ...] = ()

    @property
    def entities(self) -> tuple[str, ...]:
        """The watched entities that it names."""
        return tuple(entity for entity, _ in self.toward)

    @property
    def turn(self) -> Turn:
        """Its place in the order of stream time."""
        return self.received_ms, self.partition.topic, self.partition.number, self.offset


@dataclass(frozen=True, slots=True)
class Report:
    """A placed document that tells of a severe event (`category`) about a watched entity; `at_ms` is when it was received."""

    at_ms: int
    entity: str
    category: str
    severity: str
    story_id: int
    document_key: int
    source: str
    headline: str


# --- series, counts, readings ------------------------------------------------------------------


class SeriesKind(StrEnum):
    """What a series follows: everything, one topic, or one watched entity."""

    ALL = "all"
    TOPIC = "topic"
    ENTITY = "entity"


@dataclass(frozen=True, slots=True, order=True)
class Series:
    """One line on a chart: everything, a topic by its label, an entity by its id."""

    kind: SeriesKind
    name: str = ""

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}" if self.name else str(self.kind)


ALL_SERIES: Final = Series(SeriesKind.ALL)


@dataclass(frozen=True, slots=True)
class Count:
    """What happened to one series in one minute or one window: whole numbers, added, never taken back.

    `stories` and `copies` are numbers per tone in the order of `TONES`. A story counts once per series, with the tone of the copy
    that first named the series; every later document of the story is a copy. `score_units` sums the stories' scores.
    """

    stories: tuple[int, int, int, int] = (0, 0, 0, 0)
    copies: tuple[int, int, int, int] = (0, 0, 0, 0)
    score_units: int = 0

    def __add__(self, other: Count) -> Count:
        a, b, c, d = self.stories
        e, f, g, h = other.stories
        i, j, k, m = self.copies
        n, o, p, q = other.copies
        return Count((a + e, b + f, c + g, d + h), (i + n, j + o, k + p, m + q), self.score_units + other.score_units)


@dataclass(frozen=True, slots=True)
class Bucket:
    """The count of one series in one minute, as seen by one partition. `minute_ms` is the minute's beginning."""

    partition: Partition
    minute_ms: int
    series: Series
    count: Count


class Metric(StrEnum):
    """What a rule may compare. Shares and the mean score are undefined in a window without stories."""

    NEGATIVE_SHARE = "negative_share"
    NEGATIVE_STORIES = "negative_stories"
    STORIES = "stories"
    MEAN_SCORE = "mean_score"
    UNCERTAIN_SHARE = "uncertain_share"


@dataclass(frozen=True, slots=True)
class Reading:
    """What a window [from_ms, until_ms) of one series says."""

    series: Series
    from_ms: int
    until_ms: int
    count: Count

    @property
    def stories(self) -> int:
        """Distinct stories of every tone."""
        return sum(self.count.stories)

    @property
    def copies(self) -> int:
        """Further documents of stories already counted."""
        return sum(self.count.copies)

    @property
    def documents(self) -> int:
        """Stories and copies."""
        return self.stories + self.copies

    def value(self, metric: Metric) -> float | None:
        """The metric's value; None where it is undefined (a share or a mean of no stories)."""
        negative, _, _, uncertain = self.count.stories
        stories = self.stories
        match metric:
            case Metric.STORIES:
                return float(stories)
            case Metric.NEGATIVE_STORIES:
                return float(negative)
            case _ if stories == 0:
                return None
            case Metric.NEGATIVE_SHARE:
                return negative / stories
            case Metric.UNCERTAIN_SHARE:
                return uncertain / stories
            case Metric.MEAN_SCORE:
                return self.count.score_units / (SCORE_UNIT * stories)


@dataclass(frozen=True, slots=True)
class StoryView:
    """A story as one window of one series sees it.

    `headline`, `at_ms`, `tone`, `document_key` and `model` are those of its first document in the window, whose source is the first
    of `sources`; `copies` are its further documents there.
    """

    story_id: int
    headline: str
    tone: str
    at_ms: int
    sources: tuple[str, ...]
    copies: int
    document_key: int
    model: str


class Readings(Protocol):
    """Where rules read: the windows of every series, and the number of sources behind them."""

    def reading(self, series: Series, window_ms: int, until_ms: int) -> Reading:
        """The count of `series` in [until_ms - window_ms, until_ms). Both are whole minutes."""

    def counted(self, kind: SeriesKind, window_ms: int, until_ms: int) -> list[Series]:
        """The series of one kind with at least one story or copy in the window, sorted."""

    def sources(self, series: Series, window_ms: int, until_ms: int) -> int:
        """Distinct sources of the documents (stories and copies) that the window counts."""

    def stories(self, series: Series, window_ms: int, until_ms: int) -> list[StoryView]:
        """The stories of these documents: negative ones first, then those with most documents, then the earliest."""
