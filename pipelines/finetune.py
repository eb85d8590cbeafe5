"""A corpus, a base encoder and a recipe in, a checkpoint folder that the daemon loads out.

Read from `finetune` downwards: model, epochs, calibration of the best one, and what it is worth on what it never saw.
"""

from __future__ import annotations

import json
import platform
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from monitor.classifier.answers import probabilities
from monitor.classifier.base_encoder import BASE_NAME, describe_base, find_base
from monitor.classifier.checkpoint import round_as_stored, write_checkpoint
from monitor.classifier.familiarity import Surprisals, learn_surprisals, unfamiliarity
from monitor.classifier.manifest import FORMAT_VERSION, POOLING, Base, Calibration, Manifest, Questions
from monitor.classifier.text import NORMALISATION
from monitor.classifier.tokens import load_tokenizer
from monitor.errors import PipelineError
from monitor.types import SENTIMENTS
from pipelines.calibrate import LEAST_ACCURACY, calibration_error, fit_temperature, fit_uncertain_below
from pipelines.corpus import Corpus, Example
from pipelines.distillation import QUESTIONS, Teacher, Teaching, ask, load_teachers
from pipelines.learner import build_model, learning_weights, shippable
from pipelines.recipe import Recipe
from pipelines.training import Answers, Encoded, Epoch, Training, answers, device_name, encode, macro_f1, restore, train
from pipelines.training import Progress as Step

FAMILIAR_SHARE: Final = 0.99
"""So much of the held-out texts counts as like what was trained on."""

TRACKERS: Final = ("tensorboard", "wandb", "mlflow")

FIGURES_FILE: Final = "figures.json"
ANSWERS_FILE: Final = "answers.npz"


@dataclass(frozen=True, slots=True)
class Figures:
    """What a run came to: the `metrics` by part and question, the weights that learned, the texts, CPU time, what it was made of.

    `cpu_seconds` is the CPU time of learning over all `epochs`, in one process, without validation. `inputs` name the recipe, seed,
    corpus and base.
    """

    inputs: dict[str, str | int]
    metrics: dict[str, dict[str, float]]
    learning_weights: int
    texts: int
    epochs: int
    cpu_seconds: float

    @property
    def cpu_seconds_per_1000(self) -> float:
        """The CPU time of learning from a thousand texts once."""
        return self.cpu_seconds / (self.texts * self.epochs) * 1_000


@dataclass(frozen=True, slots=True)
class Finetuned:
    """What a run gave: the checkpoint's folder (None where no checkpoint can hold the method), its manifest, figures and epochs."""

    checkpoint: Path | None
    manifest: Manifest
    figures: Figures
    epochs: tuple[Epoch, ...]


def finetune(
    corpus: Corpus,
    recipe: Recipe,
    *,
    seed: int,
    output: Path,
    base: Path | None = None,
    base_name: str | None = None,
    trackers: Sequence[str] = ("tensorboard",),
    console: Console | None = None,
    judgements: Path | None = None,
) -> Finetuned:
    """Trains and writes `output`/checkpoint; `output`/epochs holds what each epoch had learned.

    `output`/figures.json and `output`/answers.npz hold what it came to on the held-out parts, and what it answered there. A prefix
    cannot be merged into a base: such a run writes no checkpoint. `base` is a folder with the encoder (None: the installed one,
    then the hub); `trackers` are those of accelerate that draw the curves; `judgements` is the folder where what teachers said is
    kept (None: `output`/judgements). Raises PipelineError and ModelError.
    """
    if not any(corpus.validation.values()):
        raise PipelineError("the corpus holds nothing out: there is nothing to choose the best epoch by, and to calibrate on")
    name = base_name or (BASE_NAME if base is None else base.name)
    folder = find_base(base, name)
    described = describe_base(folder, name)
    tokenizer = load_tokenizer(folder)
    examples = limited(corpus.train, recipe.limit, seed)

    accelerator = start(recipe, output, trackers)
    console = (console or Console()) if accelerator.is_main_process else Console(quiet=True)
    rows = [one.prepared.token_ids for one in encode(examples, tokenizer, corpus.topics, recipe.train_max_tokens)]
    tokens = sum(map(len, rows))
    model = fresh_model(folder, len(corpus.topics), recipe, seed=seed, tokens=tokens, accelerator=accelerator)
    learning, device = learning_weights(model), device_name(accelerator)
    console.print(_sizes(model, examples, tokens, recipe))

    teachers = load_teachers(recipe, corpus.topics, {name: folder}, device)
    teach = teaching(teachers, examples, recipe, judgements or output / "judgements", accelerator) if teachers else None
    taught_by = tuple(teacher.version for teacher in teachers)
    validation = {part: encode(held, tokenizer, corpus.topics, recipe.max_tokens) for part, held in corpus.validation.items()}
    inputs: dict[str, str | int] = {
        "recipe": recipe.model_dump_json(),
        "seed": seed,
        "corpus": corpus.sha256,
        "base": described.weights_sha256,
    }
    if teachers:
        inputs["teachers"] = " ".join(taught_by)
    with _progress(console, recipe, accelerator) as tick:
        training = Training(recipe, seed, corpus.topics, tokenizer, accelerator, teach, tick)

        def validate(model: Any) -> dict[str, float]:
            scores = {name: macro_f1(part) for name, part in _parts(model, validation, device).items()}
            accelerator.log({f"macro_f1/{name}": score for name, score in scores.items()})
            console.print(" ".join(f"{name} {score:.4f}" for name, score in scores.items()))
            return scores

        finished = train(model, examples, training=training, validate=validate, folder=output / "epochs", inputs=inputs)
    best, path = max(finished, key=lambda epoch: epoch[0].mean)
    console.print(f"best: epoch {best.number}")
    restore(path, model)
    model = shippable(model, folder, recipe)
    round_as_stored(model)
    parts = _parts(model, validation, device)
    calibration = calibrate(parts.values())
    surprisals = learn_surprisals(rows, tokenizer.get_vocab_size())
    manifest = describe(
        corpus=corpus,
        recipe=recipe,
        seed=seed,
        base=described,
        calibration=calibration,
        out_of_domain_above=familiar_up_to(validation, surprisals),
        metrics={name: measure(part, getattr(calibration, part.question)) for name, part in parts.items()},
        epochs=[epoch for epoch, _ in finished],
        teachers=taught_by,
    )
    spent = round(sum(epoch.cpu_seconds for epoch, _ in finished), 2)
    figures = Figures(inputs, manifest.metrics, learning, len(examples), len(finished), spent)
    checkpoint = None if recipe.method == "prefix" else output / "checkpoint"
    if accelerator.is_main_process:
        if checkpoint is not None:
            manifest = write_checkpoint(checkpoint, model, surprisals, manifest)
        save_answers(output / ANSWERS_FILE, parts)
        save_figures(output / FIGURES_FILE, figures)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    console.print(table_of(manifest.metrics))
    console.print("a prefix cannot be merged: no checkpoint is written" if checkpoint is None else f"written: {checkpoint}")
    return Finetuned(checkpoint, manifest, figures, tuple(epoch for epoch, _ in finished))


def check_trackers(trackers: Sequence[str]) -> None:
    """Raises PipelineError when one is unknown or its package is not installed."""
    for tracker in trackers:
        if tracker not in TRACKERS:
            raise PipelineError(f"{tracker!r} draws no curves: choose from {', '.join(TRACKERS)}")
        if find_spec(tracker) is None:
            raise PipelineError(f"curves with {tracker} need its package: pip install {tracker}")


def start(recipe: Recipe, output: Path, trackers: Sequence[str]) -> Any:
    """Accelerate's view of this machine and its processes, curves begun. Raises PipelineError when it cannot do what is asked."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import ProjectConfiguration

    check_trackers(trackers)
    # Accelerate keeps the precision of a process for good; a table of recipes may have several.
    AcceleratorState._reset_state()  # noqa: SLF001
    if recipe.precision == "fp16" and not torch.accelerator.is_available():
        raise PipelineError("precision fp16 cannot be had on this machine: it has no accelerator")
    try:
        accelerator = Accelerator(
            mixed_precision=recipe.precision,
            log_with=list(trackers) or None,
            project_config=ProjectConfiguration(project_dir=str(output), logging_dir=str(output / "curves")),
        )
    except (ValueError, ImportError) as error:
        raise PipelineError(f"precision {recipe.precision} cannot be had on this machine: {error}") from error
    if trackers:
        accelerator.init_trackers("bellwether", config=_flat(recipe))
    return accelerator


def fresh_model(base: Path, topics: int, recipe: Recipe, *, seed: int, tokens: int, accelerator: Any) -> Any:
    """The model before its first step, on the accelerator's device; `tokens` are those of an epoch."""
    import torch

    torch.manual_seed(seed)
    each = tokens // (recipe.batch_tokens * recipe.accumulation * accelerator.num_processes)
    return build_model(base, topics, recipe, steps=recipe.epochs * max(1, each)).to(accelerator.device)


def teaching(teachers: Sequence[Teacher], examples: Sequence[Example], recipe: Recipe, cache: Path, accelerator: Any) -> Teaching:
    """What the teachers think of the examples. The first process asks them, the others read what they said."""
    with accelerator.main_process_first():
        judgements = [ask(teacher, examples, cache) for teacher in teachers]
    return Teaching(judgements, examples, recipe, device_name(accelerator))


def save_figures(path: Path, figures: Figures) -> None:
    """Writes the figures as JSON, so that they are there as a whole or not at all."""
    unfinished = path.with_suffix(".unfinished")
    unfinished.write_text(json.dumps(asdict(figures), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    unfinished.replace(path)


def load_figures(path: Path) -> Figures | None:
    """What `save_figures` wrote; None when there is nothing. Raises PipelineError when it is damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Figures)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        raise PipelineError(f"{path} cannot be read: {error}") from error


def save_answers(path: Path, parts: Mapping[str, Answers]) -> None:
    """Writes the logits and truths of each part and question."""
    import numpy as np

    arrays = {f"{name}/{kind}": getattr(part, kind) for name, part in parts.items() for kind in ("logits", "truth")}
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)


def load_answers(path: Path) -> dict[str, Answers]:
    """What `save_answers` wrote, by "part/question". Raises PipelineError when it cannot be read."""
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = sorted({name.rpartition("/")[0] for name in arrays.files})
            return {name: Answers(name.rpartition("/")[2], arrays[f"{name}/logits"], arrays[f"{name}/truth"]) for name in names}
    except (OSError, ValueError, KeyError) as error:
        raise PipelineError(f"{path} cannot be read: {error}") from error


def limited(examples: Sequence[Example], limit: int, seed: int) -> tuple[Example, ...]:
    """So many of the examples, drawn by the seed; all of them where the limit is 0."""
    if not limit or limit >= len(examples):
        return tuple(examples)
    return tuple(random.Random(seed).sample(list(examples), limit))  # noqa: S311 (a sample)


def _flat(recipe: Recipe) -> dict[str, str | int | float | bool]:
    return {name: value if isinstance(value, int | float | bool) else str(value) for name, value in recipe.model_dump().items()}


def _sizes(model: Any, examples: Sequence[Example], tokens: int, recipe: Recipe) -> str:
    everything = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{len(examples):,} texts, {tokens:,} tokens an epoch, {max(1, tokens // recipe.batch_tokens):,} batches; "
        f"{learning_weights(model):,} of {everything:,} weights learn ({recipe.method})"
    )


class _progress:  # noqa: N801 (reads as what it does)
    """A bar per epoch on the terminal and a point per ten steps for the trackers, within the context."""

    def __init__(self, console: Console, recipe: Recipe, accelerator: Any) -> None:
        self._accelerator = accelerator
        self._epochs = recipe.epochs
        self._task: Any = None
        self._epoch = -1
        self._losses: list[float] = []
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not accelerator.is_main_process,
        )

    def __enter__(self) -> Any:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, step: Step) -> None:
        if step.epoch != self._epoch:
            self._epoch, self._losses = step.epoch, []
            self._task = self._bar.add_task("", total=step.steps, epoch=f"{step.epoch + 1}/{self._epochs}", loss=float("nan"))
        self._losses = [*self._losses[-49:], step.loss]
        mean = sum(self._losses) / len(self._losses)
        self._bar.update(self._task, advance=1, loss=mean)
        if step.step % 10 == 0:
            self._accelerator.log({"loss": mean, "rate": step.rate}, step=step.epoch * step.steps + step.step)


def _parts(model: Any, validation: Mapping[str, Sequence[Encoded]], device: str) -> dict[str, Answers]:
    """The model's answers, by "part/question"."""
    return {
        f"{part}/{question}": given
        for part, examples in validation.items()
        for question, given in answers(model, examples, device).items()
    }


def calibrate(parts: Any) -> Questions:
    """The calibration of each question over all parts that ask it; without any, the temperature is 1 and nothing is uncertain."""
    import numpy as np

    fitted = {}
    for question in QUESTIONS:
        asked = [part for part in parts if part.question == question]
        if not asked:
            fitted[question] = Calibration(1.0, 0.0)
            continue
        logits, truth = np.concatenate([part.logits for part in asked]), np.concatenate([part.truth for part in asked])
        temperature = fit_temperature(logits, truth)
        given = probabilities(logits, temperature)
        limit = fit_uncertain_below(given.max(axis=1), given.argmax(axis=1) == truth, LEAST_ACCURACY[question])
        fitted[question] = Calibration(round(temperature, 4), round(limit, 4))
    return Questions(**fitted)


def familiar_up_to(validation: Mapping[str, Sequence[Encoded]], surprisals: Surprisals) -> float:
    """The unfamiliarity that `FAMILIAR_SHARE` of the held-out texts lie below, in nats."""
    import numpy as np

    rows = [example.prepared.token_ids for examples in validation.values() for example in examples]
    return round(float(np.quantile(unfamiliarity(rows, surprisals), FAMILIAR_SHARE)), 4)


def measure(part: Answers, calibration: Calibration) -> dict[str, float]:
    """The figures of one part: macro-F1, accuracy, calibration error, share of uncertain answers, number of answers."""
    given = probabilities(part.logits, calibration.temperature)
    confidence, correct = given.max(axis=1), given.argmax(axis=1) == part.truth
    return {
        "macro_f1": round(macro_f1(part), 4),
        "accuracy": round(float(correct.mean()), 4),
        "calibration_error": round(calibration_error(confidence, correct), 4),
        "uncertain_share": round(float((confidence < calibration.uncertain_below).mean()), 4),
        "answers": len(part.truth),
    }


def table_of(metrics: Mapping[str, Mapping[str, float]]) -> Table:
    """The figures as a table to print."""
    table = Table("part/question", "macro-F1", "accuracy", "ECE", "uncertain", "answers", title="held out")
    for name, figures in metrics.items():
        table.add_row(
            name,
            f"{figures['macro_f1']:.3f}",
            f"{figures['accuracy']:.3f}",
            f"{figures['calibration_error']:.3f}",
            f"{figures['uncertain_share']:.1%}",
            f"{figures['answers']:.0f}",
        )
    return table


def describe(
    *,
    corpus: Corpus,
    recipe: Recipe,
    seed: int,
    base: Base,
    calibration: Questions,
    out_of_domain_above: float,
    metrics: dict[str, dict[str, float]],
    epochs: Sequence[Epoch],
    teachers: Sequence[str] = (),
) -> Manifest:
    """The manifest of the run, but for the files' hashes."""
    libraries = ("torch", "transformers", "peft", "accelerate", "tokenizers", "safetensors", "numpy", "scikit-learn")
    return Manifest(
        format_version=FORMAT_VERSION,
        created=datetime.now(tz=UTC).date().isoformat(),
        base=base,
        pooling=POOLING,
        normalisation=NORMALISATION,
        max_tokens=recipe.max_tokens,
        topics=corpus.topics,
        sentiments=SENTIMENTS,
        calibration=calibration,
        out_of_domain_above=out_of_domain_above,
        files={},
        data=corpus.files,
        counts=corpus.counts,
        recipe=_told(recipe, teachers),
        seed=seed,
        metrics=metrics,
        epochs=tuple(
            {"epoch": epoch.number, "loss": round(epoch.loss, 4)}
            | {part: round(score, 4) for part, score in epoch.macro_f1.items()}
            for epoch in epochs
        ),
        libraries={"python": platform.python_version(), **{name: version(name) for name in libraries}},
    )


def _told(recipe: Recipe, teachers: Sequence[str]) -> dict[str, Any]:
    """What differs from the defaults of a recipe, on one level; teachers by their versions, because folders are of one machine."""
    told: dict[str, Any] = recipe.model_dump(mode="python", exclude_defaults=True, exclude={"teachers", "teacher_bases"})
    for question, weight in told.pop("question_weights", {}).items():
        told[f"question_weights.{question}"] = weight
    return told | ({"teachers": tuple(teachers)} if teachers else {})
