"""A day of invented news through the real daemon, on a file that grows, into a terminal that shows what comes of it."""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Final

from pydantic import SecretStr
from rich.console import Console
from rich.live import Live
from rich.text import Text

from alerts.channels.posting import Endpoint
from alerts.channels.webhook import WebhookReceiver
from alerts.signature import Secret
from alerts.types import Incident
from monitor.classifier.load import load_classifier
from monitor.config import (
    FileSettings,
    LogSettings,
    ModelSettings,
    Settings,
    SourceSettings,
    StoreSettings,
    TimeSettings,
    WebSettings,
)
from monitor.daemon import Daemon, Parts, open_source
from monitor.demo.feeder import Feeder
from monitor.demo.receiver import Desk, listening
from monitor.demo.sample_day import RUN_BEGINS, Line, sample_day
from monitor.demo.show import Picture, clock, incident_line, screen
from monitor.log import configure_logging
from monitor.rules_file import load_rules
from monitor.store.engine import open_engine
from monitor.types import MINUTE_MS
from monitor.watchlist import load_watchlist

_SECRET: Final = "whsec_QmVsbHdldGhlciBkZW1vOiBhbnlib2R5IG1heSBrbm93"  # noqa: S105 (it protects a loopback port for a minute)
_REFRESH_S: Final = 0.25
_CATCH_UP_S: Final = 300.0


@dataclass(slots=True)
class _Stage:
    """The running demo. `first_incident_s` is the wall time from its beginning to the first incident."""

    daemon: Daemon
    feeder: Feeder
    desk: Desk
    lines: list[Line]
    begun_s: float
    first_incident_s: float | None = None

    def picture(self) -> Picture:
        """What there is to see now."""
        incidents = self.daemon.incidents.incidents()
        if incidents and self.first_incident_s is None:
            self.first_incident_s = time.monotonic() - self.begun_s
        return Picture(
            stream_at=self.feeder.stream_at,
            elapsed_s=time.monotonic() - self.begun_s,
            written=self.feeder.written,
            lines=len(self.lines),
            balance=self.daemon.metrics.balance,
            view=self.daemon.metrics.view,
            incidents=incidents,
            messages=list(self.desk.messages),
            forged=self.desk.forged,
        )

    def over(self) -> bool:
        """Whether the whole day was written, read and judged to its last minute."""
        if not self.feeder.done or self.daemon.metrics.balance.consumed < len(self.lines):
            return False
        last_ms = round(self.lines[-1].at.timestamp() * 1000)
        return (self.daemon.incidents.evaluated_until_ms() or 0) >= last_ms - last_ms % MINUTE_MS


def run_demo(*, speed: float, seed: int, keep: Path | None, null: bool, console: Console) -> int:
    """Plays the day; the exit code. Everything stays in a temporary folder, or in `keep`."""
    with ExitStack() as stack:
        folder = keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bellwether-demo-")))
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / "news.jsonl").exists():
            console.print(Text(f"{folder} holds an earlier demo: name another folder, or empty it", style="red"), soft_wrap=True)
            return 2
        configure_logging(LogSettings(format="json"), stack.enter_context((folder / "bellwether.log").open("w", encoding="utf-8")))
        desk = stack.enter_context(listening(Secret(_SECRET)))
        console.print("loading the model (a few seconds) …")
        begun_s = time.monotonic()
        daemon = _build(folder, desk, null=null)
        lines = sample_day(seed, (datetime.now(tz=UTC) - timedelta(days=1)).date())
        stage = _Stage(daemon, Feeder(lines, folder / "news.jsonl", speed), desk, lines, begun_s)
        code = _play(stage, console)
        if code == 0:
            _summarise(stage, console, keep)
    return code


def _build(folder: Path, desk: Desk, *, null: bool) -> Daemon:
    (folder / "news.jsonl").touch()
    settings = Settings(
        source=SourceSettings(kind="file", file=FileSettings(path=str(folder / "news.jsonl"), timestamps="document")),
        model=ModelSettings(disabled=null),
        store=StoreSettings(url=SecretStr(f"sqlite:///{folder / 'bellwether.db'}")),
        time=TimeSettings(blind_after=timedelta(hours=3)),
        web=WebSettings(port=0),
    )
    here = files("monitor.demo")
    watchlist = load_watchlist(Path(str(here / "watchlist.yaml")))
    classifier = load_classifier(settings.model)
    return Daemon(
        Parts(
            settings=settings,
            engine=open_engine(settings.store.database_url()),
            classifier=classifier,
            watchlist=watchlist,
            rules=load_rules(
                Path(str(here / "rules.yaml")), entities=watchlist.entities.keys(), topics=classifier.topics, receivers={"desk"}
            ),
            receivers=(
                WebhookReceiver(
                    "desk", Endpoint(Secret(desk.url), allow_private_addresses=True, allow_http=True), (Secret(_SECRET),)
                ),
            ),
            open_source=lambda: open_source(settings),
        )
    )


@contextmanager
def _running(stage: _Stage) -> Iterator[list[int]]:
    """The daemon and the feeder in threads; the list holds the daemon's exit code once it has ended."""
    codes: list[int] = []
    stop = threading.Event()
    threads = [
        threading.Thread(target=lambda: codes.append(stage.daemon.run()), name="daemon"),
        threading.Thread(target=stage.feeder.run, args=(stop,), name="feeder"),
    ]
    for thread in threads:
        thread.start()
    try:
        yield codes
    finally:
        stop.set()
        stage.daemon.stop()
        for thread in threads:
            thread.join()


def _play(stage: _Stage, console: Console) -> int:
    show = _show_live if console.is_terminal else _show_lines
    try:
        with _running(stage) as codes:
            show(stage, console, codes)
    except KeyboardInterrupt:
        console.print("stopped")
        return 130
    return codes[0]


def _watch(stage: _Stage, codes: list[int], look: Callable[[Picture], None]) -> None:
    """Looks again and again until the day is over and told, or the daemon has ended, or it takes too long."""
    ended_s: float | None = None
    while not codes:
        look(stage.picture())
        if stage.feeder.done and ended_s is None:
            ended_s = time.monotonic()
        if ended_s is not None:
            late_s = time.monotonic() - ended_s
            if (stage.over() and stage.daemon.outbox.waiting() == 0) or late_s > _CATCH_UP_S:
                return
        time.sleep(_REFRESH_S)


def _show_live(stage: _Stage, console: Console, codes: list[int]) -> None:
    with Live(console=console, refresh_per_second=4, transient=True) as live:
        _watch(stage, codes, lambda picture: live.update(screen(picture)))


def _show_lines(stage: _Stage, console: Console, codes: list[int]) -> None:
    """For a log or a pipe: a line for each thing that happens, and one for each hour of the day."""
    told: set[tuple[str, bool]] = set()
    hours: set[int] = set()

    def look(picture: Picture) -> None:
        if picture.stream_at.hour not in hours:
            hours.add(picture.stream_at.hour)
            balance = picture.balance
            console.print(f"{picture.stream_at:%H:%M}  consumed {balance.consumed:,}, {balance.stories:,} stories", highlight=False)
        for incident in reversed(picture.incidents):
            key = incident.incident_id, incident.resolved_at_ms is not None
            if key not in told:
                told.add(key)
                console.print(incident_line(incident), soft_wrap=True)

    _watch(stage, codes, look)


def _summarise(stage: _Stage, console: Console, keep: Path | None) -> None:
    picture = stage.picture()
    balance = picture.balance
    rejected = ", ".join(f"{number} {reason}" for reason, number in sorted(balance.rejected.items()))
    console.rule("the day is over", align="left")
    console.print(f"{balance.consumed:,} lines: {balance.stories:,} stories, {balance.copies:,} copies of them", highlight=False)
    console.print(
        f"{balance.stale} stale, {balance.duplicate} sent twice; dead letters: {rejected}", highlight=False, soft_wrap=True
    )
    console.print(f"{len(picture.messages)} webhooks received, every signature verified; {picture.forged} refused", highlight=False)
    first = f"{stage.first_incident_s:.0f} s" if stage.first_incident_s is not None else "never"
    console.print(f"{picture.elapsed_s:.0f} s on the wall, the first incident after {first}\n", highlight=False)
    for incident in sorted(picture.incidents, key=lambda incident: incident.opened_at_ms):
        console.print(incident_line(incident), soft_wrap=True)
    console.print(Text(_lead(picture.incidents)), soft_wrap=True)
    where = "" if keep is None else f"\nThe day, the database and the log are in {keep}."
    console.print(Text(f"{where}\n{_NEXT}"), soft_wrap=True)


def _lead(incidents: Iterable[Incident]) -> str:
    about = sorted(item.opened_at_ms for item in incidents if item.series.name == "halden-bank")
    if not about:
        return "\nNo incident about Halden Bank: without the model every document is neutral."
    return (
        f"\nThe first rumour about Halden Bank came at {RUN_BEGINS:%H:%M}; the first incident about it opened at {clock(about[0])}."
    )


_NEXT: Final = """What to try next:
  bellwether demo --keep DIR            keep the day and look at it with the commands below
  bellwether score                      type a headline, get its topic and sentiment
  bellwether check FILE                 your own configuration, watch list and rules
  bellwether run -c FILE                the daemon on your Kafka, or on a file that grows
  bellwether deadletters list, outbox   what was refused, what was told"""
