"""Files of labelled texts in, one clean corpus with held-out parts that training never sees out.

Every row is normalised as the daemon normalises a text. Two texts are the same when their letters and digits are. Rows of one
text become one example: what they say about its topic, its sentiment, and the sentiment toward each entity it names. What rows
contradict each other about is dropped. Where all entities of a text fare alike, that is the sentiment of the text as a whole too,
unless a row says otherwise. A text that is held out, in whatever set, or that nearly equals one, is removed from training.
"""

from __future__ import annotations

import gzip
import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
import pandas as pd
import yaml
import zstandard
from pydantic import Field, ValidationError, model_validator

from monitor.classifier.manifest import TrainingFile
from monitor.classifier.text import normalise
from monitor.config import Section, describe_faults
from monitor.errors import PipelineError
from monitor.types import SENTIMENTS, Sentiment
from monitor.watchlist import MIN_ALIAS_CHARACTERS, find_name
from pipelines.corpus import Corpus, Example, Toward, key_of

Label = TypeVar("Label")

SHIPPED_SETS: Final = Path(__file__).parent / "sets" / "shipped.yaml"
NEAR: Final = 0.8
"""Texts that share this part of their words' triples are nearly equal."""


class Columns(Section):
    """Which columns of a table say what; `text` must be there, and at least one of the others."""

    text: str = "text"
    topic: str | None = None
    sentiment: str | None = None
    entity: str | None = None
    """Holds the name that `sentiment` is about, as the text writes it; empty: the text as a whole."""


class DataSet(Section):
    """One data set: its files, relative to the data folder (`.csv`, `.tsv` without quoting, `.jsonl`; also `.zst`, `.gz`)."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    title: str = ""
    licence: str
    train: str
    validation: str | None = None
    """A file that is held out whole; unset: `validation_share` of `train`, drawn by a hash of the text."""
    validation_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    columns: Columns = Columns()
    sentiments: Annotated[dict[str, Sentiment], Field(default_factory=dict)]
    """What the set calls the sentiments; unset: negative, neutral, positive."""
    topics: Annotated[dict[str, str | None], Field(default_factory=dict)]
    """What the set calls the topics; null: the row says nothing about a topic. Unset: by their names."""
    unknown_topics: Literal["refuse", "skip"] = "refuse"
    """What becomes of a row whose topic is neither listed nor mapped: an error, or it says nothing about a topic."""
    numbered_topics: bool = False
    """The set gives a topic as its number in the list of topics, from 0."""

    @model_validator(mode="after")
    def _says_something(self) -> DataSet:
        if self.columns.topic is None and self.columns.sentiment is None:
            raise ValueError("columns names neither topic nor sentiment: the set would teach nothing")
        if self.columns.entity is not None and self.columns.sentiment is None:
            raise ValueError("columns names an entity and no sentiment toward it")
        return self


class Sets(Section):
    """The data sets of a corpus, and its topics: a list, or a file with one topic a line."""

    topics: str | tuple[str, ...]
    sets: Annotated[tuple[DataSet, ...], Field(min_length=1)]


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table, cleaned: `toward` is the place of the entity that `sentiment` is about; None: the text as a whole."""

    text: str
    topic: str | None
    sentiment: Sentiment | None
    toward: tuple[int, int] | None


def read_sets(path: Path) -> Sets:
    """The description of a corpus in a YAML file. Raises PipelineError that lists every fault."""
    try:
        return Sets.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise PipelineError("\n  ".join([f"{path} cannot be used:", *describe_faults(error)])) from error


def prepare(folder: Path, sets: Sets, seed: int) -> Corpus:
    """The corpus of a data folder; `seed` draws the held-out parts. Raises PipelineError: the file, the line, what is wrong."""
    topics = _topics(folder, sets)
    train: list[Example] = []
    validation: dict[str, tuple[Example, ...]] = {}
    counts: dict[str, dict[str, int]] = {}
    files: list[TrainingFile] = []
    for described in sets.sets:
        dropped: Counter[str] = Counter()
        rows = _read(folder / described.train, described, topics, files=files, dropped=dropped)
        examples = list(_merge(rows, described.name, dropped))
        if described.validation is None:
            own, held = split(examples, seed, described.validation_share)
        else:
            held_rows = _read(folder / described.validation, described, topics, files=files, dropped=dropped)
            own, held = examples, list(_merge(held_rows, described.name, dropped))
        train += own
        validation[described.name] = tuple(held)
        counts[described.name] = {"validation": len(held), **{f"dropped: {why}": number for why, number in dropped.items()}}
    joined = _joined(train)
    kept = list(without_leaks(joined, [example for part in validation.values() for example in part]))
    for described in sets.sets:
        counts[described.name]["train"] = sum(example.part == described.name for example in kept)
    counts["all"] = {"train": len(kept), "leaks removed": len(joined) - len(kept)}
    return Corpus(tuple(kept), validation, topics, tuple(files), seed, counts)


# --- reading -------------------------------------------------------------------------------------


def _topics(folder: Path, sets: Sets) -> tuple[str, ...]:
    if not isinstance(sets.topics, str):
        return sets.topics
    try:
        topics = tuple(line.strip() for line in (folder / sets.topics).read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise PipelineError(f"{folder / sets.topics} cannot be read: {error}") from error
    if len(set(topics)) != len(topics):
        raise PipelineError(f"{folder / sets.topics} names a topic twice")
    return topics


def read_table(path: Path) -> pd.DataFrame:
    """A table of text, by the name of its file. Raises PipelineError when it cannot be read."""
    kind = _kind(path)
    try:
        if kind == ".jsonl":
            return _read_json_lines(path)
        if kind == ".tsv":
            return pd.read_csv(path, sep="\t", quoting=3, dtype=str, keep_default_na=False)
        if kind == ".csv":
            return pd.read_csv(path, dtype=str, keep_default_na=False)
    except (OSError, ValueError, msgspec.DecodeError, zstandard.ZstdError) as error:
        raise PipelineError(f"{path} cannot be read: {' '.join(str(error).split())[:300]}") from error
    raise PipelineError(f"{path} is neither .csv nor .tsv nor .jsonl")


def _kind(path: Path) -> str:
    return path.suffixes[-2] if path.suffix in {".zst", ".gz"} and len(path.suffixes) > 1 else path.suffix


def _read_json_lines(path: Path) -> pd.DataFrame:
    """One object a line; what is missing or null is empty. Pandas' own reader would make 3.0 of a 3 beside a missing number."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        content = gzip.decompress(content)
    elif path.suffix == ".zst":
        content = zstandard.ZstdDecompressor().decompressobj().decompress(content)
    lines = [msgspec.json.decode(line, type=dict[str, Any]) for line in content.splitlines() if line.strip()]
    return pd.DataFrame([{name: "" if value is None else str(value) for name, value in line.items()} for line in lines]).fillna("")


def _read(path: Path, described: DataSet, topics: Sequence[str], *, files: list[TrainingFile], dropped: Counter[str]) -> list[Row]:
    table = read_table(path)
    columns = described.columns
    wanted = [column for column in (columns.text, columns.topic, columns.sentiment, columns.entity) if column is not None]
    missing = [column for column in wanted if column not in table]
    if missing:
        raise PipelineError(f"{path} has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}")
    files.append(
        TrainingFile(
            described.title or described.name,
            described.licence,
            path.name,
            hashlib.sha256(path.read_bytes()).hexdigest(),
            len(table),
        )
    )
    topic_of = _topic_reader(described, topics)
    rows = []
    for number, line in enumerate(table.to_dict("records"), start=1 if _kind(path) == ".jsonl" else 2):
        try:
            row = _row(line, described, topic_of)
        except ValueError as error:
            raise PipelineError(f"{path}, line {number}: {error}") from error
        if not key_of(row.text):
            dropped["no text"] += 1
        elif columns.entity is not None and line[columns.entity].strip() and row.toward is None:
            dropped["entity not in the text"] += 1
        else:
            rows.append(row)
    return rows


def _topic_reader(described: DataSet, topics: Sequence[str]) -> Callable[[str], str | None]:
    def topic_of(label: str) -> str | None:
        label = label.strip()
        if not label:
            return None
        if described.numbered_topics:
            if not label.isdecimal() or int(label) >= len(topics):
                raise ValueError(f"{label!r} is no number of a topic")
            return topics[int(label)]
        topic = described.topics.get(label, label)
        if topic is not None and topic not in topics:
            if described.unknown_topics == "skip":
                return None
            raise ValueError(f"{label!r} is no topic: list it under topics, or map it")
        return topic

    return topic_of


def _row(line: Mapping[Any, str], described: DataSet, topic_of: Callable[[str], str | None]) -> Row:
    columns = described.columns
    text = normalise(line[columns.text])
    return Row(
        text=text,
        topic=None if columns.topic is None else topic_of(line[columns.topic]),
        sentiment=None if columns.sentiment is None else _sentiment(line[columns.sentiment], described),
        toward=None if columns.entity is None else find(normalise(line[columns.entity]), text),
    )


def _sentiment(label: str, described: DataSet) -> Sentiment | None:
    label = label.strip()
    if not label:
        return None
    if label in described.sentiments:
        return described.sentiments[label]
    for sentiment in SENTIMENTS:
        if label == sentiment and not described.sentiments:
            return sentiment
    raise ValueError(f"{label!r} is no sentiment: it must be one of {', '.join(described.sentiments or SENTIMENTS)}")


def find(name: str, text: str) -> tuple[int, int] | None:
    """Where a text first names something, as the daemon finds a name that is on no list; None: nowhere.

    A name of a single character is found nowhere: it would stand in every text.
    """
    found = find_name(name, text, entity="named") if len(name) >= MIN_ALIAS_CHARACTERS else ()
    return (found[0].start, found[0].end) if found else None


# --- cleaning ------------------------------------------------------------------------------------


def _merge(rows: Iterable[Row], part: str, dropped: Counter[str]) -> Iterator[Example]:
    """One example per text, of what its rows agree about."""
    groups: defaultdict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key_of(row.text)].append(row)
    for group in groups.values():
        text = group[0].text
        dropped["repeated"] += len(group) - len({(row.topic, row.sentiment, row.toward) for row in group})
        topic = _agreed((row.topic for row in group), dropped)
        whole: Sentiment | None = _agreed((row.sentiment for row in group if row.toward is None), dropped)
        by_place: defaultdict[tuple[int, int], list[Sentiment | None]] = defaultdict(list)
        for row in group:
            if row.toward is not None and row.text == text:
                by_place[row.toward].append(row.sentiment)
        agreed: dict[tuple[int, int], Sentiment | None] = {
            place: _agreed(found, dropped) for place, found in sorted(by_place.items())
        }
        toward = tuple(Toward(*place, sentiment) for place, sentiment in agreed.items() if sentiment is not None)
        alike = {one.sentiment for one in toward}
        if whole is None and len(alike) == 1 and all(row.toward is not None for row in group):
            whole = next(iter(alike))
        if topic is not None or whole is not None or toward:
            yield Example(text, part, topic, whole, toward)


def _agreed(labels: Iterable[Label | None], dropped: Counter[str]) -> Label | None:
    """What the labels say; None when they say nothing or contradict each other."""
    found = {label for label in labels if label is not None}
    if len(found) > 1:
        dropped["contradictory"] += 1
        return None
    return next(iter(found), None)


def split(examples: Iterable[Example], seed: int, share: float) -> tuple[list[Example], list[Example]]:
    """Training and held-out part. A text falls on the same side in every set and every run with the same seed."""
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        parts[lot(example.key, seed) < share].append(example)
    return parts


def lot(key: str, seed: int) -> float:
    """A number from 0 to 1 that a text and a seed draw, always the same one."""
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def _joined(examples: Iterable[Example]) -> list[Example]:
    """Examples of several sets: of equal texts the first that says something about a question is asked about it."""
    by_key: dict[str, Example] = {}
    for example in examples:
        known = by_key.get(example.key)
        if known is None:
            by_key[example.key] = example
        elif known.topic is None and example.topic is not None:
            by_key[example.key] = Example(known.text, known.part, example.topic, known.sentiment, known.toward)
        elif known.sentiment is None and not known.toward and example.text == known.text:
            by_key[example.key] = Example(known.text, known.part, known.topic, example.sentiment, example.toward)
    return list(by_key.values())


def without_leaks(train: Iterable[Example], held: Iterable[Example]) -> Iterator[Example]:
    """The examples whose text neither is held out nor nearly equals a text that is."""
    keys = {example.key for example in held}
    triples = {key: _triples(key) for key in keys}
    holders: defaultdict[str, list[str]] = defaultdict(list)
    for key, own in triples.items():
        for triple in own:
            holders[triple].append(key)
    for example in train:
        own = _triples(example.key)
        shared = Counter(key for triple in own for key in holders.get(triple, ()))
        near = any(common >= NEAR * (len(own) + len(triples[key]) - common) for key, common in shared.items())
        if example.key not in keys and not near:
            yield example


def _triples(key: str) -> set[str]:
    """The runs of three words of a key; of three characters where a text has no spaces to speak of."""
    words = key.split()
    parts: Sequence[str] = words if len(words) * 12 > len(key) else key.replace(" ", "")
    if len(parts) < 3:
        return {key}
    return {" ".join(parts[start : start + 3]) for start in range(len(parts) - 2)}
