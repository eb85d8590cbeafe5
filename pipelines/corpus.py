"""Labelled examples to a corpus folder and back: what training and evaluation read, and nothing else of the data."""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from monitor.classifier.manifest import TrainingFile
from monitor.errors import PipelineError
from monitor.types import Sentiment

CORPUS_FILE: Final = "corpus.json"
TRAIN_FILE: Final = "train.jsonl"


@dataclass(frozen=True, slots=True)
class Toward:
    """The sentiment toward what the characters from `start` up to `end` of a text name."""

    start: int
    end: int
    sentiment: Sentiment


@dataclass(frozen=True, slots=True)
class Example:
    """A normalised text and what is known of it: its topic, its sentiment as a whole, the sentiment toward some it names.

    What is not known is None or missing, and teaches nothing. `part` names the data set that it came from.
    """

    text: str
    part: str
    topic: str | None = None
    sentiment: Sentiment | None = None
    toward: tuple[Toward, ...] = ()

    @property
    def key(self) -> str:
        """Letters and digits in one case: what makes two texts the same."""
        return key_of(self.text)


@dataclass(frozen=True, slots=True)
class Corpus:
    """What training reads: examples to learn from, held-out examples by part, the topics, the files that all of it came from.

    `counts` tells, per part, the examples left in `train` and in `validation`, and what was dropped for which reason.
    """

    train: tuple[Example, ...]
    validation: dict[str, tuple[Example, ...]]
    topics: tuple[str, ...]
    files: tuple[TrainingFile, ...]
    seed: int
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def sha256(self) -> str:
        """Names the content: examples, split and topics."""
        digest = hashlib.sha256()
        for example in (*self.train, *(example for _, part in sorted(self.validation.items()) for example in part)):
            digest.update(msgspec.json.encode(example))
        digest.update(json.dumps([self.topics, {name: len(part) for name, part in sorted(self.validation.items())}]).encode())
        return digest.hexdigest()


def key_of(text: str) -> str:
    """A text's letters and digits in one case, words parted by one space."""
    return re.sub(r"[\W_]+", " ", text.casefold()).strip()


def save_corpus(corpus: Corpus, folder: Path) -> None:
    """Writes one JSON line an example (`train.jsonl`, `validation-PART.jsonl`) and, last, what is known of them (`corpus.json`)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CORPUS_FILE).unlink(missing_ok=True)
    for old in folder.glob("validation-*.jsonl"):
        old.unlink()
    _write(folder / TRAIN_FILE, corpus.train)
    for name, part in corpus.validation.items():
        _write(folder / f"validation-{name}.jsonl", part)
    known = {
        "topics": corpus.topics,
        "validation": sorted(corpus.validation),
        "seed": corpus.seed,
        "sha256": corpus.sha256,
        "files": [asdict(file) for file in corpus.files],
        "counts": corpus.counts,
    }
    (folder / CORPUS_FILE).write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _write(path: Path, examples: Iterable[Example]) -> None:
    path.write_bytes(b"".join(msgspec.json.encode(example) + b"\n" for example in examples))


class _Known(msgspec.Struct, frozen=True):
    topics: tuple[str, ...]
    validation: tuple[str, ...]
    seed: int
    sha256: str
    files: tuple[TrainingFile, ...]
    counts: dict[str, dict[str, int]]


def load_corpus(folder: Path) -> Corpus:
    """The corpus that `save_corpus` wrote. Raises PipelineError when it is missing, damaged or was changed by hand."""
    try:
        known = msgspec.json.decode((folder / CORPUS_FILE).read_bytes(), type=_Known)
        corpus = Corpus(
            train=_read(folder / TRAIN_FILE),
            validation={name: _read(folder / f"validation-{name}.jsonl") for name in known.validation},
            topics=known.topics,
            files=known.files,
            seed=known.seed,
            counts=known.counts,
        )
    except FileNotFoundError as error:
        raise PipelineError(f"{error.filename} is missing: make the corpus with `bellwether-train data`") from error
    except (OSError, msgspec.DecodeError) as error:
        raise PipelineError(f"{folder} is no corpus: {error}") from error
    if corpus.sha256 != known.sha256:
        raise PipelineError(f"{folder} was changed after it was made: make it again with `bellwether-train data`")
    return corpus


def _read(path: Path) -> tuple[Example, ...]:
    decoder = msgspec.json.Decoder(Example)
    return tuple(decoder.decode(line) for line in path.read_bytes().splitlines())


def topic_weights(examples: Iterable[Example], topics: Sequence[str], power: float) -> list[float]:
    """A weight per topic, falling with its frequency to the `power` (0: none), scaled so that the mean over the examples is 1."""
    counts = Counter(example.topic for example in examples if example.topic is not None)
    total = sum(counts.values())
    raw = [(max(counts[topic], 1) / max(total, 1)) ** -power for topic in topics]
    mean = sum(weight * counts[topic] for topic, weight in zip(topics, raw, strict=True)) / max(total, 1)
    return [weight / (mean or 1.0) for weight in raw]
