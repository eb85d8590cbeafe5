"""The commands `bellwether backtest` and `bellwether replay`: their options in, a run and what it found on the terminal out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from monitor.config import Settings, load_settings
from monitor.errors import ConfigurationError

if TYPE_CHECKING:
    from monitor.types import Record
    from monitor.watchlist import WatchList
    from pipelines.backtest.archive import ArchiveFile
    from pipelines.backtest.scores import RememberingClassifier

DEFAULT_SCORES: Final = Path("bellwether-scores.db")
_DAYS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="The daemon's configuration; default: its defaults.")]
RulesOption = Annotated[Path | None, typer.Option("--rules", help="The rules (YAML); default: those of the configuration.")]
WatchlistOption = Annotated[Path | None, typer.Option("--watchlist", help="The watch list; default: that of the configuration.")]
ModelOption = Annotated[Path | None, typer.Option("--model", help="A checkpoint folder; default: that of the configuration.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=0, help="CPU threads of the encoder; 0: as many as torch likes.")]
ScoresOption = Annotated[Path, typer.Option("--scores", help="Where scores are kept, so that no text is classified twice.")]
FromOption = Annotated[datetime | None, typer.Option("--from", formats=_DAYS, help="Begin here (UTC).")]
UntilOption = Annotated[datetime | None, typer.Option("--until", formats=_DAYS, help="End before here (UTC).")]


def backtest(
    *,
    archive: Annotated[list[Path] | None, typer.Option("--archive", help="Files of news: .tsv, .csv, .jsonl, also .zst.")] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files of the archive.")] = None,
    config: ConfigOption = None,
    watchlist: WatchlistOption = None,
    source: Annotated[str | None, typer.Option(help="The source of rows that name none; default: from the file's name.")] = None,
    from_: FromOption = None,
    until: UntilOption = None,
    scores: ScoresOption = DEFAULT_SCORES,
    model: ModelOption = None,
    threads: ThreadsOption = 0,
    score_only: Annotated[bool, typer.Option("--score-only", help="Only classify, and keep the scores for later runs.")] = False,
) -> None:
    """Run the daemon over an archive, many times faster than life: which incidents, how early, how many false. Sends nothing.

    The archive's tables have the columns ts_utc and title, and may have source, description and language; .jsonl files hold
    news.raw records. Several files become one log, in the order of time. Scores are kept: a run that was interrupted goes on
    where it was, and the next one with other rules takes minutes.
    """
    from pipelines.backtest.archive import merged, open_archive

    settings = _settings(config, model, threads, {"watchlist_file": watchlist})
    files = open_archive([*(archive or ()), *(more or ())], source)
    if not files:
        raise ConfigurationError("backtest", ["--archive: name at least one file"])
    records = merged(files, _milliseconds(from_), _milliseconds(until))
    with _remembering(settings, scores) as classifier:
        if score_only:
            _score(records, files, classifier, settings)


def _settings(config: Path | None, model: Path | None, threads: int, files: dict[str, Path | None]) -> Settings:
    """The configuration, with what the command line says instead. What a backtest logs is what goes wrong."""
    from monitor.log import configure_logging

    settings = load_settings(config)
    configure_logging(settings.log.model_copy(update={"level": "warning"}))
    changed: dict[str, object] = {name: path for name, path in files.items() if path is not None}
    changes = {"checkpoint": model} if model is not None else {}
    changed["model"] = settings.model.model_copy(update=changes | ({"threads": threads} if threads else {}))
    return settings.model_copy(update=changed)


@contextmanager
def _remembering(settings: Settings, scores: Path) -> Iterator[RememberingClassifier]:
    from monitor.classifier.load import load_classifier
    from pipelines.backtest.scores import RememberingClassifier, ScoreCache

    classifier = load_classifier(settings.model)
    cache = ScoreCache(scores, classifier.version)
    try:
        yield RememberingClassifier(classifier, cache)
    finally:
        cache.close()


def _score(records: Iterable[Record], files: Sequence[ArchiveFile], classifier: RememberingClassifier, settings: Settings) -> None:
    from pipelines.backtest.scoring import score

    console = Console(stderr=True)
    with _progress(console, "scoring", files) as told:
        scored = score(records, classifier, settings, _watchlist(settings), lambda read: told(read, classifier.asked))
    console.print(f"{scored.documents:,} documents, {classifier.asked:,} texts classified now; model {classifier.version}")
    _print_bad(console, files)
    for reason, number in scored.rejected.most_common():
        console.print(f"{number:,} records are no documents: {reason}")


def _watchlist(settings: Settings) -> WatchList:
    from monitor.watchlist import WatchList, load_watchlist

    return WatchList() if settings.watchlist_file is None else load_watchlist(settings.watchlist_file)


@contextmanager
def _progress(console: Console, what: str, files: Sequence[ArchiveFile]) -> Iterator[Callable[[int, int], None]]:
    """A bar over the bytes of the files; it is told how many records were read and how many texts classified."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:3.0f} %"),
        TextColumn("{task.fields[read]:,} records, {task.fields[rate]:,.0f}/s, {task.fields[asked]:,} classified"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    began_s = time.monotonic()
    with Progress(*columns, console=console, speed_estimate_period=300) as progress:
        task = progress.add_task(what, total=sum(file.size_bytes for file in files), read=0, rate=0.0, asked=0)

        def told(read: int, asked: int) -> None:
            rate = read / max(1e-9, time.monotonic() - began_s)
            progress.update(task, completed=sum(file.read_bytes for file in files), read=read, rate=rate, asked=asked)

        yield told


def _print_bad(console: Console, files: Sequence[ArchiveFile]) -> None:
    for file in files:
        for reason, number in file.bad.rows.most_common():
            first = file.bad.first_line[reason]
            console.print(f"{escape(file.path.name)}: {number:,} rows left out: {reason} (first: line {first})")


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.replace(tzinfo=UTC).timestamp() * 1000)
