"""Three labelled sets of short financial texts in, one clean corpus with validation parts that training never saw out.

    sentiment/sentfin_{train,dev}.tsv   SEntFiN 1.0: headlines with one polarity per company named       -> sentiment
    sentiment/tfns_train.csv            Twitter financial news sentiment: 0 bearish, 1 bullish, 2 neutral  -> sentiment
    topic/tf_topic_train.csv            Twitter financial news topics, 20 of them, named in classes.txt    -> topic

Texts are normalised as the daemon normalises them. Two texts are the same when their letters and digits are. Of equal texts with
one label one stays; equal texts with different labels are dropped: for SEntFiN that also drops each headline whose companies fare
differently, because such a headline as a whole has no polarity. Validation: SEntFiN's own dev part, and a tenth of each of the two
other sets, drawn by a hash of the text. What stands in a validation part, of whatever set, is removed from training.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pandas as pd

from monitor.classifier.manifest import TrainingFile
from monitor.classifier.model import UNLABELLED
from monitor.classifier.text import normalise
from monitor.types import SENTIMENTS

VALIDATION_SHARE: Final = 0.1
_TFNS: Final = (SENTIMENTS.index("negative"), SENTIMENTS.index("positive"), SENTIMENTS.index("neutral"))


@dataclass(frozen=True, slots=True)
class Example:
    """A normalised text with what its set says about it: a number of `SENTIMENTS`, a number of the topics, or `UNLABELLED`."""

    text: str
    sentiment: int = UNLABELLED
    topic: int = UNLABELLED

    @property
    def key(self) -> str:
        """Letters and digits in one case: what makes two texts the same."""
        return re.sub(r"[\W_]+", " ", self.text.casefold()).strip()


@dataclass(frozen=True, slots=True)
class Corpus:
    """What training reads: examples of all sets together, validation examples per set, the topics' names, the files."""

    train: tuple[Example, ...]
    validation: dict[str, tuple[Example, ...]]
    topics: tuple[str, ...]
    files: tuple[TrainingFile, ...]
    counts: dict[str, dict[str, int]]
    """Per set: rows read, and rows left in `train` and in `validation`."""


def prepare(folder: Path, seed: int) -> Corpus:
    """The corpus of a data folder; `seed` draws the validation parts. Raises OSError or ValueError on a bad file."""
    topics = tuple((folder / "topic/classes.txt").read_text(encoding="utf-8").splitlines())
    sentfin = read_sentfin(folder / "sentiment/sentfin_train.tsv")
    sentfin_dev = read_sentfin(folder / "sentiment/sentfin_dev.tsv")
    tfns = read_tfns(folder / "sentiment/tfns_train.csv")
    topic = read_topic(folder / "topic/tf_topic_train.csv", len(topics))
    tfns_train, tfns_validation = split(without_conflicts(tfns), seed)
    topic_train, topic_validation = split(without_conflicts(topic), seed)
    validation = {
        "sentfin": tuple(without_conflicts(sentfin_dev)),
        "tfns": tuple(tfns_validation),
        "topic": tuple(topic_validation),
    }
    held_out = {example.key for part in validation.values() for example in part} | {example.key for example in sentfin_dev}
    # The sentiment sets are joined before conflicts are looked for: the same headline may stand in both.
    sentiment_train = without_conflicts([*without_conflicts(sentfin), *tfns_train])
    train = tuple(example for example in [*sentiment_train, *topic_train] if example.key not in held_out)
    return Corpus(
        train=train,
        validation=validation,
        topics=topics,
        files=tuple(describe_files(folder)),
        counts={
            "sentiment (sentfin, tfns)": {
                "read": len(sentfin) + len(sentfin_dev) + len(tfns),
                "train": sum(example.sentiment != UNLABELLED for example in train),
                "validation": len(validation["sentfin"]) + len(validation["tfns"]),
            },
            "topic": {
                "read": len(topic),
                "train": sum(example.topic != UNLABELLED for example in train),
                "validation": len(validation["topic"]),
            },
        },
    )


def read_sentfin(path: Path) -> list[Example]:
    """One example per row, that is per company named. Raises ValueError on a label that is no sentiment."""
    table = pd.read_csv(path, sep="\t", quoting=3, dtype=str, keep_default_na=False)
    unknown = set(table["label"]) - set(SENTIMENTS)
    if unknown:
        raise ValueError(f"{path}: unknown labels {sorted(unknown)}")
    labels: dict[str, int] = {name: number for number, name in enumerate(SENTIMENTS)}
    return _examples(table, lambda text, label: Example(text, sentiment=labels[label]))


def read_tfns(path: Path) -> list[Example]:
    """One example per row, its label turned from the set's order into ours. Raises ValueError on another label than 0, 1 or 2."""
    table = _numbered(path, len(_TFNS))
    return _examples(table, lambda text, label: Example(text, sentiment=_TFNS[int(label)]))


def read_topic(path: Path, topics: int) -> list[Example]:
    """One example per row. Raises ValueError on a label that is no line of the list of topics."""
    return _examples(_numbered(path, topics), lambda text, label: Example(text, topic=int(label)))


def _numbered(path: Path, labels: int) -> pd.DataFrame:
    table = pd.read_csv(path, dtype=str, keep_default_na=False)
    unknown = set(table["label"]) - {str(number) for number in range(labels)}
    if unknown:
        raise ValueError(f"{path}: unknown labels {sorted(unknown)}")
    return table


def _examples(table: pd.DataFrame, build: Callable[[str, str], Example]) -> list[Example]:
    built = (build(normalise(text), label) for text, label in zip(table["text"], table["label"], strict=True))
    return [example for example in built if example.key]


def without_conflicts(examples: Iterable[Example]) -> list[Example]:
    """The first of each group of equal texts, in order; no text of a group that disagrees about its label."""
    labels: defaultdict[str, set[tuple[int, int]]] = defaultdict(set)
    first: dict[str, Example] = {}
    for example in examples:
        labels[example.key].add((example.sentiment, example.topic))
        first.setdefault(example.key, example)
    return [example for key, example in first.items() if len(labels[key]) == 1]


def split(examples: Iterable[Example], seed: int, share: float = VALIDATION_SHARE) -> tuple[list[Example], list[Example]]:
    """Training and validation part. A text falls on the same side in every set and every run with the same seed."""
    parts: tuple[list[Example], list[Example]] = ([], [])
    for example in examples:
        parts[_lot(example.key, seed) < share].append(example)
    return parts


def _lot(key: str, seed: int) -> float:
    digest = hashlib.sha256(f"{seed}:{key}".encode()).digest()
    return int.from_bytes(digest[:8], "big") / 2**64


def describe_files(folder: Path) -> Iterable[TrainingFile]:
    """The four files with their SHA-256 and rows, as the manifest lists them."""
    for name, file in (
        ("SEntFiN 1.0", "sentiment/sentfin_train.tsv"),
        ("SEntFiN 1.0 (validation)", "sentiment/sentfin_dev.tsv"),
        ("Twitter financial news sentiment", "sentiment/tfns_train.csv"),
        ("Twitter financial news topic", "topic/tf_topic_train.csv"),
    ):
        content = (folder / file).read_bytes()
        separator, quoting = ("\t", 3) if file.endswith(".tsv") else (",", 0)
        rows = len(pd.read_csv(folder / file, sep=separator, quoting=quoting, dtype=str, keep_default_na=False))  # type: ignore[call-overload]
        yield TrainingFile(name, "MIT", Path(file).name, hashlib.sha256(content).hexdigest(), rows)


def topic_weights(examples: Iterable[Example], topics: int, power: float) -> list[float]:
    """A weight per topic, falling with its frequency to the `power` (0: none), scaled so that the mean over the examples is 1."""
    counts = Counter(example.topic for example in examples if example.topic != UNLABELLED)
    total = sum(counts.values())
    raw = [(max(counts[topic], 1) / max(total, 1)) ** -power for topic in range(topics)]
    mean = sum(raw[topic] * count for topic, count in counts.items()) / max(total, 1)
    return [weight / (mean or 1.0) for weight in raw]
