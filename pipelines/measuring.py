"""What the command line names in, the classifier and the held-out texts that an evaluation is about, and its summary, out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from monitor.classifier.protocol import Classifier
from monitor.config import ModelSettings, describe_faults, load_settings
from monitor.errors import PipelineError
from pipelines.corpus import Corpus, load_corpus
from pipelines.evaluate import Evaluation, differences, evaluate
from pipelines.robustness import CHANGES

FILE_PART = "file"


def shipped_checkpoint() -> Path:
    """The folder of the shipped checkpoint."""
    from monitor.classifier.load import checkpoint_folder

    return checkpoint_folder(ModelSettings())


def held_out(corpus: Path | None, file: Path | None, columns: str, topics: Sequence[str]) -> Corpus:
    """The corpus of a folder, of a labelled table, or of both: then the table is one part more.

    Raises PipelineError when neither is given, or one cannot be read.
    """
    if file is None and corpus is None:
        raise PipelineError("nothing to measure on: give --corpus, or --file with its --columns")
    known = None if corpus is None else load_corpus(corpus)
    if file is None:
        assert known is not None
        return known
    own = _table(file, columns, topics)
    return own if known is None else replace(known, validation=known.validation | own.validation, files=(*known.files, *own.files))


def _table(file: Path, columns: str, topics: Sequence[str]) -> Corpus:
    from pipelines.data import Columns, Sets, prepare

    pairs = [pair.partition("=")[::2] for pair in columns.split(",")]
    faults = [f"{name}={column}" for name, column in pairs if name not in Columns.model_fields or not column]
    if faults:
        raise PipelineError(f"--columns: {', '.join(faults)} is not one of text, topic, sentiment, entity = a column of the table")
    # The table is read as a set of which everything is held out.
    described = {"name": FILE_PART, "licence": "unknown", "train": file.name, "validation": file.name, "columns": dict(pairs)}
    try:
        sets = Sets.model_validate({"topics": tuple(topics), "sets": [described]})
    except ValidationError as error:
        raise PipelineError("\n  ".join(["--columns cannot be used:", *describe_faults(error)])) from error
    return prepare(file.parent, sets, seed=0)


def measure(
    texts: Callable[[Sequence[str]], Corpus],
    *,
    checkpoint: Path | None,
    base: Path | None,
    config: Path | None,
    parts: Sequence[str],
    seed: int,
    threads: int,
) -> Evaluation:
    """The evaluation of a checkpoint, or of what a configuration names; `texts` gives the corpus for the topics it knows.

    Raises PipelineError and ModelError; ConfigurationError for a configuration that cannot be used.
    """
    import torch

    if threads:
        torch.set_num_threads(threads)
    classifier, known = _configured(config) if config is not None else _from_checkpoint(checkpoint or shipped_checkpoint(), base)
    corpus = texts(classifier.topics)
    named = parts or sorted(corpus.validation)
    total = sum(len(corpus.validation.get(name, ())) for name in named)
    with _progress() as progress:
        tasks = {
            name: progress.add_task(f"changed: {name}" if name in CHANGES else name, total=total) for name in (*named, *CHANGES)
        }
        for name in named:
            progress.update(tasks[name], total=len(corpus.validation.get(name, ())))
        return evaluate(
            classifier, corpus, parts=parts, seed=seed, tick=lambda name, texts: progress.advance(tasks[name], texts), **known
        )


def _from_checkpoint(folder: Path, base: Path | None) -> tuple[Classifier, dict[str, Any]]:
    from monitor.classifier.checkpoint import load_checkpoint
    from monitor.classifier.two_head import TwoHeadClassifier

    loaded = load_checkpoint(folder, base)
    return TwoHeadClassifier(loaded), {
        "weights": sum(parameter.numel() for parameter in loaded.model.parameters()),
        "size": sum((folder / name).stat().st_size for name in loaded.manifest.files),
    }


def _configured(config: Path) -> tuple[Classifier, dict[str, Any]]:
    from monitor.classifier.load import load_classifier

    return load_classifier(load_settings(config).model), {}


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=Console(stderr=True)
    )


def table_of(evaluation: Evaluation, before: Evaluation | None = None) -> Table:
    """The figures of each part as a table to print; with an evaluation from before, what macro-F1 gained or lost."""
    table = Table("part/question", "macro-F1", "95 %", "accuracy", "ECE", "uncertain", "answers", title=evaluation.classifier)
    changes = (
        {} if before is None else {one.name: one.change for one in differences(before, evaluation) if one.figure == "macro_f1"}
    )
    if before is not None:
        table.add_column(f"since {before.classifier}")
    for name, part in evaluation.parts.items():
        since = [] if before is None else [f"{changes[name]:+.4f}" if name in changes else "new"]
        table.add_row(
            name,
            f"{part.macro_f1:.3f}",
            f"{part.macro_f1_low:.3f} – {part.macro_f1_high:.3f}",
            f"{part.accuracy:.3f}",
            f"{part.calibration_error:.3f}",
            f"{part.uncertain_share:.1%}",
            f"{part.answers:,}",
            *since,
        )
    return table
