"""A checkpoint in, a smaller and faster one that may replace it out: its feed-forward blocks with fewer columns.

Whole columns are taken out, because zeros in between make nothing faster on a CPU. Which ones, and how the others take their work
over, is learned from texts without labels and without training (Kwon et al. 2022, arXiv:2204.09656): per layer the columns that the
others can best stand in for go, and the weights of those that stay are fitted anew by least squares, so that the layer says what it
said before.

Whole numbers (int8) are not offered, because none of torch's kernels keeps both the answers and the promise that an answer does not
depend on its batch. Measured on a CPU without VNNI: with scales per pass 1.6 times as fast, up to 1.5 points of macro-F1 lost, and
an answer depends on its neighbours; with fixed scales 1.3 times as fast, up to 1.2 points lost.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Final

from rich.table import Table

from monitor.classifier.checkpoint import Checkpoint, load_checkpoint, write_checkpoint
from monitor.classifier.manifest import Manifest
from monitor.classifier.protocol import Classifier, Prepared
from monitor.errors import PipelineError
from monitor.types import SENTIMENTS, Passage
from pipelines.bench import measure_paces, mixed_texts
from pipelines.corpus import Corpus
from pipelines.evaluate import QUESTIONS, SliceFigures, answers_to, ask, passage_of, slice_figures

COMPRESSION_FILE: Final = "compression.json"
ROUNDS: Final = 8
"""Columns are taken out in so many rounds, what they are worth is reckoned anew in each."""
RIDGE: Final = 1e-4
"""Added to the diagonal of the columns' products, as a share of its mean: some columns nearly repeat each other."""
PASS_TOKENS: Final = 2_048
SPEED_TEXTS: Final = 64


@dataclass(frozen=True, slots=True)
class Compression:
    """What a compression cost and gave; `missed` has a sentence for each held-out part that lost too much.

    `columns`, `weights` and `documents_per_cpu_second` are (before, after); `before` and `after` map "part/question" to figures.
    """

    columns: tuple[int, int]
    weights: tuple[int, int]
    documents_per_cpu_second: tuple[float, float]
    before: dict[str, SliceFigures]
    after: dict[str, SliceFigures]
    missed: tuple[str, ...]


def compress(
    corpus: Corpus, checkpoint: Path, base: Path | None, output: Path, *, keep: float, texts: int, max_loss: float, seed: int
) -> Compression:
    """Prunes to `keep` of the columns, measures before and after on every held-out part, and writes `output`.

    `texts` training texts, drawn by `seed`, teach what the columns are worth. `output`/compression.json is always written; the
    `checkpoint` and the `base` that it stands on only when no part loses more macro-F1 than `max_loss`. Raises PipelineError when
    the encoder is of another kind or the corpus has nothing to learn from or to measure on.
    """
    from monitor.classifier.two_head import TwoHeadClassifier

    if not corpus.train or not any(corpus.validation.values()):
        raise PipelineError(
            "the corpus needs texts to train on and held-out ones: the first teach what to keep, the others measure"
        )
    original = load_checkpoint(checkpoint, base)
    chosen = random.Random(seed).sample(corpus.train, min(texts, len(corpus.train)))  # noqa: S311 (a sample)
    before = TwoHeadClassifier(original, "cpu")
    encoder = prune(original.model.encoder, before.prepare([passage_of(example) for example in chosen]), keep)

    with tempfile.TemporaryDirectory(dir=_made(output)) as unfinished:
        written = Path(unfinished)
        write(written, encoder, original, keep)
        pruned = load_checkpoint(written / "checkpoint", written / "base")
        after = TwoHeadClassifier(pruned, "cpu")
        scores = measure(before, corpus), measure(after, corpus)
        compression = Compression(
            columns=(_columns(original.model.encoder), _columns(pruned.model.encoder)),
            weights=(_weights(original.model), _weights(pruned.model)),
            documents_per_cpu_second=side_by_side(before, after, mixed_texts(SPEED_TEXTS)),
            before=scores[0],
            after=scores[1],
            missed=tuple(lost(*scores, max_loss)),
        )
        for name in ("checkpoint", "base"):
            shutil.rmtree(output / name, ignore_errors=True)
            if not compression.missed:
                shutil.move(written / name, output / name)
    (output / COMPRESSION_FILE).write_text(json.dumps(asdict(compression), indent=2) + "\n", encoding="utf-8")
    return compression


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _columns(encoder: Any) -> int:
    return int(encoder.config.intermediate_size)


def _weights(model: Any) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# --- pruning -------------------------------------------------------------------------------------


def prune(encoder: Any, rows: Sequence[Prepared], keep: float) -> Any:
    """A copy of the encoder with about `keep` of the feed-forward columns of each layer, to a multiple of 32.

    `rows` are what it learns from. Raises PipelineError for an encoder that is not built as BERT is, or when nothing would go.
    """
    import torch
    from torch import nn

    from monitor.classifier.packed_encoder import taken_apart

    if taken_apart(encoder) is None:
        raise PipelineError(f"only encoders built as BERT is can be pruned, not {type(encoder).__name__}")
    columns = _columns(encoder)
    # The kernels of a CPU work on 16 or 32 numbers at once.
    kept = max(32, 32 * round(columns * keep / 32))
    if kept >= columns:
        raise PipelineError(f"a layer has {columns} columns, and {keep:g} of that is {kept}: nothing would be taken out")
    pruned = copy.deepcopy(encoder)
    for layer, products in zip(pruned.encoder.layer, products_of(encoder, rows), strict=True):
        widened, narrowed = layer.intermediate.dense, layer.output.dense
        # The bias is the weight of a column that is always 1 and always stays.
        weights = torch.cat([narrowed.weight, narrowed.bias[:, None]], dim=1).double()
        stay, fitted = fit(products, weights, kept)
        with torch.no_grad():
            layer.intermediate.dense = nn.Linear(widened.in_features, kept)
            layer.intermediate.dense.weight.copy_(widened.weight[stay])
            layer.intermediate.dense.bias.copy_(widened.bias[stay])
            layer.output.dense = nn.Linear(kept, narrowed.out_features)
            layer.output.dense.weight.copy_(fitted[:, :-1])
            layer.output.dense.bias.copy_(fitted[:, -1])
    pruned.config.intermediate_size = kept
    return pruned.requires_grad_(False).eval()


def products_of(encoder: Any, rows: Sequence[Prepared]) -> list[Any]:
    """Per layer the products of its columns, and of a column of ones behind them, with each other, over the tokens of `rows`."""
    import torch

    from monitor.classifier.packed_encoder import encode
    from monitor.classifier.packing import pack
    from monitor.classifier.passes import passes

    layers = encoder.encoder.layer
    size = _columns(encoder) + 1
    products = [torch.zeros((size, size), dtype=torch.float64) for _ in layers]

    def adds_to(total: Any) -> Callable[[Any, tuple[Any, ...]], None]:
        def add(_module: Any, inputs: tuple[Any, ...]) -> None:
            columns = torch.cat([inputs[0], inputs[0].new_ones((len(inputs[0]), 1))], dim=1)
            total.add_((columns.T @ columns).double())

        return add

    hooks = [layer.output.dense.register_forward_pre_hook(adds_to(total)) for layer, total in zip(layers, products, strict=True)]
    try:
        with torch.inference_mode():
            for places in passes([row.tokens for row in rows], PASS_TOKENS):
                encode(encoder, pack([rows[place] for place in places]))
    finally:
        for hook in hooks:
            hook.remove()
    return products


def fit(products: Any, weights: Any, kept: int) -> tuple[Any, Any]:
    """Which columns stay, in order, and the weights (outputs, kept + 1) with which they best say what all said with theirs.

    `products` (columns + 1, columns + 1) and `weights` (outputs, columns + 1) have the column of ones last; it stays. A column
    costs what leaving it out changes when all others are fitted anew (the saliency of Hassibi and Stork 1993).
    """
    import torch

    columns = len(products) - 1
    ridged = products + torch.eye(len(products), dtype=products.dtype) * RIDGE * products.diagonal().mean()
    target = weights @ ridged
    stay = torch.arange(columns + 1)
    for number in range(1, ROUNDS + 1):
        left = columns - round((columns - kept) * number / ROUNDS)
        inverse = torch.linalg.inv(ridged[stay][:, stay])
        costs = (target[:, stay] @ inverse).square().sum(dim=0) / inverse.diagonal()
        best = costs[:-1].topk(left).indices.sort().values
        stay = torch.cat([stay[best], stay[-1:]])
    return stay[:-1], torch.linalg.solve(ridged[stay][:, stay], target[:, stay].T).T


# --- measuring -----------------------------------------------------------------------------------


def measure(classifier: Classifier, corpus: Corpus) -> dict[str, SliceFigures]:
    """The figures of every held-out part and question."""
    reads = {name: ask(classifier, part) for name, part in sorted(corpus.validation.items()) if part}
    return {
        f"{name}/{question}": slice_figures(answers)
        for name, part in reads.items()
        for question in QUESTIONS
        if (answers := answers_to(question, part, classifier.topics)) is not None
    }


def lost(before: dict[str, SliceFigures], after: dict[str, SliceFigures], max_loss: float) -> list[str]:
    """A sentence for each part that loses more macro-F1 than `max_loss`."""
    return [
        f"{name}: macro-F1 fell by {before[name].macro_f1 - figures.macro_f1:.4f}, from {before[name].macro_f1:.4f} to "
        f"{figures.macro_f1:.4f}; {max_loss:g} is allowed"
        for name, figures in after.items()
        if round(before[name].macro_f1 - figures.macro_f1, 4) > max_loss
    ]


def side_by_side(before: Classifier, after: Classifier, passages: Sequence[Passage], rounds: int = 3) -> tuple[float, float]:
    """Documents a CPU-second of two classifiers that take turns; medians over `rounds`."""
    paces: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for classifier, found in zip((before, after), paces, strict=True):
            found.append(measure_paces(classifier, passages, [len(passages)], rounds=1)[0].documents_per_cpu_second)
    return median(paces[0]), median(paces[1])


def table_of(compression: Compression) -> Table:
    """The costs and the gain as a table to print."""
    table = Table("part/question", "macro-F1 before", "after", "change", title="what it costs")
    for name, figures in compression.after.items():
        was = compression.before[name].macro_f1
        table.add_row(name, f"{was:.4f}", f"{figures.macro_f1:.4f}", f"{figures.macro_f1 - was:+.4f}")
    (columns, fewer), (weights, less) = compression.columns, compression.weights
    slow, fast = compression.documents_per_cpu_second
    table.caption = (
        f"columns {columns:,} to {fewer:,}, weights {weights:,} to {less:,}, texts a CPU-second {slow:.1f} to {fast:.1f}"
    )
    return table


# --- writing -------------------------------------------------------------------------------------


def write(folder: Path, encoder: Any, original: Checkpoint, keep: float) -> Manifest:
    """Writes the encoder as `folder`/base, and on it `folder`/checkpoint: the heads, and an adapter that changes nothing.

    So the daemon loads a pruned model as it loads any other, every hash checked.
    """
    import torch

    from monitor.classifier.base_encoder import describe_base
    from monitor.classifier.model import TwoHeadModel, add_adapter

    base = folder / "base"
    encoder.save_pretrained(base)
    original.tokenizer.save(str(base / "tokenizer.json"))
    manifest = original.manifest
    adapted = add_adapter(copy.deepcopy(encoder), rank=1, alpha=1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_" in name:
                parameter.zero_()
    model = TwoHeadModel(adapted, len(manifest.topics))
    model.topic_head, model.sentiment_head = original.model.topic_head, original.model.sentiment_head
    described = replace(
        manifest,
        base=describe_base(base, f"{manifest.base.name}-{_columns(encoder)}"),
        # A loaded head answers in this order, whatever order it was trained in.
        sentiments=SENTIMENTS,
        # They are another model's: what this one reaches stands in compression.json.
        metrics={},
        epochs=(),
        recipe={**manifest.recipe, "pruned_from": original.version, "pruned_to": keep},
    )
    return write_checkpoint(folder / "checkpoint", model, original.surprisals, described)
