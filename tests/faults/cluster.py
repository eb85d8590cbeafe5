"""Instances of the daemon over one Kafka topic and one database, with a stream of news whose truth is known."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, update

from monitor.config import KafkaSettings
from monitor.publish import publish
from monitor.store.engine import open_engine, writing
from monitor.store.incidents import Incidents
from monitor.store.outbox import SqlOutbox
from monitor.store.schema import lease, scored
from monitor.types import MINUTE_MS
from tests.end_to_end.processes import RUNNING, Bellwether, until
from tests.end_to_end.stream import ENTITIES, Line
from tests.faults.mortal import Fault, Process
from tests.faults.oracles import Told, consumed, rows, told
from tests.kafka.server import Kafka

SEED: Final = int(os.environ.get("BELLWETHER_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 10**9)
"""What tests draw their chances from; they print it."""

WAIT_S: Final = 180.0
"""How long a test waits for what must come; only a failure, or a machine with much else to do, takes so long."""

SESSION_S: Final = 6
LEASE_S: Final = 9
RULES: Final[list[dict[str, Any]]] = [
    {
        "name": "in-the-news",
        "metric": "stories",
        "series": "entity",
        "window": "10m",
        "comparison": ">=",
        "level": 40,
        "clear_level": 10,
        "minimum_sources": 2,
        "for": "1m",
        "severity": "warning",
    }
]
"""What opens an incident about each bank that is in the news, in a stream of some ten thousand records."""

OPENED: Final[list[Engine]] = []
"""Every database that a test looks into, so that a failing test leaves no connection behind."""

FEW_RULES: Final = [{**RULES[0], "level": 8, "clear_level": 3}]
"""The same for a stream of some two thousand."""


class Instance(Bellwether):
    """One instance, which may have a fault built in."""

    def begin(self, fault: Fault | None = None, limits: Mapping[str, float] | None = None) -> None:
        """Starts it, with a fault built in or without, and with other limits than the product's."""
        self.process = Process(self.config, self.folder / "bellwether.log", fault, limits or {})
        RUNNING.append(self.process)

    def events(self, name: str) -> list[dict[str, Any]]:
        """As of any instance; a line that is half written, or was when the process was killed, is none."""
        found = []
        for line in self.log.splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return [event for event in found if event.get("event") == name]

    @property
    def ended(self) -> int | None:
        """The exit code of a process that has ended; minus the signal that ended it."""
        assert self.process is not None
        return self.process.poll()

    @property
    def stalled(self) -> bool:
        """Whether the process is stopped (SIGSTOP)."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"

    def until_ended(self, wait_s: float = 60.0) -> int:
        """The exit code, once it has ended by itself."""
        assert self.process is not None
        return self.process.wait(wait_s)


@dataclass(frozen=True)
class Cluster:
    """What instances share: a topic, a group, a database, a receiver of webhooks; each has a folder of its own under `folder`."""

    folder: Path
    bootstrap: str
    topic: str
    store_url: str
    receiver_url: str | None = None
    group: str = "cluster"
    rules: Sequence[Mapping[str, Any]] = tuple(RULES)
    session_s: int = SESSION_S
    batch: int = 64

    def instance(self, name: str, *, static: bool = False, kafka: Mapping[str, Any] | None = None, **sections: Any) -> Instance:
        """An instance, not started; `static` gives it a fixed place in the group, `kafka` overrides settings of the source."""
        source = {
            "kind": "kafka",
            "kafka": {
                "bootstrap_servers": [self.bootstrap],
                "topics": [self.topic],
                "group_id": f"{self.group}-{self.topic}",
                "session_timeout": f"{self.session_s}s",
                **({"group_instance_id": name} if static else {}),
                **(kafka or {}),
            },
        }
        whole = {"batch": {"max_documents": self.batch, "max_wait": "100ms"}, "time": {"idle_after": "3s"}, **sections}
        return Instance(
            self.folder / name, source, list(map(dict, self.rules)), ENTITIES, self.receiver_url, whole, store_url=self.store_url
        )

    def engine(self) -> Engine:
        """The shared database; the end of the test closes it."""
        OPENED.append(open_engine(self.store_url))
        return OPENED[-1]


def end_the_lease(engine: Engine) -> None:
    """Makes the time pass for which a dead leader keeps others from leading."""
    with writing(engine) as connection:
        connection.execute(update(lease).values(expires_at_ms=0))


def until_told(engine: Engine, lines: Sequence[Line], wait_s: float = WAIT_S, *, gone: int = 0) -> None:
    """Returns when all of `lines` but those that are `gone` are saved, placed, judged and delivered."""
    last_ms = max(line.time_ms for line in lines) // MINUTE_MS * MINUTE_MS
    until(lambda: consumed(engine) >= len(lines) - gone, wait_s, f"all of {len(lines)} records saved")
    until(lambda: not rows(engine, scored), wait_s, "every document placed")
    until(lambda: (Incidents(engine).evaluated_until_ms() or 0) >= last_ms, wait_s, "the last minute judged")
    until(lambda: SqlOutbox(engine).waiting() == 0, wait_s, "the outbox empty")


def send(kafka: Kafka, topic: str, lines: Sequence[Line]) -> None:
    """Publishes the lines, each with its own time."""
    sent = publish((line.value + b"\n" for line in lines), KafkaSettings(bootstrap_servers=(kafka.bootstrap,)), topic)
    assert (sent.sent, sent.failed) == (len(lines), 0)


def new_topic(kafka: Kafka, partitions: int) -> str:
    """A topic that keeps the records however old their times are."""
    return kafka.create_topic(partitions=partitions, config={"retention.ms": "-1"})


def calm(folder: Path, lines: Sequence[Line], rules: Sequence[Mapping[str, Any]] = tuple(RULES)) -> Told:
    """The truth: what one instance tells that nothing happens to, which reads the lines from a file."""
    folder.mkdir(parents=True)
    (folder / "news.jsonl").write_bytes(b"".join(line.value + b"\n" for line in lines))
    source = {"kind": "file", "file": {"path": str(folder / "news.jsonl"), "timestamps": "document"}}
    instance = Instance(folder, source, list(map(dict, rules)), ENTITIES, sections={"time": {"idle_after": "2s"}})
    instance.begin()
    instance.until_ready()
    engine = open_engine(instance.url)
    try:
        until_told(engine, lines)
        assert instance.terminate() == 0, instance.log[-3000:]
        return told(engine)
    finally:
        engine.dispose()
