"""Records of the past in, the incidents that the daemon would have opened out: its own loop, on a store that is thrown away.

Time is that of the records. There are no receivers, so no delivery is ever planned, and nothing that could send one is built.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, event

from alerts.types import Incident, Rule, severities
from monitor.assembly import build_loop
from monitor.classifier.protocol import Classifier
from monitor.config import Settings
from monitor.loop import Loop
from monitor.metrics import Balance, Metrics
from monitor.sources.times import wall_clock_ms
from monitor.store.engine import open_engine
from monitor.store.incidents import Incidents
from monitor.store.ledger import Ledger
from monitor.store.retention import prune
from monitor.types import Partition, Record
from monitor.watchlist import WatchList
from pipelines.backtest.source import PastSource

_OWNER: Final = "backtest"
_PRUNE_EVERY_RECORDS: Final = 100_000


@dataclass(frozen=True, slots=True)
class Setup:
    """What a run is made of: the daemon's configuration, with what it names already loaded."""

    settings: Settings
    classifier: Classifier
    watchlist: WatchList
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """What a run decided.

    `incidents` stand in the order in which they opened. Stream time went from `from_ms` to `until_ms`; both are None where there
    was no record. `balance` says what became of the records.
    """

    incidents: tuple[Incident, ...]
    from_ms: int | None
    until_ms: int | None
    balance: Balance


def run(setup: Setup, partition: Partition, records: Iterator[Record], progress: Callable[[int], None]) -> Run:
    """Runs the daemon's loop over all records, which must be in the order of their times.

    `progress` hears how many records were read so far. Raises what the classifier and the records raise.
    """
    clock = _Beginning(records)
    source = PastSource(partition, iter(clock))
    with _store() as engine:
        loop = _loop(setup, engine, source)
        pruned = 0
        with loop.opened():
            while not source.exhausted:
                loop.turn()
                progress(source.read)
                if source.read - pruned >= _PRUNE_EVERY_RECORDS:
                    pruned = source.read
                    _prune(engine, setup.settings, loop.ledger)
            loop.drain()
        progress(source.read)
        found = sorted(Incidents(engine).incidents(), key=lambda incident: (incident.opened_at_ms, incident.rule, incident.series))
        return Run(tuple(found), clock.first_ms, loop.ledger.newest_ms(), loop.metrics.balance)


class _Beginning:
    """Passes records on, and remembers when the first of them was."""

    def __init__(self, records: Iterator[Record]) -> None:
        self._records = records
        self.first_ms: int | None = None

    def __iter__(self) -> Iterator[Record]:
        for record in self._records:
            if self.first_ms is None and record.time_ms >= 0:
                self.first_ms = record.time_ms
            yield record


@contextmanager
def _store() -> Iterator[Engine]:
    """A database that is gone afterwards. It is never flushed: what a crash would cost is a run that must be repeated anyway."""
    with tempfile.TemporaryDirectory(prefix="bellwether-backtest-") as folder:
        engine = open_engine(f"sqlite:///{Path(folder) / 'backtest.db'}")
        engine.dispose()

        @event.listens_for(engine, "connect")
        def _on_connect(connection: Any, _: object) -> None:
            connection.execute("PRAGMA synchronous=OFF")

        try:
            yield engine
        finally:
            engine.dispose()


def _loop(setup: Setup, engine: Engine, source: PastSource) -> Loop:
    """The loop as the daemon builds it, without receivers."""
    settings, rules = setup.settings, setup.rules
    metrics = Metrics(CollectorRegistry(), [(rule.name, loud) for rule in rules for loud in severities(rule)], [])
    return build_loop(
        settings=settings,
        engine=engine,
        owner=_OWNER,
        classifier=setup.classifier,
        rules=rules,
        watchlist=setup.watchlist,
        receivers=(),
        metrics=metrics,
        open_source=lambda: source,
        announce=lambda: None,
        stop=threading.Event(),
    )


def _prune(engine: Engine, settings: Settings, ledger: Ledger) -> None:
    newest_ms = ledger.newest_ms()
    if newest_ms is not None:
        prune(engine, settings.store, newest_ms, wall_clock_ms())
