"""Labelled texts in, a checkpoint folder that the daemon loads out.

A low-rank adapter on every linear layer of the encoder and the two heads are trained; the encoder itself stays as it was published.
Read from `finetune` downwards: data, model, epochs, and then what the best epoch is worth.
"""

from __future__ import annotations

import math
import platform
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from monitor.classifier.base_encoder import BASE_NAME, describe_base, find_base
from monitor.classifier.checkpoint import write_checkpoint
from monitor.classifier.manifest import FORMAT_VERSION, Base, Head, Manifest
from monitor.classifier.text import NORMALISATION
from monitor.types import SENTIMENTS
from pipelines.prepare import Corpus, Example, prepare, topic_weights

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything but the data that decides what comes out; saved with it. The defaults made the shipped checkpoint."""

    seed: int = 1
    epochs: int = 6
    batch_size: int = 32
    learning_rate: float = 1e-3
    """Peak; reached after `warm_up_share` of the steps, zero after the last one."""
    warm_up_share: float = 0.1
    weight_decay: float = 0.01
    gradient_norm: float = 1.0
    rank: int = 16
    alpha: int = 32
    dropout: float = 0.1
    train_max_tokens: int = 96
    topic_weight_power: float = 0.5
    """A topic weighs its frequency to this power, inverted: 0 weighs none, 1 makes all topics weigh the same."""
    limit: int = 0
    """Train on this many examples only; 0: on all."""


DEFAULT: Final = Recipe()


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded token ids and mask (texts, tokens) with the labels of both heads (texts)."""

    token_ids: Any
    mask: Any
    topics: Any
    sentiments: Any


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as the encoder reads it."""

    token_ids: tuple[int, ...]
    topic: int
    sentiment: int


# --- data ----------------------------------------------------------------------------------------


def encode(examples: Sequence[Example], tokenizer: Any, max_tokens: int) -> list[Encoded]:
    """The examples' token ids, special tokens included, cut to `max_tokens`."""
    from monitor.classifier.tokens import cut

    encodings = tokenizer.encode_batch([example.text for example in examples])
    return [
        Encoded(cut(tuple(encoding.ids), max_tokens), example.topic, example.sentiment)
        for encoding, example in zip(encodings, examples, strict=True)
    ]


def batches(examples: Sequence[Encoded], size: int, order: random.Random | None) -> Iterable[list[Encoded]]:
    """Batches of texts of about one length.

    With `order` they are drawn anew: shuffled, sorted within pools of 32 batches, shuffled. Without: sorted, longest first.
    """
    rows = sorted(examples, key=lambda example: -len(example.token_ids))
    if order is not None:
        rows = list(examples)
        order.shuffle(rows)
        pool = 32 * size
        rows = [
            row
            for start in range(0, len(rows), pool)
            for row in sorted(rows[start : start + pool], key=lambda example: -len(example.token_ids))
        ]
    cuts = [rows[start : start + size] for start in range(0, len(rows), size)]
    if order is not None:
        order.shuffle(cuts)
    return cuts


def collate(rows: Sequence[Encoded]) -> Batch:
    """The tensors of a batch."""
    import torch

    from monitor.classifier.model import pad

    token_ids, mask = pad([row.token_ids for row in rows])
    return Batch(token_ids, mask, torch.tensor([row.topic for row in rows]), torch.tensor([row.sentiment for row in rows]))


# --- model ---------------------------------------------------------------------------------------


def build_model(base: Path, topics: int, recipe: Recipe) -> Any:
    """The two-head model on the base encoder with a fresh adapter; only adapter and heads learn."""
    from monitor.classifier.model import TwoHeadModel, add_adapter, load_encoder

    encoder = load_encoder(base)
    for name, module in encoder.named_modules():
        if name.endswith("attention.self.dropout"):
            module.p = 0.0  # it costs a fifth of the time on a CPU, and the other dropouts regularise enough
    return TwoHeadModel(add_adapter(encoder, rank=recipe.rank, alpha=recipe.alpha), topics, recipe.dropout)


def learned(model: Any) -> dict[str, Any]:
    """The tensors that learn, by name: what an epoch is remembered by."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


def rate_at(step: int, steps: int, warm_up_share: float) -> float:
    """The share of the peak learning rate: a line up over the warm-up, a line down to zero after it."""
    warm_up = max(1, round(steps * warm_up_share))
    return (step + 1) / warm_up if step < warm_up else max(0.0, (steps - step) / max(1, steps - warm_up))


# --- epochs --------------------------------------------------------------------------------------


def train_epoch(
    model: Any,
    optimiser: Any,
    examples: Sequence[Encoded],
    *,
    recipe: Recipe,
    epoch: int,
    weights: Any,
    tick: Callable[[float], None],
) -> None:
    """One pass over the examples. Epoch and seed alone decide the order and the dropout, so a resumed run is the same run."""
    import torch

    from monitor.classifier.model import masked_loss

    torch.manual_seed(recipe.seed * 1_000 + epoch)
    order = random.Random(recipe.seed * 1_000 + epoch)  # noqa: S311 (a shuffle)
    steps_each = math.ceil(len(examples) / recipe.batch_size)
    model.train()
    for number, rows in enumerate(batches(examples, recipe.batch_size, order)):
        share = rate_at(epoch * steps_each + number, recipe.epochs * steps_each, recipe.warm_up_share)
        for group in optimiser.param_groups:
            group["lr"] = recipe.learning_rate * share
        batch = collate(rows)
        loss = masked_loss(
            *model(batch.token_ids, batch.mask), topics=batch.topics, sentiments=batch.sentiments, topic_weights=weights
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
        optimiser.step()
        tick(float(loss.detach()))


@dataclass(frozen=True, slots=True)
class Answers:
    """What the model says about a validation part: logits (texts, labels) of the head that the part labels, the truth (texts)."""

    head: str
    logits: Any
    truth: Any


def answers(model: Any, examples: Sequence[Encoded], batch_size: int = 64) -> Answers:
    """The model's logits for a part whose examples are all labelled for the same head."""
    import torch

    from monitor.classifier.model import UNLABELLED

    head = "topic" if examples[0].topic != UNLABELLED else "sentiment"
    logits, truth = [], []
    model.eval()
    with torch.inference_mode():
        for rows in batches(examples, batch_size, None):
            batch = collate(rows)
            topic_logits, sentiment_logits = model(batch.token_ids, batch.mask)
            logits.append(topic_logits if head == "topic" else sentiment_logits)
            truth.append(batch.topics if head == "topic" else batch.sentiments)
    return Answers(head, torch.cat(logits).double().numpy(), torch.cat(truth).numpy())


def macro_f1(part: Answers) -> float:
    """The mean over the labels of the harmonic mean of precision and recall."""
    from sklearn.metrics import f1_score

    labels = range(part.logits.shape[1])
    return float(f1_score(part.truth, part.logits.argmax(axis=1), labels=labels, average="macro", zero_division=0))


@dataclass(frozen=True, slots=True)
class Epoch:
    """A finished epoch: its number from 1, the mean training loss, macro-F1 per validation part."""

    number: int
    loss: float
    macro_f1: dict[str, float]

    @property
    def mean(self) -> float:
        """What the best epoch is best in: the mean of the parts' macro-F1."""
        return sum(self.macro_f1.values()) / len(self.macro_f1)


def save_epoch(folder: Path, epoch: Epoch, model: Any, optimiser: Any, inputs: dict[str, Any]) -> None:
    """Writes an epoch so that it is there as a whole or not at all."""
    import torch

    unfinished = folder / "unfinished.pt"
    torch.save(
        {"epoch": asdict(epoch), "inputs": inputs, "learned": learned(model), "optimiser": optimiser.state_dict()}, unfinished
    )
    unfinished.replace(folder / f"epoch-{epoch.number}.pt")


def load_epochs(folder: Path, inputs: dict[str, Any]) -> list[tuple[Epoch, Path]]:
    """The epochs that an earlier run finished, in order. Raises typer.BadParameter when it had another recipe, base or data."""
    import torch

    found = []
    for path in sorted(folder.glob("epoch-*.pt"), key=lambda path: int(path.stem.removeprefix("epoch-"))):
        saved = torch.load(path, weights_only=True, mmap=True)
        if saved["inputs"] != inputs:
            raise typer.BadParameter(
                f"{folder} holds a run with another recipe, base or data: choose another --output, or delete it"
            )
        found.append((Epoch(**saved["epoch"]), path))
    return found


def restore(path: Path, model: Any, optimiser: Any | None) -> None:
    """Puts what an epoch had learned into the model and, to go on from there, the optimiser's state into `optimiser`."""
    import torch

    saved = torch.load(path, weights_only=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(saved["learned"][name])
    if optimiser is not None:
        optimiser.load_state_dict(saved["optimiser"])


def run_epochs(
    model: Any,
    *,
    train: Sequence[Encoded],
    validation: dict[str, list[Encoded]],
    weights: Any,
    recipe: Recipe,
    folder: Path,
    inputs: dict[str, Any],
    console: Console,
) -> list[tuple[Epoch, Path]]:
    """All epochs of the recipe, those from an earlier run included, each with the file that holds it."""
    import torch

    optimiser = torch.optim.AdamW(
        [parameter for parameter in model.parameters() if parameter.requires_grad],
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
    )
    finished = load_epochs(folder, inputs)
    if finished:
        restore(finished[-1][1], model, optimiser)
        console.print(f"going on after epoch {finished[-1][0].number}")
    steps = math.ceil(len(train) / recipe.batch_size)
    columns = (
        TextColumn("epoch {task.fields[epoch]}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        for number in range(len(finished), recipe.epochs):
            losses: list[float] = []
            task = progress.add_task("", total=steps, epoch=number + 1, loss=float("nan"))

            def tick(loss: float, losses: list[float] = losses, task: Any = task) -> None:
                losses.append(loss)
                progress.update(task, advance=1, loss=sum(losses[-50:]) / len(losses[-50:]))

            train_epoch(model, optimiser, train, recipe=recipe, epoch=number, weights=weights, tick=tick)
            scores = {name: macro_f1(answers(model, part)) for name, part in validation.items()}
            epoch = Epoch(number + 1, sum(losses) / len(losses), scores)
            save_epoch(folder, epoch, model, optimiser, inputs)
            finished.append((epoch, folder / f"epoch-{epoch.number}.pt"))
            parts = ", ".join(f"{name} {score:.3f}" for name, score in scores.items())
            progress.console.print(f"epoch {epoch.number}: loss {epoch.loss:.3f}; macro-F1: {parts}; mean {epoch.mean:.3f}")
    return finished


# --- what it is worth ----------------------------------------------------------------------------


def calibrate(parts: Iterable[Answers]) -> dict[str, tuple[float, float]]:
    """Temperature and limit of certainty per head, fitted on all the parts that label it."""
    import numpy as np

    from pipelines.calibrate import LEAST_ACCURACY, fit_temperature, fit_uncertain_below, probabilities

    fitted = {}
    parts = list(parts)
    for head in ("topic", "sentiment"):
        logits = np.concatenate([part.logits for part in parts if part.head == head])
        truth = np.concatenate([part.truth for part in parts if part.head == head])
        temperature = fit_temperature(logits, truth)
        given = probabilities(logits, temperature)
        limit = fit_uncertain_below(given.max(axis=1), given.argmax(axis=1) == truth, LEAST_ACCURACY[head])
        fitted[head] = (round(temperature, 4), round(limit, 4))
    return fitted


def measure(part: Answers, temperature: float, uncertain_below: float) -> dict[str, float]:
    """The figures of one part: macro-F1, accuracy, calibration error, share of uncertain answers, number of texts."""
    from pipelines.calibrate import calibration_error, probabilities

    given = probabilities(part.logits, temperature)
    confidence, correct = given.max(axis=1), given.argmax(axis=1) == part.truth
    return {
        "macro_f1": round(macro_f1(part), 4),
        "accuracy": round(float(correct.mean()), 4),
        "calibration_error": round(calibration_error(confidence, correct), 4),
        "uncertain_share": round(float((confidence < uncertain_below).mean()), 4),
        "texts": len(part.truth),
    }


def table_of(metrics: dict[str, dict[str, float]]) -> Table:
    """The figures as a table to print."""
    table = Table("set", "macro-F1", "accuracy", "ECE", "uncertain", "texts", title="validation")
    for name, figures in metrics.items():
        table.add_row(
            name,
            f"{figures['macro_f1']:.3f}",
            f"{figures['accuracy']:.3f}",
            f"{figures['calibration_error']:.3f}",
            f"{figures['uncertain_share']:.1%}",
            f"{figures['texts']:.0f}",
        )
    return table


def describe(
    *,
    corpus: Corpus,
    recipe: Recipe,
    base: Base,
    max_tokens: int,
    fitted: dict[str, tuple[float, float]],
    metrics: dict[str, dict[str, float]],
    epochs: Sequence[Epoch],
) -> Manifest:
    """The manifest of the run, but for the files' hashes."""
    libraries = ("torch", "transformers", "peft", "tokenizers", "safetensors", "numpy", "scikit-learn")
    return Manifest(
        format_version=FORMAT_VERSION,
        created=datetime.now(tz=UTC).date().isoformat(),
        base=base,
        pooling="mean",
        normalisation=NORMALISATION,
        max_tokens=max_tokens,
        topic=Head(corpus.topics, *fitted["topic"]),
        sentiment=Head(SENTIMENTS, *fitted["sentiment"]),
        files={},
        data=corpus.files,
        counts=corpus.counts,
        recipe=asdict(recipe),
        seed=recipe.seed,
        metrics=metrics,
        epochs=tuple(
            {"epoch": epoch.number, "loss": round(epoch.loss, 4)}
            | {part: round(score, 4) for part, score in epoch.macro_f1.items()}
            for epoch in epochs
        ),
        libraries={"python": platform.python_version(), **{name: version(name) for name in libraries}},
    )


# --- all of it -----------------------------------------------------------------------------------


@app.command()
def finetune(
    *,
    data: Annotated[Path, typer.Option(help="Folder with sentiment/ and topic/, as pipelines/prepare.py describes it.")],
    output: Annotated[Path, typer.Option(help="Folder to write: epochs/ while it runs, checkpoint/ when it is done.")],
    base: Annotated[
        Path | None, typer.Option(help="Folder with the base encoder; default: the installed package, then the hub.")
    ] = None,
    base_name: Annotated[
        str | None, typer.Option(help="The base's published name; default: all-MiniLM-L6-v2, or the name of the folder.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the validation parts, the first weights, the order and the dropout.")] = 1,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the data; the best one is kept.")] = DEFAULT.epochs,
    batch_size: Annotated[int, typer.Option(min=1, help="Texts a step.")] = DEFAULT.batch_size,
    learning_rate: Annotated[float, typer.Option(min=1e-7, max=1.0, help="At its peak.")] = DEFAULT.learning_rate,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the adapter; its alpha is twice that.")] = DEFAULT.rank,
    train_max_tokens: Annotated[int, typer.Option(min=8, help="Training texts are cut here.")] = DEFAULT.train_max_tokens,
    max_tokens: Annotated[int, typer.Option(min=8, help="Texts are cut here in use.")] = 128,
    limit: Annotated[int, typer.Option(min=0, help="Train on this many texts only, to try things out; 0: on all.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as many as torch likes.")] = 0,
) -> None:
    """Train both heads and write a checkpoint that the daemon loads (model.checkpoint in its configuration).

    Takes about 40 minutes on two CPU cores. A run that is stopped goes on after its last finished epoch when it is called again
    in the same way. Example:

        python -m pipelines.finetune --data data --output runs/first
    """
    import torch

    from monitor.classifier.tokens import load_tokenizer

    console = Console()
    recipe = Recipe(
        seed=seed,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        rank=rank,
        alpha=2 * rank,
        train_max_tokens=train_max_tokens,
        limit=limit,
    )
    if threads:
        torch.set_num_threads(threads)
    torch.manual_seed(seed)
    (output / "epochs").mkdir(parents=True, exist_ok=True)

    corpus = prepare(data, seed)
    examples = corpus.train
    if limit:
        examples = tuple(random.Random(seed).sample(examples, min(limit, len(examples))))  # noqa: S311 (a sample)
    for part, counts in corpus.counts.items():
        console.print(f"{part}: {counts}")

    name = base_name or (BASE_NAME if base is None else base.name)
    folder = find_base(base, name)
    described = describe_base(folder, name)
    tokenizer = load_tokenizer(folder)
    train = encode(examples, tokenizer, train_max_tokens)
    validation = {name: encode(part, tokenizer, max_tokens) for name, part in corpus.validation.items()}
    model = build_model(folder, len(corpus.topics), recipe)
    weights = torch.tensor(topic_weights(examples, len(corpus.topics), recipe.topic_weight_power))

    inputs = {"recipe": asdict(recipe), "base": asdict(described), "files": [file.sha256 for file in corpus.files]}
    finished = run_epochs(
        model,
        train=train,
        validation=validation,
        weights=weights,
        recipe=recipe,
        folder=output / "epochs",
        inputs=inputs,
        console=console,
    )
    best, path = max(finished, key=lambda epoch: epoch[0].mean)
    console.print(f"best: epoch {best.number}")
    restore(path, model, None)
    parts = {name: answers(model, part) for name, part in validation.items()}
    fitted = calibrate(parts.values())
    metrics = {name: measure(part, *fitted[part.head]) for name, part in parts.items()}
    manifest = describe(
        corpus=corpus,
        recipe=recipe,
        base=described,
        max_tokens=max_tokens,
        fitted=fitted,
        metrics=metrics,
        epochs=[epoch for epoch, _ in finished],
    )
    write_checkpoint(output / "checkpoint", model, manifest)
    console.print(table_of(metrics))
    console.print(f"written: {output / 'checkpoint'}")


if __name__ == "__main__":
    app()
