"""The commands `bellwether backtest` and `bellwether replay`: their options in, a run and what it found on the terminal out."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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
    from monitor.types import Record, RejectReason
    from monitor.watchlist import WatchList
    from pipelines.backtest.archive import ArchiveFile
    from pipelines.backtest.scores import RememberingClassifier

DEFAULT_SCORES: Final = Path("bellwether-scores.db")
_DAYS: Final = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]
_RANGE: Final = re.compile(r"(\d+):(\d+)-(\d+)")

ConfigOption = Annotated[Path | None, typer.Option("--config", "-c", help="The daemon's configuration; default: its defaults.")]
RulesOption = Annotated[Path | None, typer.Option("--rules", help="The rules (YAML); default: those of the configuration.")]
WatchlistOption = Annotated[Path | None, typer.Option("--watchlist", help="The watch list; default: that of the configuration.")]
EventsOption = Annotated[
    Path | None,
    typer.Option("--events", help="Known events (tab-separated: event, entity_regex, known_date, first_neg_headline_utc)."),
]
IncidentsOption = Annotated[Path | None, typer.Option("--incidents", help="Write the incidents here, one JSON object a line.")]
ReportOption = Annotated[Path | None, typer.Option("--report", help="Write a page with plots here (HTML, one file).")]
WhatIfOption = Annotated[
    list[str] | None,
    typer.Option("--what-if", help="Also judge with another value of a rule's field: RULE.FIELD=VALUE,VALUE. May be given again."),
]
FromOption = Annotated[datetime | None, typer.Option("--from", formats=_DAYS, help="Begin here (UTC).")]
UntilOption = Annotated[datetime | None, typer.Option("--until", formats=_DAYS, help="End before here (UTC).")]
ScoresOption = Annotated[Path, typer.Option("--scores", help="Where scores are kept, so that no text is classified twice.")]
ModelOption = Annotated[Path | None, typer.Option("--model", help="A checkpoint folder; default: that of the configuration.")]
ThreadsOption = Annotated[int, typer.Option("--threads", min=0, help="CPU threads of the encoder; 0: as many as torch likes.")]


def backtest(
    *,
    archive: Annotated[list[Path] | None, typer.Option("--archive", help="Files of news: .tsv, .csv, .jsonl, also .zst.")] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="[FILE]...", help="More files of the archive.")] = None,
    config: ConfigOption = None,
    rules: RulesOption = None,
    watchlist: WatchlistOption = None,
    events: EventsOption = None,
    incidents: IncidentsOption = None,
    report: ReportOption = None,
    what_if: WhatIfOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    source: Annotated[str | None, typer.Option(help="The source of rows that name none; default: from the file's name.")] = None,
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

    settings = _settings(config, model, threads, {"watchlist_file": watchlist, "rules_file": rules})
    files = open_archive([*(archive or ()), *(more or ())], source)
    if not files:
        raise ConfigurationError("backtest", ["--archive: name at least one file"])
    records = merged(files, _milliseconds(from_), _milliseconds(until))
    past = Past(records, lambda: (sum(file.read_bytes for file in files), sum(file.size_bytes for file in files)))
    with _remembering(settings, scores) as classifier:
        if score_only:
            _score(past, classifier, settings)
        else:
            _judge(past, classifier, settings, what_if or (), Wanted(events, incidents, report))
    _print_bad(files)


def replay(
    *,
    config: ConfigOption = None,
    topic: Annotated[list[str] | None, typer.Option(help="What to read; default: the topics of the configuration.")] = None,
    offsets: Annotated[
        list[str] | None,
        typer.Option(help="PARTITION:FIRST-BEHIND, as 0:1000-2000; only these partitions are read. May be given again."),
    ] = None,
    rules: RulesOption = None,
    watchlist: WatchlistOption = None,
    events: EventsOption = None,
    incidents: IncidentsOption = None,
    report: ReportOption = None,
    what_if: WhatIfOption = None,
    from_: FromOption = None,
    until: UntilOption = None,
    scores: ScoresOption = DEFAULT_SCORES,
    model: ModelOption = None,
    threads: ThreadsOption = 0,
) -> None:
    """Run the daemon over a range of a Kafka log, as `backtest` does over files: as far as the log goes now. Sends nothing.

    It reads beside the consumer group and commits no offset: a daemon that runs meanwhile does not notice.
    """
    from pipelines.backtest.kafka_range import KafkaRange

    settings = _settings(config, model, threads, {"watchlist_file": watchlist, "rules_file": rules})
    kafka = settings.source.kafka if not topic else settings.source.kafka.model_copy(update={"topics": tuple(topic)})
    wanted = KafkaRange(
        kafka,
        from_ms=_milliseconds(from_),
        until_ms=_milliseconds(until),
        offsets=_offsets(offsets) if offsets else None,
        max_ahead_ms=round(settings.documents.max_ahead.total_seconds() * 1000),
    )
    past = Past(wanted.merged(), lambda: (wanted.read, wanted.records))
    with _remembering(settings, scores) as classifier:
        _judge(past, classifier, settings, what_if or (), Wanted(events, incidents, report))


@dataclass(frozen=True, slots=True)
class Past:
    """The records of a log in the order of time, and how much of it was read, of how much there is, in a unit of its own."""

    records: Iterator[Record]
    done: Callable[[], tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a run is held against, and where it is written."""

    events: Path | None
    incidents: Path | None
    report: Path | None


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


def _score(past: Past, classifier: RememberingClassifier, settings: Settings) -> None:
    from pipelines.backtest.scoring import score

    console = Console(stderr=True)
    with _progress(console, "scoring", past) as told:
        scored = score(past.records, classifier, settings, _watchlist(settings), lambda read: told(read, classifier.asked))
    console.print(f"{scored.documents:,} documents, {classifier.asked:,} texts classified now; model {classifier.version}")
    _print_rejected(console, scored.rejected)


def _judge(past: Past, classifier: RememberingClassifier, settings: Settings, what_if: Sequence[str], wanted: Wanted) -> None:
    from pipelines.backtest.archive import ARCHIVE
    from pipelines.backtest.events import read_events
    from pipelines.backtest.findings import find
    from pipelines.backtest.incidents import line
    from pipelines.backtest.report import render, tables
    from pipelines.backtest.run import Setup, run
    from pipelines.backtest.what_if import load_variants

    if settings.rules_file is None:
        raise ConfigurationError("backtest", ["--rules: name a file of rules, or a configuration that names one"])
    watchlist = _watchlist(settings)
    rules, variants = load_variants(settings.rules_file, what_if, entities=watchlist.entities.keys(), topics=classifier.topics)
    events = None if wanted.events is None else read_events(wanted.events)
    console = Console(stderr=True)
    with _progress(console, "judging", past) as told:
        setup = Setup(settings, classifier, watchlist, rules)
        done = run(setup, ARCHIVE, past.records, lambda read: told(read, classifier.asked))
    findings = find(done, rules, variants, events, watchlist)
    if wanted.incidents is not None:
        wanted.incidents.write_bytes(b"".join(map(line, findings.incidents)))
    if wanted.report is not None:
        wanted.report.write_text(render(findings), encoding="utf-8")
    for table in tables(findings):
        Console().print(table)
    balance = done.balance
    counted = f"{balance.stories:,} stories, {balance.copies:,} copies, {balance.stale:,} stale, {balance.duplicate:,} repeated"
    console.print(f"{balance.consumed:,} records: {counted}; {classifier.asked:,} texts classified now; model {classifier.version}")
    _print_rejected(console, balance.rejected)


def _watchlist(settings: Settings) -> WatchList:
    from monitor.watchlist import WatchList, load_watchlist

    return WatchList() if settings.watchlist_file is None else load_watchlist(settings.watchlist_file)


@contextmanager
def _progress(console: Console, what: str, past: Past) -> Iterator[Callable[[int, int], None]]:
    """A bar over the past; it is told how many records were read and how many texts classified."""
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
        task = progress.add_task(what, total=past.done()[1] or None, read=0, rate=0.0, asked=0)

        def told(read: int, asked: int) -> None:
            done, total = past.done()
            rate = read / max(1e-9, time.monotonic() - began_s)
            progress.update(task, completed=done, total=total, read=read, rate=rate, asked=asked)

        yield told


def _print_bad(files: Sequence[ArchiveFile]) -> None:
    console = Console(stderr=True)
    for file in files:
        for reason, number in file.bad.rows.most_common():
            first = file.bad.first_line[reason]
            console.print(f"{escape(file.path.name)}: {number:,} rows left out: {reason} (first: line {first})")


def _print_rejected(console: Console, rejected: Mapping[RejectReason, int]) -> None:
    for reason, number in rejected.items():
        console.print(f"{number:,} records are no documents: {reason}")


def _offsets(texts: Sequence[str]) -> dict[int, tuple[int, int]]:
    """The first offset and the one behind the last, by partition. Raises ConfigurationError that lists every fault."""
    found, problems = {}, []
    for text in texts:
        match = _RANGE.fullmatch(text.strip())
        if match is None:
            problems.append(f"{text!r} is not of the form PARTITION:FIRST-BEHIND, as 0:1000-2000")
        else:
            partition, first, behind = map(int, match.groups())
            found[partition] = (first, behind)
    if problems:
        raise ConfigurationError("--offsets", problems)
    return found


def _milliseconds(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.replace(tzinfo=UTC).timestamp() * 1000)
