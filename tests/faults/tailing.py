"""An instance that tails a file, for faults that need no Kafka: as a process, or in this process with every part at hand."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import structlog
from sqlalchemy import Engine

from alerts.channels.posting import Endpoint
from alerts.channels.protocol import Receiver
from alerts.channels.webhook import WebhookReceiver
from alerts.signature import Secret
from alerts.types import ThresholdRule
from monitor.classifier.protocol import Classifier
from monitor.config import BatchSettings, FileSettings, LogSettings, Settings, SourceSettings, TimeSettings, WebSettings
from monitor.daemon import Daemon, Parts, open_source
from monitor.log import configure_logging
from monitor.store.schema import document, log_partition, scored
from monitor.watchlist import WatchList
from tests.end_to_end.processes import Bellwether, until
from tests.end_to_end.stream import ENTITIES, Line, stamp
from tests.fakes import FakeClassifier
from tests.faults.oracles import books, clean_log, consumed, rows
from tests.receiver import SECRET

FILE = "news.jsonl"
LOG = "bellwether.log"


def news(uri: str, headline: str, **fields: Any) -> bytes:
    """One record as it stands on the wire; a `datetime` is written as RFC 3339."""
    written = {name: value if isinstance(value, (str, int)) else stamp(value) for name, value in fields.items()}
    return json.dumps({"uri": uri, "headline": headline, **written}, ensure_ascii=False).encode()


def append(folder: Path, lines: Iterable[bytes]) -> None:
    """Writes records to the end of the file that the instance of `folder` tails."""
    with (folder / FILE).open("ab") as file:
        file.writelines(line + b"\n" for line in lines)


def installation(
    folder: Path,
    rules: Sequence[Mapping[str, Any]] = (),
    *,
    store_url: str | None = None,
    receiver_url: str | None = None,
    sections: Mapping[str, Any] | None = None,
    **source: Any,
) -> Bellwether:
    """An instance that tails the file of `folder` by the times that its records name."""
    file = {"path": str(folder / FILE), "timestamps": "document", **source}
    quick = {"batch": {"max_documents": 64, "max_wait": "50ms"}, "time": {"idle_after": "500ms"}}
    return Bellwether(
        folder,
        {"kind": "file", "file": file},
        [dict(rule) for rule in rules],
        ENTITIES if rules else [],
        receiver_url,
        {**quick, **(sections or {})},
        store_url=store_url,
    )


def desk(url: str, name: str = "desk", **changes: Any) -> WebhookReceiver:
    """A receiver of webhooks on loopback."""
    endpoint = Endpoint(Secret(url), allow_private_addresses=True, allow_http=True, **changes)
    return WebhookReceiver(name, endpoint, (Secret(SECRET),))


@contextmanager
def running(
    folder: Path,
    engine: Engine,
    *,
    rules: Sequence[ThresholdRule] = (),
    receivers: Sequence[Receiver] = (),
    watchlist: WatchList | None = None,
    classifier: Classifier | None = None,
    time: TimeSettings | None = None,
    refresh: timedelta = timedelta(0),
    ends_with: int = 0,
    source: SourceSettings | None = None,
) -> Iterator[Daemon]:
    """A daemon in a thread of this process that tails the file of `folder`, unless it has another source; it ends with the block,
    and with that exit code.

    What it logs, at the lowest level, must be free of failures, unless it ends with one.
    """
    (folder / FILE).touch()
    settings = Settings(
        source=source or SourceSettings(kind="file", file=FileSettings(path=str(folder / FILE), timestamps="document")),
        batch=BatchSettings(max_documents=64, max_wait=timedelta(milliseconds=50)),
        time=time or TimeSettings(idle_after=timedelta(milliseconds=300)),
        web=WebSettings(port=0, refresh=refresh),
    )
    daemon = Daemon(
        Parts(
            settings,
            engine,
            classifier or FakeClassifier(),
            watchlist or WatchList(),
            tuple(rules),
            tuple(receivers),
            lambda: open_source(settings),
        )
    )
    codes: list[int] = []
    thread = threading.Thread(target=lambda: codes.append(daemon.run()), daemon=True)
    with logging_to(folder / LOG):
        thread.start()
        try:
            yield daemon
        finally:
            daemon.stop()
            thread.join(60)
    assert codes == [ends_with]
    if ends_with == 0:
        assert clean_log((folder / LOG).read_text(encoding="utf-8")) == []


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Events go to a file as the daemon writes them, at the lowest level; afterwards logging is as it was."""
    loggers = [logging.getLogger(name) for name in (None, "monitor", "alerts", "pipelines")]
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]
    with path.open("a", encoding="utf-8") as log:
        configure_logging(LogSettings(format="json", level="debug"), log)
        try:
            yield
        finally:
            loggers[0].handlers[:] = handlers
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
            structlog.reset_defaults()


def until_placed(engine: Engine, number: int, wait_s: float = 120) -> None:
    """Waits until `number` records are saved, and every document of them has its place."""
    until(lambda: consumed(engine) >= number, wait_s, f"{number} records saved")
    until(lambda: not rows(engine, scored), wait_s, "every document placed")


def conservation(engine: Engine, folder: Path, lines: Sequence[Line]) -> list[str]:
    """What is wrong with the count of `lines`, all of the file of `folder`, which are saved and placed by now."""
    wrong = []
    truth = Counter(line.outcome for line in lines)
    held = books(engine)
    if (lost := held.lost(truth)) or held.doubled(truth):
        wrong.append(f"{lost} lost, {held.doubled(truth)} doubled: {dict(truth)} against {held.books}")
    size = (folder / FILE).stat().st_size
    wrong += [f"saved up to byte {row.next_offset} of {size}" for row in rows(engine, log_partition) if row.next_offset != size]
    if consumed(engine) != len(lines):
        wrong.append(f"{consumed(engine)} consumed of {len(lines)}")
    wanted = Counter(json.loads(line.value)["uri"] for line in lines if line.outcome == "counted")
    found = Counter(row.uri for row in rows(engine, document))
    if found != wanted:
        wrong.append(f"{sum((wanted - found).values())} documents are missing, {sum((found - wanted).values())} are too many")
    return wrong
