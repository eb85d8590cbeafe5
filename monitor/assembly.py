"""A configuration and what it names, loaded, to a loop that is ready: for the daemon, and for a backtest, which sends nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Sequence
from typing import Final

from sqlalchemy import Engine

from alerts.baseline import WINDOWS_MS
from alerts.channels.protocol import Receiver
from alerts.judge import Judge
from alerts.types import Rule, SurgeRule, ThresholdRule
from monitor.batches import Batcher
from monitor.classifier.protocol import Classifier
from monitor.config import Settings
from monitor.decode import Decoder
from monitor.intake import Intake
from monitor.judging import Judging
from monitor.leading import Leading
from monitor.loop import Loop
from monitor.metrics import Metrics
from monitor.normal import Normal, watched
from monitor.severe_events import shipped_events
from monitor.sources.protocol import Source
from monitor.sources.times import wall_clock_ms
from monitor.starvation import Starvation
from monitor.store.incidents import Incidents
from monitor.store.lease import Lease
from monitor.store.ledger import Ledger
from monitor.stories import Stories
from monitor.types import DAY_MS
from monitor.view import Viewer
from monitor.watchlist import WatchList
from monitor.watermark import Silence
from monitor.windows import Windows

_SMALLEST_REACH_MS: Final = DAY_MS


def build_loop(
    *,
    settings: Settings,
    engine: Engine,
    owner: str,
    classifier: Classifier,
    rules: Sequence[Rule],
    watchlist: WatchList,
    receivers: Sequence[Receiver],
    metrics: Metrics,
    open_source: Callable[[], Source],
    announce: Callable[[], None],
    stop: threading.Event,
) -> Loop:
    """The loop that `settings` describe, with its leader; claims and lease know it as `owner`.

    `announce` hears that deliveries were saved; `stop` ends the wait for a database.
    """
    leading = _build_leading(settings, engine, owner, rules, watchlist, classifier.topics, receivers, metrics, announce)
    return Loop(
        open_intake=lambda: Intake(
            source=open_source(),
            ledger=leading.ledger,
            decoder=Decoder(settings.documents),
            watchlist=watchlist,
            owner=owner,
            wall_ms=wall_clock_ms,
            max_ahead_ms=round(settings.documents.max_ahead.total_seconds() * 1000),
        ),
        batcher=Batcher(settings.batch.max_tokens, settings.batch.max_documents, settings.batch.max_wait.total_seconds()),
        classifier=classifier,
        silence=Silence(settings.time.idle_after.total_seconds()),
        starvation=Starvation(),
        ledger=leading.ledger,
        leading=leading,
        viewer=Viewer(leading.windows, leading.judging, classifier.topics, tuple(watchlist.entities)),
        metrics=metrics,
        stop=stop,
    )


def _build_leading(  # noqa: PLR0917 (called once, above)
    settings: Settings,
    engine: Engine,
    owner: str,
    rules: Sequence[Rule],
    watchlist: WatchList,
    topics: Collection[str],
    receivers: Sequence[Receiver],
    metrics: Metrics,
    announce: Callable[[], None],
) -> Leading:
    ledger, lease = Ledger(engine), Lease(engine, owner)
    reach_ms = max([_SMALLEST_REACH_MS, *(longest_window_ms(rule) for rule in rules)])
    windows = Windows(reach_ms, ledger)
    titles = {category.id: category.title for category in shipped_events().categories.values()}
    judge = Judge(rules, watchlist.names, topics, titles)
    judging = Judging(
        judge=judge,
        incidents=Incidents(engine),
        lease=lease,
        windows=windows,
        receivers=receivers,
        reach_ms=reach_ms,
        blind_after_ms=round(settings.time.blind_after.total_seconds() * 1000),
        metrics=metrics,
        wall_ms=wall_clock_ms,
        announce=announce,
        normal=Normal(watched(watchlist.entities, topics)) if judge.looks_for_surges else None,
    )
    return Leading(
        lease=lease,
        ledger=ledger,
        stories=Stories(settings.stories, ledger),
        windows=windows,
        judging=judging,
        metrics=metrics,
        idle_after_ms=round(settings.time.idle_after.total_seconds() * 1000),
        windows_reach_ms=reach_ms,
        stories_reach_ms=round(settings.stories.window.total_seconds() * 1000),
    )


def longest_window_ms(rule: Rule) -> int:
    """The longest window that a rule reads; 0 for one that reads none."""
    match rule:
        case ThresholdRule():
            return rule.window_ms
        case SurgeRule():
            return WINDOWS_MS[-1]
        case _:
            return 0
