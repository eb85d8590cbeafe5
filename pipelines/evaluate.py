"""A classifier and labelled texts in, what its answers are worth out: every figure of a report, as one value.

Read from `evaluate` downwards. Only the classifier's own contract is used (prepare, classify), so that whatever the daemon can run
can be measured: the shipped checkpoint, a compressed one, one published by others, or none.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from monitor.classifier.protocol import Accountable, Classifier, Prepared
from monitor.errors import PipelineError
from monitor.types import SENTIMENTS, Mention, Opinion, Passage, Prediction
from pipelines.bench import Latency, Pace, measure_latency, measure_paces
from pipelines.calibrate import calibration_error
from pipelines.corpus import Corpus, Example
from pipelines.robustness import CHANGES, denials, out_of_domain

FORMAT_VERSION: Final = 1
EVALUATION_FILE: Final = "evaluation.json"
BINS: Final = 15
DRAWS: Final = 1_000
DRAWS_AT_ONCE: Final = 50
INTERVAL: Final = 0.95
CHUNK: Final = 256
SPEED_TEXTS: Final = 200

Question = Literal["topic", "sentiment", "toward"]
QUESTIONS: Final[tuple[Question, ...]] = ("topic", "sentiment", "toward")

Numbers = NDArray[np.int64]
Reals = NDArray[np.float64]
Tick = Callable[[str, int], None]
"""Told what is being asked about, and how many texts were answered."""


# --- what is measured ----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LabelFigures:
    """One label: the share of the answers that say it which are right, the share of those that should say it which do, the harmonic
    mean of both, and how many should.
    """

    precision: float
    recall: float
    f1: float
    support: int


@dataclass(frozen=True, slots=True)
class Bin:
    """The answers whose confidence lies in [`low`, `high`): their number, mean confidence and accuracy (None of no answers)."""

    low: float
    high: float
    answers: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """One question asked about one held-out part.

    `macro_f1` is the mean F1 of the labels that occur in truth or answers; in 95 % of 1,000 samples of the texts, drawn with
    replacement, it lies between `macro_f1_low` and `macro_f1_high`. `confusion` counts answers, a row per true label and a column
    per given one, in the order of `labels`. `calibration_error` is the expected one over 15 equal bins. `certain_accuracy` is that
    of the answers that are not uncertain; None where all are.
    """

    texts: int
    answers: int
    macro_f1: float
    macro_f1_low: float
    macro_f1_high: float
    accuracy: float
    calibration_error: float
    uncertain_share: float
    certain_accuracy: float | None
    labels: tuple[str, ...]
    per_label: dict[str, LabelFigures]
    confusion: tuple[tuple[int, ...], ...]
    reliability: tuple[Bin, ...]


@dataclass(frozen=True, slots=True)
class SliceFigures:
    """One question asked about the texts of all parts that have something in common."""

    answers: int
    macro_f1: float
    accuracy: float
    calibration_error: float


@dataclass(frozen=True, slots=True)
class ChangeFigures:
    """One question asked again about the texts that a change leaves different: the share of answers that became others, and the
    macro-F1 before and after.
    """

    answers: int
    flip_rate: float
    macro_f1_before: float
    macro_f1: float


@dataclass(frozen=True, slots=True)
class DenialFigures:
    """Sentences and their denials: `plain_right` of the sentences are understood; of those `denied_right` of the denials are, too.

    A denial is understood when its answer is no longer the sentence's. `denied_right` is None where no sentence is understood.
    """

    sentences: int
    plain_right: float
    denied_right: float | None


@dataclass(frozen=True, slots=True)
class OutOfDomain:
    """How well texts of other kinds are told apart from the held-out ones.

    `auroc` is the chance that one of them looks newer than one of those, by `score`; the shares are of texts that the classifier
    marks as out of domain.
    """

    score: str
    texts: int
    auroc: float
    marked_share: float
    held_out_marked_share: float


@dataclass(frozen=True, slots=True)
class Conflicts:
    """Texts that name entities of opposite fortunes: their number, and how many have every entity right."""

    texts: int
    all_right: float


@dataclass(frozen=True, slots=True)
class Speed:
    """How fast held-out texts are answered: alone, and many at a time."""

    tokens_per_text: float
    alone: Latency
    together: Pace


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Everything that an evaluation found; keys of its JSON are the names here and do not change within a `format_version`.

    `parts` maps "part/question" to figures, `slices` a question to kinds of slices to slices, `changes` a change to questions,
    `negation` a language to figures toward the company named. `corpus` is the SHA-256 of the corpus, `weights` the number of
    weights and `bytes` the size of the checkpoint, where they are known.
    """

    format_version: int
    created: str
    classifier: str
    device: str
    precision: str
    encoder: str
    corpus: str
    seed: int
    weights: int | None
    bytes: int | None
    parts: dict[str, Figures]
    slices: dict[str, dict[str, dict[str, SliceFigures]]]
    conflicts: Conflicts | None
    changes: dict[str, dict[str, ChangeFigures]]
    negation: dict[str, DenialFigures]
    out_of_domain: OutOfDomain
    speed: Speed
    machine: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Read:
    """A labelled text and what the classifier said about it. The entity of its n-th `toward` has the id "n"."""

    example: Example
    prepared: Prepared
    prediction: Prediction


@dataclass(frozen=True, slots=True)
class Answers:
    """Answers to one question where the truth is known: numbers of labels, and which text each answer is about.

    `truth`, `given`, `text`: (answers); `probabilities`: (answers, labels); `uncertain`: (answers).
    """

    labels: tuple[str, ...]
    truth: Numbers
    given: Numbers
    probabilities: Reals
    uncertain: NDArray[np.bool_]
    text: Numbers


# --- the evaluation ------------------------------------------------------------------------------


def evaluate(
    classifier: Classifier,
    corpus: Corpus,
    *,
    parts: Sequence[str] = (),
    seed: int = 1,
    weights: int | None = None,
    size: int | None = None,
    tick: Tick = lambda _what, _texts: None,
) -> Evaluation:
    """Every figure about the held-out `parts` of a corpus (none named: all).

    `seed` draws the samples behind the intervals and the texts that are timed. `weights` and `size` are those of the checkpoint,
    where it has any. Raises PipelineError when a part is unknown or empty, or names a topic that the classifier does not know.
    """
    held = _held_out(corpus, parts)
    _check_topics(classifier, held)
    reads = {name: ask(classifier, examples, partial(tick, name)) for name, examples in held.items()}
    everything = [read for part in reads.values() for read in part]
    engine = classifier.engine if isinstance(classifier, Accountable) else None
    passages = [passage_of(read.example) for read in everything]
    return Evaluation(
        format_version=FORMAT_VERSION,
        created=datetime.now(tz=UTC).date().isoformat(),
        classifier=classifier.version,
        device=classifier.device,
        precision="" if engine is None else engine.precision,
        encoder="" if engine is None else engine.encoder,
        corpus=corpus.sha256,
        seed=seed,
        weights=weights,
        bytes=size,
        parts={
            f"{name}/{question}": figures(answers, seed)
            for name, part in reads.items()
            for question in QUESTIONS
            if (answers := answers_to(question, part, classifier.topics)) is not None
        },
        slices=slices(everything, classifier.topics),
        conflicts=conflicts(everything),
        changes={name: changed(classifier, everything, change, partial(tick, name)) for name, change in CHANGES.items()},
        negation=negation(classifier),
        out_of_domain=told_apart(classifier, everything),
        speed=speed(classifier, _sample(passages, SPEED_TEXTS, seed)),
        machine=machine(),
    )


def _held_out(corpus: Corpus, parts: Sequence[str]) -> dict[str, tuple[Example, ...]]:
    unknown = [name for name in parts if name not in corpus.validation]
    if unknown:
        raise PipelineError(f"the corpus holds out no part {', '.join(unknown)}; it has {', '.join(sorted(corpus.validation))}")
    held = {name: corpus.validation[name] for name in parts or sorted(corpus.validation)}
    empty = [name for name, examples in held.items() if not examples]
    if empty or not held:
        raise PipelineError(f"nothing is held out in {', '.join(empty) or 'the corpus'}: there is nothing to measure on")
    return held


def _check_topics(classifier: Classifier, held: Mapping[str, Iterable[Example]]) -> None:
    asked = {example.topic for examples in held.values() for example in examples if example.topic is not None}
    unknown = sorted(asked - set(classifier.topics))
    if unknown:
        raise PipelineError(
            f"the classifier does not know the topic {', '.join(unknown[:5])}; it knows {', '.join(classifier.topics[:30])}: "
            "map its labels (model.topic.labels), or leave the part out"
        )


def _sample(passages: Sequence[Passage], number: int, seed: int) -> list[Passage]:
    chosen = np.random.default_rng(seed).permutation(len(passages))[:number]
    return [passages[place] for place in chosen]


def machine() -> dict[str, str]:
    """What it ran on: the processor, its cores, the libraries' versions."""
    import os

    names = ("torch", "transformers", "tokenizers", "numpy")
    return {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "python": platform.python_version(),
        **{name: version(name) for name in names},
    }


def _processor() -> str:
    """The processor's name as Linux tells it, else what the platform says."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


# --- asking --------------------------------------------------------------------------------------


def passage_of(example: Example) -> Passage:
    """The example as the classifier reads it; the n-th entity with a label has the id "n"."""
    mentions = sorted(Mention(one.start, one.end, str(which)) for which, one in enumerate(example.toward))
    return Passage(example.text, tuple(mentions))


def classify(
    classifier: Classifier, passages: Sequence[Passage], tick: Callable[[int], None] = lambda _: None
) -> tuple[list[Prepared], list[Prediction]]:
    """All passages prepared and classified, in order, some hundred at a time; `tick` is told how many."""
    prepared: list[Prepared] = []
    predictions: list[Prediction] = []
    for start in range(0, len(passages), CHUNK):
        chunk = classifier.prepare(passages[start : start + CHUNK])
        prepared += chunk
        predictions += classifier.classify(chunk)
        tick(len(chunk))
    return prepared, predictions


def ask(classifier: Classifier, examples: Sequence[Example], tick: Callable[[int], None] = lambda _: None) -> list[Read]:
    """What the classifier says about each example, in order."""
    prepared, predictions = classify(classifier, [passage_of(example) for example in examples], tick)
    return [Read(*read) for read in zip(examples, prepared, predictions, strict=True)]


def answers_to(question: Question, reads: Sequence[Read], topics: Sequence[str]) -> Answers | None:
    """The answers to a question where its truth is known; None when it is nowhere.

    Toward an entity that the classifier has no opinion of, its answer is the opinion of the text, as in the daemon.
    """
    labels = tuple(topics) if question == "topic" else tuple(SENTIMENTS)
    rows = [(place, *answer) for place, read in enumerate(reads) for answer in _answers(question, read)]
    if not rows:
        return None
    text, truth, given, probabilities, uncertain = zip(*rows, strict=True)
    return Answers(
        labels=labels,
        truth=np.array([labels.index(label) for label in truth], dtype=np.int64),
        given=np.array([labels.index(label) for label in given], dtype=np.int64),
        probabilities=np.asarray(probabilities, dtype=np.float64),
        uncertain=np.array(uncertain, dtype=np.bool_),
        text=np.array(text, dtype=np.int64),
    )


def _answers(question: Question, read: Read) -> Iterator[tuple[str, str, tuple[float, ...], bool]]:
    """Per label of one text: the truth, the answer, its probabilities, whether it is uncertain."""
    example, prediction = read.example, read.prediction
    if question == "topic" and example.topic is not None:
        yield example.topic, prediction.topic, prediction.topic_probabilities, prediction.topic_uncertain
    if question == "sentiment" and example.sentiment is not None:
        opinion = prediction.document
        yield example.sentiment, opinion.sentiment, opinion.probabilities, opinion.uncertain
    if question == "toward":
        for which, one in enumerate(example.toward):
            opinion = prediction.opinion(str(which))
            yield one.sentiment, opinion.sentiment, opinion.probabilities, opinion.uncertain


# --- figures -------------------------------------------------------------------------------------


def figures(answers: Answers, seed: int) -> Figures:
    """All figures of one question; `seed` draws the samples behind the interval."""
    confidence = answers.probabilities.max(axis=1)
    correct = answers.given == answers.truth
    confusion = confusion_of(answers)
    low, high = interval(answers, seed)
    certain = ~answers.uncertain
    return Figures(
        texts=len(np.unique(answers.text)),
        answers=len(answers.truth),
        macro_f1=_round(macro_f1(confusion)),
        macro_f1_low=_round(low),
        macro_f1_high=_round(high),
        accuracy=_round(correct.mean()),
        calibration_error=_round(calibration_error(confidence, correct, BINS)),
        uncertain_share=_round(answers.uncertain.mean()),
        certain_accuracy=_round(correct[certain].mean()) if certain.any() else None,
        labels=answers.labels,
        per_label=per_label(confusion, answers.labels),
        confusion=tuple(tuple(int(number) for number in row) for row in confusion),
        reliability=tuple(reliability(confidence, correct)),
    )


def _round(number: Any) -> float:
    return round(float(number), 4)


def confusion_of(answers: Answers) -> Reals:
    """How many answers each true (row) and each given label (column) has."""
    size = len(answers.labels)
    counts = np.bincount(answers.truth * size + answers.given, minlength=size * size)
    return counts.reshape(size, size).astype(np.float64)


def f1_per_label(confusion: Reals) -> Reals:
    """The harmonic mean of precision and recall of each label; NaN for one that occurs neither in the truth nor in the answers.

    `confusion` may be many (..., labels, labels); so is what is given back (..., labels).
    """
    both = confusion.sum(axis=-2) + confusion.sum(axis=-1)
    with np.errstate(invalid="ignore"):
        found: Reals = 2 * np.diagonal(confusion, axis1=-2, axis2=-1) / both
    return found


def macro_f1(confusion: Reals) -> float:
    """The mean F1 of the labels that occur."""
    return float(np.nanmean(f1_per_label(confusion)))


def interval(answers: Answers, seed: int) -> tuple[float, float]:
    """Between which limits macro-F1 lies in 95 % of 1,000 samples with replacement.

    Whole texts are drawn, because answers about one text are wrong together (the cluster bootstrap).
    """
    draw = np.random.default_rng(seed)
    size = len(answers.labels)
    texts, text = np.unique(answers.text, return_inverse=True)
    pairs, pair = np.unique(answers.truth * size + answers.given, return_inverse=True)
    held = np.zeros((len(texts), len(pairs)))
    np.add.at(held, (text, pair), 1)
    found = []
    for _ in range(DRAWS // DRAWS_AT_ONCE):
        times = draw.multinomial(len(texts), np.full(len(texts), 1 / len(texts)), size=DRAWS_AT_ONCE)
        confusions = np.zeros((DRAWS_AT_ONCE, size * size))
        confusions[:, pairs] = times @ held
        found.append(np.nanmean(f1_per_label(confusions.reshape(-1, size, size)), axis=-1))
    low, high = np.quantile(np.concatenate(found), ((1 - INTERVAL) / 2, (1 + INTERVAL) / 2))
    return float(low), float(high)


def per_label(confusion: Reals, labels: Sequence[str]) -> dict[str, LabelFigures]:
    """Precision, recall, F1 and support of each label; 0 where a share of nothing would be asked for."""
    right, given, truth = np.diagonal(confusion), confusion.sum(axis=0), confusion.sum(axis=1)
    f1 = np.nan_to_num(f1_per_label(confusion))
    return {
        label: LabelFigures(
            _round(right[place] / max(given[place], 1)),
            _round(right[place] / max(truth[place], 1)),
            _round(f1[place]),
            int(truth[place]),
        )
        for place, label in enumerate(labels)
    }


def reliability(confidence: Reals, correct: NDArray[np.bool_]) -> Iterator[Bin]:
    """Accuracy against confidence in equal bins of confidence."""
    number = np.minimum((confidence * BINS).astype(int), BINS - 1)
    for which in range(BINS):
        inside = number == which
        there = bool(inside.any())
        yield Bin(
            _round(which / BINS),
            _round((which + 1) / BINS),
            int(inside.sum()),
            _round(confidence[inside].mean()) if there else None,
            _round(correct[inside].mean()) if there else None,
        )


# --- slices --------------------------------------------------------------------------------------


def length_of(read: Read) -> str:
    """The slice of lengths that a text belongs to."""
    if read.prepared.truncated:
        return "longer than is read"
    tokens = read.prepared.tokens
    return next((f"{low}–{high} tokens" for low, high in ((1, 16), (17, 32), (33, 64)) if tokens <= high), "65 tokens and more")


def entities_of(read: Read) -> str:
    """Whether a text names entities that a sentiment is known toward."""
    return {0: "names none", 1: "names one"}.get(len(read.example.toward), "names several")


def fortunes_of(read: Read) -> str:
    """Whether the entities of a text fare alike."""
    found = {one.sentiment for one in read.example.toward}
    if {"negative", "positive"} <= found:
        return "opposite"
    return "different" if len(found) > 1 else "alike"


SLICES: Final[dict[str, Callable[[Read], str]]] = {
    "length": length_of,
    "set": lambda read: read.example.part,
    "entities": entities_of,
    "fortunes": fortunes_of,
}


def slices(reads: Sequence[Read], topics: Sequence[str]) -> dict[str, dict[str, dict[str, SliceFigures]]]:
    """Per question and kind of slice the figures of each slice; a kind that does not part the texts of a question is left out."""
    found: dict[str, dict[str, dict[str, SliceFigures]]] = {}
    for question in QUESTIONS:
        for kind, slice_of in SLICES.items():
            groups: dict[str, list[Read]] = {}
            for read in reads:
                groups.setdefault(slice_of(read), []).append(read)
            parts = {
                name: slice_figures(answers)
                for name, group in sorted(groups.items())
                if (answers := answers_to(question, group, topics)) is not None
            }
            if len(parts) > 1:
                found.setdefault(question, {})[kind] = parts
    return found


def slice_figures(answers: Answers) -> SliceFigures:
    """The figures of one slice."""
    correct = answers.given == answers.truth
    return SliceFigures(
        answers=len(correct),
        macro_f1=_round(macro_f1(confusion_of(answers))),
        accuracy=_round(correct.mean()),
        calibration_error=_round(calibration_error(answers.probabilities.max(axis=1), correct, BINS)),
    )


def conflicts(reads: Iterable[Read]) -> Conflicts | None:
    """The texts that name entities of opposite fortunes; None where there are none."""
    right = [
        all(read.prediction.opinion(str(which)).sentiment == one.sentiment for which, one in enumerate(read.example.toward))
        for read in reads
        if fortunes_of(read) == "opposite"
    ]
    return Conflicts(len(right), _round(sum(right) / len(right))) if right else None


# --- robustness ----------------------------------------------------------------------------------


def changed(
    classifier: Classifier,
    reads: Sequence[Read],
    change: Callable[[Passage], Passage],
    tick: Callable[[int], None] = lambda _: None,
) -> dict[str, ChangeFigures]:
    """Per question, what a change that should not matter does to the answers; of texts that it leaves different alone."""
    pairs = [(read, other) for read in reads if (other := change(passage_of(read.example))).text != read.example.text]
    if not pairs:
        return {}
    before = [read for read, _ in pairs]
    _, predictions = classify(classifier, [other for _, other in pairs], tick)
    after = [Read(read.example, read.prepared, prediction) for read, prediction in zip(before, predictions, strict=True)]
    found: dict[str, ChangeFigures] = {}
    for question in QUESTIONS:
        old, new = (answers_to(question, side, classifier.topics) for side in (before, after))
        if old is not None and new is not None:
            found[question] = ChangeFigures(
                answers=len(old.truth),
                flip_rate=_round((old.given != new.given).mean()),
                macro_f1_before=_round(macro_f1(confusion_of(old))),
                macro_f1=_round(macro_f1(confusion_of(new))),
            )
    return found


def negation(classifier: Classifier) -> dict[str, DenialFigures]:
    """Per language, whether the classifier hears a "not", by its opinion of the company that the sentences name."""
    pairs = list(denials())
    opinions: list[list[Opinion]] = []
    for side in ([pair.plain for pair in pairs], [pair.denied for pair in pairs]):
        _, predictions = classify(classifier, side)
        opinions.append([prediction.opinion("it") for prediction in predictions])
    found = {}
    for language in dict.fromkeys(pair.language for pair in pairs):
        heard = [
            (plain.sentiment == pair.says, denied.sentiment != pair.says)
            for pair, plain, denied in zip(pairs, *opinions, strict=True)
            if pair.language == language
        ]
        denied_right = [denied for plain, denied in heard if plain]
        found[language] = DenialFigures(
            sentences=len(heard),
            plain_right=_round(len(denied_right) / len(heard)),
            denied_right=_round(sum(denied_right) / len(denied_right)) if denied_right else None,
        )
    return found


def told_apart(classifier: Classifier, reads: Sequence[Read]) -> OutOfDomain:
    """How well texts of other kinds are told apart from those read."""
    from sklearn.metrics import roc_auc_score

    _, foreign = classify(classifier, out_of_domain())
    own = [read.prediction for read in reads]
    unlike = [prediction.unfamiliarity for prediction in [*own, *foreign]]
    known = all(one is not None for one in unlike)
    scores = np.array(unlike if known else [1 - max(prediction.topic_probabilities) for prediction in [*own, *foreign]])
    return OutOfDomain(
        score="surprise of the rarer half of their words" if known else "one minus the topic's probability",
        texts=len(foreign),
        auroc=_round(roc_auc_score([0] * len(own) + [1] * len(foreign), scores)),
        marked_share=_round(np.mean([prediction.out_of_domain for prediction in foreign])),
        held_out_marked_share=_round(np.mean([prediction.out_of_domain for prediction in own])),
    )


def speed(classifier: Classifier, passages: Sequence[Passage]) -> Speed:
    """How fast the passages are answered on this machine."""
    tokens = [one.tokens for one in classifier.prepare(passages)]
    return Speed(
        tokens_per_text=round(sum(tokens) / len(tokens), 1),
        alone=measure_latency(classifier, passages),
        together=measure_paces(classifier, passages, [len(passages)], rounds=3)[0],
    )


# --- what is kept, and what it must reach --------------------------------------------------------


def save_evaluation(evaluation: Evaluation, path: Path) -> None:
    """Writes it as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(asdict(evaluation)), indent=2) + b"\n")


def load_evaluation(path: Path) -> Evaluation:
    """What `save_evaluation` wrote. Raises PipelineError when it cannot be read or is of another format."""
    try:
        evaluation = msgspec.json.decode(path.read_bytes(), type=Evaluation)
    except (OSError, msgspec.DecodeError) as error:
        raise PipelineError(f"{path} is no evaluation: {error}; make it with `bellwether-train evaluate`") from error
    if evaluation.format_version != FORMAT_VERSION:
        raise PipelineError(f"{path} has format {evaluation.format_version}, not {FORMAT_VERSION}: evaluate again")
    return evaluation


def parse_floor(wanted: str) -> tuple[str, float]:
    """The "part/question" and the macro-F1 of "part/question=0.85". Raises PipelineError."""
    name, _, number = wanted.rpartition("=")
    try:
        floor = float(number)
    except ValueError:
        floor = -1.0
    if not name or not 0 <= floor <= 1:
        raise PipelineError(f"{wanted!r} is no floor: write it as part/question=0.85")
    return name, floor


def misses(evaluation: Evaluation, floors: Mapping[str, float]) -> list[str]:
    """A sentence for each floor of macro-F1 that is missed. Raises PipelineError for a figure that was not measured."""
    unknown = [name for name in floors if name not in evaluation.parts]
    if unknown:
        raise PipelineError(f"{', '.join(unknown)} was not measured; there is {', '.join(evaluation.parts)}")
    return [
        f"{name}: macro-F1 is {evaluation.parts[name].macro_f1:.4f}, {floor - evaluation.parts[name].macro_f1:.4f} below {floor:g}"
        for name, floor in floors.items()
        if evaluation.parts[name].macro_f1 < floor
    ]


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of one part, before and now."""

    name: str
    figure: str
    before: float
    now: float

    @property
    def change(self) -> float:
        """What was gained; below 0: lost."""
        return round(self.now - self.before, 4)


def differences(before: Evaluation, now: Evaluation) -> list[Difference]:
    """What changed between two evaluations, in the figures and parts that both have."""
    shared = [name for name in now.parts if name in before.parts]
    return [
        Difference(name, figure, getattr(before.parts[name], figure), getattr(now.parts[name], figure))
        for name in shared
        for figure in ("macro_f1", "accuracy", "calibration_error", "uncertain_share")
    ]


def losses(before: Evaluation, now: Evaluation, allowed: float) -> list[str]:
    """A sentence for each part whose macro-F1 fell by more than `allowed`, or that is no longer there.

    Raises PipelineError when both measured other held-out texts: then the difference means nothing.
    """
    if before.corpus != now.corpus:
        raise PipelineError(f"the other evaluation was made on another corpus ({before.corpus[:12]}, not {now.corpus[:12]})")
    lost = [
        f"{one.name}: macro-F1 fell by {-one.change:.4f}, from {one.before:.4f} to {one.now:.4f}; {allowed:g} is allowed"
        for one in differences(before, now)
        if one.figure == "macro_f1" and -one.change > allowed
    ]
    return lost + [f"{name} was not measured this time" for name in before.parts if name not in now.parts]
