"""The command line of training: labelled files to a corpus, a corpus to a checkpoint, a checkpoint to what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from monitor.errors import BellwetherError, PipelineError

app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    help="Train the classifier on your own labels, measure it, and write a checkpoint that the daemon loads.",
)

Seed = Annotated[int, typer.Option(help="Draws what is held out, the first weights, the order and the dropout.")]


@app.command()
def data(
    *,
    folder: Annotated[Path, typer.Option("--data", help="Folder that the files of the sets are relative to.")],
    output: Annotated[Path, typer.Option(help="Folder to write the corpus to.")],
    sets: Annotated[Path | None, typer.Option(help="YAML file that describes the sets; default: the three MIT sets.")] = None,
    seed: Seed = 1,
) -> None:
    """Read labelled files, clean them, hold some out, and write a corpus.

    A sets file names the topics and, for each set, its files, its columns (text, and any of topic, sentiment, entity), how it
    calls its labels, and its licence; pipelines/sets/shipped.yaml is one. Example:

        bellwether-train data --data labels --sets labels/sets.yaml --output corpus
    """
    from pipelines.corpus import save_corpus
    from pipelines.data import SHIPPED_SETS, prepare, read_sets

    console = Console()
    with console.status("reading and cleaning"):
        corpus = prepare(folder, read_sets(sets or SHIPPED_SETS), seed)
        save_corpus(corpus, output)
    for name, counts in corpus.counts.items():
        console.print(f"{name}: {', '.join(f'{number:,} {what}' for what, number in counts.items())}")
    console.print(f"written: {output} ({corpus.sha256[:12]})")


@app.command()
def finetune(
    *,
    corpus: Annotated[Path, typer.Option(help="Folder that `bellwether-train data` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder to write: epochs/ while it runs, checkpoint/ when it is done.")],
    recipe: Annotated[
        str, typer.Option(help="A recipe of pipelines/recipes, or a .yaml file of what differs from the usual.")
    ] = "usual",
    seed: Seed = 1,
    base: Annotated[Path | None, typer.Option(help="Folder with the base encoder; default: the one fetched, then the hub.")] = None,
    base_name: Annotated[
        str | None,
        typer.Option(help="The base's published name; default: the shipped checkpoint's, or the folder's name."),
    ] = None,
    track: Annotated[
        list[str] | None, typer.Option(help="Draw curves with tensorboard (default), wandb, mlflow; `none` for nothing.")
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as many as torch likes.")] = 0,
) -> None:
    """Train all heads and write a checkpoint that the daemon loads (model.checkpoint in its configuration).

    A run that is stopped goes on after its last finished epoch when it is called again in the same way. On several GPUs:
    `accelerate launch --module pipelines finetune ...`. Example:

        bellwether-train finetune --corpus corpus --output runs/first
    """
    import torch

    from pipelines.corpus import load_corpus
    from pipelines.finetune import finetune as run
    from pipelines.recipe import read_recipe

    if threads:
        torch.set_num_threads(threads)
    trackers = [name for name in track or ["tensorboard"] if name != "none"]
    run(load_corpus(corpus), read_recipe(recipe), seed=seed, output=output, base=base, base_name=base_name, trackers=trackers)


Checkpoint = Annotated[Path | None, typer.Option(help="A checkpoint folder; default: the shipped one.")]
BaseFolder = Annotated[Path | None, typer.Option(help="Folder with the base encoder; default: the installed one, then the hub.")]
Threads = Annotated[int, typer.Option(min=0, help="CPU threads; 0: as many as torch likes.")]


@app.command()
def ablate(
    *,
    corpus: Annotated[Path, typer.Option(help="Folder that `bellwether-train data` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder to write: runs/, table.json and table.md.")],
    recipes: Annotated[str, typer.Option(help="Recipes, as `finetune` takes them, with commas between; the first is compared to.")],
    seeds: Annotated[str, typer.Option(help="Seeds, with commas between.")] = "1,2,3",
    limit: Annotated[int | None, typer.Option(min=1, help="Train on so many examples only, in every recipe.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Train so many epochs, in every recipe.")] = None,
    base: Annotated[Path | None, typer.Option(help="Folder with the base encoder; default: the one fetched, then the hub.")] = None,
    base_name: Annotated[
        str | None,
        typer.Option(help="The base's published name; default: the shipped checkpoint's, or the folder's name."),
    ] = None,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: as many as torch likes.")] = 0,
) -> None:
    """Train recipes with several seeds each, and tell in a table what each gives and costs.

    Called again it goes on where it was stopped, and a longer list of recipes adds to the table. Example:

        bellwether-train ablate --corpus corpus --output ablation --recipes usual,fgm,augmented --seeds 1,2,3
    """
    import torch

    from pipelines.ablation import ablate as run
    from pipelines.ablation import markdown
    from pipelines.corpus import load_corpus
    from pipelines.recipe import read_recipe

    if threads:
        torch.set_num_threads(threads)
    if not all(seed.strip().isdecimal() for seed in seeds.split(",")):
        raise PipelineError(f"--seeds must be numbers with commas between, not {seeds!r}")
    changes = {name: value for name, value in (("limit", limit), ("epochs", epochs)) if value is not None}
    asked = {Path(name.strip()).stem: read_recipe(name.strip()).model_copy(update=changes) for name in recipes.split(",")}
    if len(asked) < len(recipes.split(",")):
        raise PipelineError(f"two of the recipes {recipes} have one name")
    numbers = [int(seed) for seed in seeds.split(",")]
    rows = run(load_corpus(corpus), asked, numbers, output=output, base=base, base_name=base_name)
    typer.echo(markdown(rows))


@app.command()
def evaluate(
    *,
    output: Annotated[Path, typer.Option(help="Folder to write evaluation.json and evaluation.html to.")],
    corpus: Annotated[Path | None, typer.Option(help="Folder that `bellwether-train data` wrote: its held-out parts.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Only this held-out part; may be given again.")] = None,
    file: Annotated[Path | None, typer.Option(help="A labelled table (.csv, .tsv, .jsonl), asked as the part `file`.")] = None,
    columns: Annotated[
        str, typer.Option(help="Its columns: text, and any of topic, sentiment, entity; text=headline,sentiment=label")
    ] = "text=text,sentiment=sentiment",
    checkpoint: Checkpoint = None,
    base: BaseFolder = None,
    config: Annotated[
        Path | None, typer.Option(help="A configuration of the daemon: measures the classifier of its model section instead.")
    ] = None,
    fail_under: Annotated[
        list[str] | None, typer.Option(help="Least macro-F1, as part/question=0.85; may be given again. Missed: exit code 7.")
    ] = None,
    compare: Annotated[Path | None, typer.Option(help="An evaluation.json from before: shows what changed.")] = None,
    max_loss: Annotated[
        float | None, typer.Option(min=0, help="Most macro-F1 that a part may lose against --compare. Missed: exit code 7.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the samples behind the intervals.")] = 1,
    threads: Threads = 0,
) -> None:
    """Measure a classifier on texts that it never saw, and write a report.

    Topics are called as the classifier calls them, sentiments negative, neutral, positive; a table with other labels becomes a
    corpus first (`bellwether-train data`). Example, as a gate before a checkpoint is promoted:

        bellwether-train evaluate --checkpoint run/checkpoint --corpus corpus --output report --fail-under tfns/sentiment=0.87
    """
    from pipelines.evaluate import EVALUATION_FILE, load_evaluation, losses, misses, parse_floor, save_evaluation
    from pipelines.measuring import held_out, measure, table_of
    from pipelines.report import render

    floors = dict(map(parse_floor, fail_under or []))
    before = None if compare is None else load_evaluation(compare)
    if max_loss is not None and before is None:
        raise PipelineError("--max-loss needs --compare: the evaluation that nothing may be lost against")
    evaluation = measure(
        lambda topics: held_out(corpus, file, columns, topics),
        checkpoint=checkpoint,
        base=base,
        config=config,
        parts=part or [],
        seed=seed,
        threads=threads,
    )
    save_evaluation(evaluation, output / EVALUATION_FILE)
    (output / "evaluation.html").write_text(render(evaluation, before), encoding="utf-8")
    Console().print(table_of(evaluation, before))
    typer.echo(f"written: {output / EVALUATION_FILE}, {output / 'evaluation.html'}")
    missed = misses(evaluation, floors)
    if before is not None and max_loss is not None:
        missed += losses(before, evaluation, max_loss)
    if missed:
        raise PipelineError("\n  ".join(["it does not reach what was asked of it:", *missed]))


@app.command()
def card(
    *,
    evaluation: Annotated[Path, typer.Option(help="The evaluation.json that `bellwether-train evaluate` wrote.")],
    output: Annotated[Path, typer.Option(help="The Markdown file to write.")],
    checkpoint: Checkpoint = None,
) -> None:
    """Write the model card of a checkpoint from its manifest and its evaluation, and from nothing else."""
    from monitor.classifier.manifest import read_manifest
    from pipelines.card import render
    from pipelines.evaluate import load_evaluation
    from pipelines.measuring import shipped_checkpoint

    text = render(read_manifest(checkpoint or shipped_checkpoint()), load_evaluation(evaluation))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    typer.echo(f"written: {output}")


@app.command()
def compress(
    *,
    corpus: Annotated[Path, typer.Option(help="Folder that `bellwether-train data` wrote.")],
    output: Annotated[Path, typer.Option(help="Folder to write: checkpoint/, its base/, compression.json.")],
    keep: Annotated[
        float, typer.Option(min=0.05, max=0.99, help="Share of the feed-forward columns of each layer that stays.")
    ] = 0.75,
    checkpoint: Checkpoint = None,
    base: BaseFolder = None,
    texts: Annotated[int, typer.Option(min=8, help="Training texts that the columns' worth is learned from.")] = 1_024,
    max_loss: Annotated[float, typer.Option(min=0, help="Most macro-F1 that a held-out part may lose.")] = 0.005,
    seed: Seed = 1,
    threads: Threads = 0,
) -> None:
    """Make a checkpoint smaller and faster, measure what that costs, and offer it only where the cost is small.

    Feed-forward columns that matter least are taken out and the others fitted anew, without training. What loses more than
    --max-loss on any held-out part is not written: exit code 7. The daemon loads the result with model.checkpoint and model.base.
    """
    import torch

    from pipelines.compress import compress as run
    from pipelines.compress import table_of
    from pipelines.corpus import load_corpus
    from pipelines.measuring import shipped_checkpoint

    if threads:
        torch.set_num_threads(threads)
    console = Console()
    with console.status("pruning and measuring"):
        compression = run(
            load_corpus(corpus),
            checkpoint or shipped_checkpoint(),
            base,
            output,
            keep=keep,
            texts=texts,
            max_loss=max_loss,
            seed=seed,
        )
    console.print(table_of(compression))
    if compression.missed:
        raise PipelineError("\n  ".join(["the compressed checkpoint is not offered:", *compression.missed]))
    typer.echo(f"written: {output / 'checkpoint'}, to be loaded with model.base {output / 'base'}")


@app.command()
def export(
    *,
    output: Annotated[Path, typer.Option(help="The .onnx file to write.")],
    checkpoint: Checkpoint = None,
    base: BaseFolder = None,
) -> None:
    """Write the model as ONNX, and check with ONNX Runtime that it answers as the model does.

    Inputs (padded, any number of rows of any length): input_ids, attention_mask, target_mask (1 on the tokens that name whom the
    third question is about). Outputs: logits of topic, sentiment, toward. Labels and temperatures stand in its metadata.
    """
    from monitor.classifier.checkpoint import load_checkpoint
    from pipelines.measuring import shipped_checkpoint
    from pipelines.onnx_export import export as run

    exported = run(load_checkpoint(checkpoint or shipped_checkpoint(), base), output)
    typer.echo(
        f"written: {output} (opset {exported.opset}, {exported.bytes / 1e6:.1f} MB); "
        f"largest difference of a logit over {exported.checked} batches: {exported.largest_difference:.1e}"
    )


@app.command()
def bench(
    *,
    checkpoint: Checkpoint = None,
    base: BaseFolder = None,
    texts: Annotated[int, typer.Option(min=1, help="Invented texts, about 43 tokens each in the mean.")] = 512,
    batch: Annotated[list[int] | None, typer.Option(min=1, help="Texts at a time; may be given again.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Each figure is the median of so many.")] = 3,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 ...; auto takes CUDA where there is one.")] = "auto",
    threads: Threads = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object instead of a table.")] = False,
) -> None:
    """Measure how fast a checkpoint is on this machine, on invented texts: a text alone, and many at a time."""
    import msgspec
    import torch

    from monitor.classifier.checkpoint import load_checkpoint
    from monitor.classifier.two_head import TwoHeadClassifier
    from pipelines.bench import bench as run
    from pipelines.bench import table_of
    from pipelines.measuring import shipped_checkpoint

    if threads:
        torch.set_num_threads(threads)
    classifier = TwoHeadClassifier(load_checkpoint(checkpoint or shipped_checkpoint(), base), device)
    with Console(stderr=True).status("measuring"):
        speed = run(classifier, texts=texts, batches=batch or (1, 8, 32, 128, 512), rounds=rounds)
    if as_json:
        print(msgspec.json.encode(speed).decode())
    else:
        Console().print(table_of(speed))


def main() -> None:
    """Runs the command line; an error of ours becomes one message and its exit code."""
    try:
        app(standalone_mode=True)
    except BellwetherError as error:
        typer.echo(f"bellwether-train: {error}", err=True)
        raise SystemExit(error.exit_code) from error
