"""The command line of training: labelled files to a corpus, a corpus to a checkpoint, a checkpoint to what it is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from monitor.errors import BellwetherError

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
    base: Annotated[
        Path | None, typer.Option(help="Folder with the base encoder; default: the installed package, then the hub.")
    ] = None,
    base_name: Annotated[
        str | None, typer.Option(help="The base's published name; default: all-MiniLM-L6-v2, or the name of the folder.")
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


def main() -> None:
    """Runs the command line; an error of ours becomes one message and its exit code."""
    try:
        app(standalone_mode=True)
    except BellwetherError as error:
        typer.echo(f"bellwether-train: {error}", err=True)
        raise SystemExit(error.exit_code) from error
