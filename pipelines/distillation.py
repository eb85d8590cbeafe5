"""Trained checkpoints and examples in, what the checkpoints together think of each example out: a second teacher beside the labels.

The student learns the mean of the teachers' probabilities for every question, also where an example has no label for it: a text of
which only the topic is known teaches the teachers' sentiment too (Hinton et al. 2015, arXiv:1503.02531). The teachers are asked
once, about the texts as the corpus has them; in whatever words the student reads a text later, their answer stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from monitor.errors import ModelError, PipelineError
from pipelines.corpus import Example
from pipelines.recipe import Recipe
from pipelines.training import Answers, Encoded, batches, encode

QUESTIONS: Final = ("topic", "sentiment", "toward")

BATCH_TOKENS: Final = 2_048


class Judgement(msgspec.Struct, frozen=True, array_like=True):
    """A teacher's probabilities for one example; None for a question that it does not answer, `toward` by the entity's place."""

    topic: tuple[float, ...] | None
    sentiment: tuple[float, ...] | None
    toward: dict[int, tuple[float, ...]]


class Teacher(Protocol):
    """A classifier that is asked what it thinks."""

    @property
    def version(self) -> str:
        """Names everything that decides its answers."""

    def judge(self, examples: Sequence[Example]) -> list[Judgement]:
        """One per example, in order."""


@dataclass(frozen=True, slots=True)
class OwnTeacher:
    """A Bellwether checkpoint: answers every question, at a temperature, in the order of our topics."""

    checkpoint: Any
    topics: tuple[str, ...]
    temperature: float
    device: str

    @property
    def version(self) -> str:
        """The checkpoint's, with the temperature and the topics."""
        return _named(self.checkpoint.version, self.temperature, *self.topics)

    def judge(self, examples: Sequence[Example]) -> list[Judgement]:
        """One per example, in order."""
        import torch

        from monitor.classifier.packing import pack

        known = self.checkpoint.manifest.topics
        order = [known.index(topic) for topic in self.topics]
        model = self.checkpoint.model.to(self.device)
        found: dict[int, Judgement] = {}
        encoded = encode(examples, self.checkpoint.tokenizer, self.topics, self.checkpoint.manifest.max_tokens)
        with torch.inference_mode():
            for rows in batches(encoded, BATCH_TOKENS, None):
                packed = pack([row.prepared for row in rows])
                logits = model(packed.to(self.device))
                given = {name: (getattr(logits, name).double() / self.temperature).softmax(dim=-1).cpu() for name in QUESTIONS}
                toward: dict[int, dict[int, tuple[float, ...]]] = {}
                for number, (place, which) in enumerate(packed.target_order):
                    entity = int(rows[place].prepared.targets[which].entity)
                    toward.setdefault(place, {})[entity] = tuple(given["toward"][number].tolist())
                for number, place in enumerate(packed.order):
                    found[rows[place].place] = Judgement(
                        topic=tuple(given["topic"][number, order].tolist()),
                        sentiment=tuple(given["sentiment"][number].tolist()),
                        toward=toward.get(place, {}),
                    )
        return [found[place] for place in range(len(examples))]


@dataclass(frozen=True, slots=True)
class ForeignTeacher:
    """A published sequence classifier: answers the topic, or the sentiment of a text as a whole, and knows nothing of entities."""

    classifier: Any
    role: str
    topics: tuple[str, ...]

    @property
    def version(self) -> str:
        """The classifier's, which holds the temperature, with the topics."""
        return _named(self.classifier.version, *self.topics)

    def judge(self, examples: Sequence[Example]) -> list[Judgement]:
        """One per example, in order."""
        from monitor.types import SENTIMENTS, Passage

        wanted = self.topics if self.role == "topic" else SENTIMENTS
        order = [self.classifier.labels.index(label) for label in wanted]
        answers = self.classifier.answer(self.classifier.prepare([Passage(example.text) for example in examples]))
        found = [tuple(answer.probabilities[place] for place in order) for answer in answers]
        return [Judgement(given, None, {}) if self.role == "topic" else Judgement(None, given, {}) for given in found]


def load_teachers(recipe: Recipe, topics: Sequence[str], bases: Mapping[str, Path], device: str) -> list[Teacher]:
    """The recipe's teachers. `bases` are folders of base encoders by name, beside those that the recipe names.

    Raises PipelineError when one knows other topics than ours, ModelError when one cannot be loaded.
    """
    from monitor.classifier.manifest import MANIFEST_FILE

    known = {**bases, **{name: Path(folder) for name, folder in recipe.teacher_bases.items()}}
    return [
        _own(Path(folder), recipe, tuple(topics), known, device)
        if (Path(folder) / MANIFEST_FILE).is_file()
        else _foreign(Path(folder), recipe, tuple(topics), device)
        for folder in recipe.teachers
    ]


def _own(folder: Path, recipe: Recipe, topics: tuple[str, ...], bases: Mapping[str, Path], device: str) -> OwnTeacher:
    from monitor.classifier.checkpoint import load_checkpoint
    from monitor.classifier.manifest import read_manifest

    manifest = read_manifest(folder)
    if set(manifest.topics) != set(topics):
        raise PipelineError(f"the teacher {folder} knows other topics than the corpus: {', '.join(manifest.topics)}")
    return OwnTeacher(load_checkpoint(folder, bases.get(manifest.base.name)), topics, recipe.teacher_temperature, device)


def _foreign(folder: Path, recipe: Recipe, topics: tuple[str, ...], device: str) -> ForeignTeacher:
    from monitor.classifier.published import Role, find_published
    from monitor.classifier.sequence_classification import SequenceClassifier
    from monitor.config import SentimentSettings, TopicSettings

    faults = []
    settings: dict[Role, SentimentSettings | TopicSettings] = {
        "sentiment": SentimentSettings(checkpoint=folder, temperature=recipe.teacher_temperature),
        "topic": TopicSettings(checkpoint=folder, temperature=recipe.teacher_temperature),
    }
    for role, own in settings.items():
        try:
            published = find_published(role, own, fetch=False)
        except ModelError as error:
            faults.append(str(error))
            continue
        assert published is not None
        if role == "topic" and set(published.labelling.labels) != set(topics):
            faults.append(f"its topics are {', '.join(published.labelling.labels)}")
            continue
        return ForeignTeacher(SequenceClassifier(published, device), role, topics)
    raise PipelineError("\n  ".join([f"{folder} cannot teach:", *faults]))


def ask(teacher: Teacher, examples: Sequence[Example], cache: Path) -> list[Judgement]:
    """The teacher's judgements, one per example, in order; what it was asked before is read from a file of the `cache` folder.

    The file is named after the teacher's version and maps a hash of text and entities to the judgement, so that runs with other
    seeds, recipes or parts of the corpus share it.
    """
    path = cache / f"{teacher.version}.msgpack"
    known: dict[str, Judgement] = {}
    if path.is_file():
        try:
            known = msgspec.msgpack.decode(path.read_bytes(), type=dict[str, Judgement])
        except (OSError, msgspec.DecodeError) as error:
            raise PipelineError(f"{path} cannot be read: {error}; delete it, and the teacher is asked again") from error
    keys = [_key(example) for example in examples]
    new = {key: example for key, example in zip(keys, examples, strict=True) if key not in known}
    if new:
        known.update(zip(new, teacher.judge(list(new.values())), strict=True))
        cache.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".unfinished")
        unfinished.write_bytes(msgspec.msgpack.encode(known))
        unfinished.replace(path)
    return [known[key] for key in keys]


def _key(example: Example) -> str:
    asked = [example.text, [(one.start, one.end) for one in example.toward]]
    return hashlib.sha256(msgspec.json.encode(asked)).hexdigest()[:32]


def _named(*parts: object) -> str:
    return hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


class Teaching:
    """What all teachers together think of a list of examples, and the loss of a student that thinks otherwise."""

    def __init__(self, judgements: Sequence[Sequence[Judgement]], examples: Sequence[Example], recipe: Recipe, device: str) -> None:
        """`judgements` has a list per teacher, in the order of the examples. Raises PipelineError when no question is answered."""
        import torch

        self._recipe = recipe
        self._first = [0]
        topic, sentiment, toward = [], [], []
        for place, example in enumerate(examples):
            given = [teacher[place] for teacher in judgements]
            topic.append(mean([one.topic for one in given]))
            sentiment.append(mean([one.sentiment for one in given]))
            toward += [mean([one.toward.get(which) for one in given]) for which in range(len(example.toward))]
            self._first.append(self._first[-1] + len(example.toward))
        self._taught = {
            question: _table(rows).to(device) for question, rows in (("topic", topic), ("sentiment", sentiment), ("toward", toward))
        }
        if not any(bool(torch.isfinite(table).any()) for table in self._taught.values()):
            raise PipelineError("the teachers answer none of the questions")

    def __call__(self, logits: Any, rows: Sequence[Encoded], packed: Any) -> Any:
        """The loss: the Kullback-Leibler divergence of the student from the teachers at their temperature, its square times.

        The square makes its gradients as large as those of the labels. Every answer weighs the same, times its question's weight.
        """
        import torch
        from torch.nn import functional

        temperature = self._recipe.teacher_temperature
        asked = {
            "topic": [rows[place].place for place in packed.order],
            "sentiment": [rows[place].place for place in packed.order],
            "toward": [
                self._first[rows[place].place] + int(rows[place].prepared.targets[which].entity)
                for place, which in packed.target_order
            ],
        }
        total: Any = (logits.topic.sum() + logits.sentiment.sum() + logits.toward.sum()) * 0.0
        given: Any = 0.0
        for question, places in asked.items():
            table = self._taught[question]
            if not places or not table.shape[1]:
                continue
            wanted = table[torch.tensor(places, device=table.device)]
            known = torch.isfinite(wanted).all(dim=1)
            said = functional.log_softmax(getattr(logits, question)[known].float() / temperature, dim=-1)
            weight = self._recipe.question_weights.get(question, 1.0)  # type: ignore[call-overload]
            total = total + weight * functional.kl_div(said, wanted[known], reduction="sum")
            given = given + weight * known.sum()
        return temperature**2 * total / torch.as_tensor(given).clamp(min=1.0)


def mean(probabilities: Sequence[Sequence[float] | None]) -> tuple[float, ...] | None:
    """The mean of those that are given; None when none is."""
    given = [one for one in probabilities if one is not None]
    return tuple(sum(column) / len(given) for column in zip(*given, strict=True)) if given else None


def _table(rows: Sequence[tuple[float, ...] | None]) -> Any:
    """Rows of probabilities as a matrix, not-a-number where nothing is known."""
    import torch

    width = max((len(row) for row in rows if row is not None), default=0)
    return torch.tensor([row if row is not None else (float("nan"),) * width for row in rows]).reshape(len(rows), width)


def ensemble(parts: Sequence[Mapping[str, Answers]]) -> dict[str, Answers]:
    """The answers of several models to the same questions as one: the logarithm of the mean of their probabilities.

    Raises PipelineError when they were not asked the same.
    """
    import numpy as np

    from monitor.classifier.answers import probabilities

    together = {}
    for name, first in parts[0].items():
        same = [part[name] for part in parts if name in part and np.array_equal(part[name].truth, first.truth)]
        if len(same) != len(parts):
            raise PipelineError(f"the models of an ensemble were not all asked {name} about the same texts")
        thought = np.mean([probabilities(one.logits) for one in same], axis=0)
        together[name] = Answers(first.question, np.log(np.maximum(thought, 1e-300)), first.truth)
    return together
