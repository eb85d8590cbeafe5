"""Recipes and seeds in, a table of what each recipe gives and costs out: the mean and deviation over the seeds, run by run.

The corpus stays, and with it what is held out; a seed draws first weights, order, dropout and augmentation. A run that is done is
not done again, so that a table can be stopped, gone on with, and grow by a recipe.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from monitor.classifier.base_encoder import BASE_NAME, describe_base, find_base
from monitor.errors import PipelineError
from pipelines.corpus import Corpus
from pipelines.distillation import ensemble
from pipelines.finetune import ANSWERS_FILE, FIGURES_FILE, Figures, finetune, load_answers, load_figures
from pipelines.recipe import Recipe
from pipelines.training import macro_f1

RUNS_FOLDER: Final = "runs"


@dataclass(frozen=True, slots=True)
class Spread:
    """The mean over the seeds and the standard deviation of the sample; 0 of a single seed."""

    mean: float
    deviation: float


@dataclass(frozen=True, slots=True)
class Row:
    """What a recipe gave: macro-F1 by "part/question", the mean of the parts, and the same of all seeds' models together.

    `difference` is that of the mean to the first recipe's, seed by seed. `ensemble` averages the probabilities of the seeds'
    models; empty of a single seed. `cpu_seconds_per_1000` is the CPU time of learning from a thousand texts once.
    """

    recipe: str
    seeds: tuple[int, ...]
    macro_f1: dict[str, Spread]
    mean: Spread
    difference: Spread
    ensemble: dict[str, float]
    learning_weights: int
    cpu_seconds_per_1000: float


def ablate(
    corpus: Corpus,
    recipes: Mapping[str, Recipe],
    seeds: Sequence[int],
    *,
    output: Path,
    base: Path | None = None,
    base_name: str | None = None,
    console: Console | None = None,
) -> list[Row]:
    """Trains every recipe with every seed and writes `output`/table.json and `output`/table.md.

    Raises PipelineError when `output` holds a finished run of the same name that was made from something else.
    """
    if not recipes or not seeds:
        raise PipelineError("a table needs a recipe and a seed")
    console = console or Console()
    name = base_name or (BASE_NAME if base is None else base.name)
    weights = describe_base(find_base(base, name), name).weights_sha256
    figures: dict[str, list[Figures]] = {}
    for recipe_name, recipe in recipes.items():
        for seed in seeds:
            folder = output / RUNS_FOLDER / f"{recipe_name}-{seed}"
            found = load_figures(folder / FIGURES_FILE)
            if found is None:
                console.rule(f"{recipe_name}, seed {seed}")
                found = finetune(
                    corpus,
                    recipe,
                    seed=seed,
                    output=folder,
                    base=base,
                    base_name=base_name,
                    trackers=(),
                    console=console,
                    judgements=output / "judgements",
                ).figures
            wanted = {"recipe": recipe.model_dump_json(), "seed": seed, "corpus": corpus.sha256, "base": weights}
            if {key: found.inputs.get(key) for key in wanted} != wanted:
                raise PipelineError(f"{folder} is a run with another recipe, base or corpus: choose another folder, or delete it")
            figures.setdefault(recipe_name, []).append(found)
    rows = tabulate(figures, seeds, output)
    (output / "table.json").write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")
    (output / "table.md").write_text(markdown(rows), encoding="utf-8")
    return rows


def tabulate(figures: Mapping[str, Sequence[Figures]], seeds: Sequence[int], output: Path) -> list[Row]:
    """One row per recipe, from the figures of its runs in the order of the seeds, and from their answers."""
    first = [_mean(run) for run in next(iter(figures.values()))]
    rows = []
    for name, runs in figures.items():
        means = [_mean(run) for run in runs]
        parts = runs[0].metrics.keys()
        rows.append(
            Row(
                recipe=name,
                seeds=tuple(seeds),
                macro_f1={part: spread([run.metrics[part]["macro_f1"] for run in runs]) for part in parts},
                mean=spread(means),
                difference=spread([own - other for own, other in zip(means, first, strict=True)]),
                ensemble=_together([output / RUNS_FOLDER / f"{name}-{seed}" for seed in seeds]),
                learning_weights=runs[0].learning_weights,
                cpu_seconds_per_1000=round(statistics.mean(run.cpu_seconds_per_1000 for run in runs), 2),
            )
        )
    return rows


def spread(values: Sequence[float]) -> Spread:
    """Mean and deviation of some figures, at least one, to four digits."""
    return Spread(round(statistics.mean(values), 4), round(statistics.stdev(values), 4) if len(values) > 1 else 0.0)


def _mean(run: Figures) -> float:
    return statistics.mean(part["macro_f1"] for part in run.metrics.values())


def _together(folders: Sequence[Path]) -> dict[str, float]:
    """Macro-F1 of the mean probabilities of the runs in these folders."""
    if len(folders) < 2:
        return {}
    together = ensemble([load_answers(folder / ANSWERS_FILE) for folder in folders])
    return {name: round(macro_f1(part), 4) for name, part in together.items()}


def markdown(rows: Sequence[Row]) -> str:
    """The rows as a table to read: points of macro-F1, mean ± deviation."""
    parts = list(rows[0].macro_f1)
    seeds = ", ".join(map(str, rows[0].seeds))
    columns = ["recipe", *parts, "mean", "to the first", "all seeds together", "weights learning", "CPU s / 1,000 texts"]
    lines = [
        f"Macro-F1 on the held-out parts in points, mean ± standard deviation over the seeds {seeds}.",
        "",
        "| " + " | ".join(columns) + " |",
        "|---" * len(columns) + "|",
    ]
    for row in rows:
        together = f"{100 * statistics.mean(row.ensemble.values()):.1f}" if row.ensemble else "–"
        cells = [
            row.recipe,
            *(_points(row.macro_f1[part]) for part in parts),
            _points(row.mean),
            _points(row.difference, sign="+"),
            together,
            f"{row.learning_weights:,}",
            f"{row.cpu_seconds_per_1000:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _points(figure: Spread, sign: str = "") -> str:
    return f"{100 * figure.mean:{sign}.1f} ± {100 * figure.deviation:.1f}"
