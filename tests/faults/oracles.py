"""A database, webhooks, a log and a process that lived through faults in, what is wrong with them out.

Each oracle gives back sentences about what is wrong; an empty list is a pass, so that a test says `assert conservation(...) == []`
and its failure reads as a report.
"""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Engine, Table, select

from monitor.store.dead_letters import DeadLetters
from monitor.store.engine import reading
from monitor.store.ledger import Ledger
from monitor.store.schema import document, incident, incident_change, interruption, log_partition, scored, tally
from monitor.types import ALL_SERIES
from tests.end_to_end.stream import Line
from tests.receiver import Received

_MEBIBYTE: Final = 1_048_576


def rows(engine: Engine, table: Table) -> Sequence[Any]:
    """Every row of a table."""
    with reading(engine) as connection:
        return connection.execute(select(table)).all()


def consumed(engine: Engine) -> int:
    """How many records are saved."""
    with reading(engine) as connection:
        return sum(connection.scalars(select(log_partition.c.consumed)))


# --- conservation ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Books:
    """How many records of each outcome every book of the database holds. All books tell of the same records."""

    books: dict[str, Counter[str]]

    def lost(self, truth: Counter[str]) -> int:
        """The largest shortfall that a book has: records that had to be in it and are not."""
        return max(_excess(truth, held, held.keys()) for held in self._comparable(truth))

    def doubled(self, truth: Counter[str]) -> int:
        """The largest surplus that a book has: records that are in it once too often."""
        return max(_excess(held, truth, held.keys()) for held in self._comparable(truth))

    def _comparable(self, truth: Counter[str]) -> list[Counter[str]]:
        # A book that knows of no outcome of a kind has that kind with 0, so that a missing one is seen.
        return [Counter({outcome: held[outcome] for outcome in held.keys() & truth.keys()}) for held in self.books.values()]


def _excess(more: Counter[str], less: Counter[str], outcomes: Collection[str]) -> int:
    return sum(max(0, more[outcome] - less[outcome]) for outcome in outcomes)


def books(engine: Engine) -> Books:
    """What the tallies, the documents, the counts per minute and the dead letters hold, each by itself."""
    placed = rows(engine, tally)
    saved = rows(engine, log_partition)
    minutes = [bucket.count for bucket in Ledger(engine).buckets(0) if bucket.series == ALL_SERIES]
    return Books(
        {
            "tallies": Counter(
                counted=sum(row.stories + row.copies for row in placed),
                duplicate=sum(row.duplicates for row in placed),
                rejected=sum(row.rejected for row in saved),
            ),
            "documents": Counter(counted=len(rows(engine, document))),
            "minutes": Counter(counted=sum(sum(count.stories) + sum(count.copies) for count in minutes)),
            "dead letters": Counter(rejected=len(list(DeadLetters(engine).letters()))),
        }
    )


def conservation(engine: Engine, lines: Sequence[Line]) -> list[str]:
    """What is wrong with the count of `lines`, all of which were published and are saved and placed by now.

    Every offset below the saved one is counted, stale, a duplicate or one dead letter, or lies in a recorded gap; and what was
    counted is what had to be counted, by name.
    """
    wrong = [*balance(engine)]
    truth = Counter(line.outcome for line in lines)
    held = books(engine)
    if (lost := held.lost(truth)) or held.doubled(truth):
        wrong.append(f"{lost} lost, {held.doubled(truth)} doubled: {dict(truth)} against {held.books}")
    wanted = {json.loads(line.value)["uri"] for line in lines if line.outcome == "counted"}
    found = Counter(row.uri for row in rows(engine, document))
    if found.keys() != wanted:
        wrong.append(f"{len(wanted - found.keys())} documents are missing, {len(found.keys() - wanted)} were never published")
    return wrong


def balance(engine: Engine) -> list[str]:
    """What is wrong with each partition's account by itself, whatever was published."""
    wrong = []
    placed = {(row.topic, row.number): row for row in rows(engine, tally)}
    gaps: Counter[tuple[str, int]] = Counter()
    for row in rows(engine, interruption):
        # A log that begins anew begins its account anew: what was read of the old one is behind us.
        gaps[row.topic, row.number] += row.next_offset - row.expected_offset
    waiting = Counter((row.topic, row.number) for row in rows(engine, scored))
    for saved in rows(engine, log_partition):
        key = saved.topic, saved.number
        told = placed.get(key)
        accounted = saved.rejected + waiting[key]
        if told is not None:
            accounted += told.stories + told.copies + told.stale + told.duplicates
        if saved.consumed != accounted:
            wrong.append(f"{key}: {saved.consumed} consumed, {accounted} accounted for")
        if saved.consumed + gaps[key] != max(0, saved.next_offset):
            wrong.append(f"{key}: {saved.consumed} consumed and {gaps[key]} in gaps, but saved up to {saved.next_offset}")
    places = Counter((row.topic, row.number, row.offset) for row in rows(engine, document))
    letters = Counter((*_place(letter.partition), letter.offset) for letter in DeadLetters(engine).letters())
    if not rows(engine, interruption):
        wrong += [f"{place} stands {number} times" for place, number in (places + letters).items() if number > 1]
    return wrong


def _place(partition: Any) -> tuple[str, int]:
    return partition.topic, partition.number


# --- liveness ----------------------------------------------------------------------------------


def recovery_s(measure: Callable[[], int], wait_s: float) -> float:
    """Seconds from now until `measure` grows. Fails when it does not within `wait_s` seconds."""
    begun_s = time.monotonic()
    before = measure()
    while time.monotonic() - begun_s < wait_s:
        if measure() > before:
            return time.monotonic() - begun_s
        time.sleep(0.05)
    raise AssertionError(f"no progress within {wait_s} s: it stands at {before}")


# --- alert truth -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """The incidents of a database and their changes, but for what no two databases have in common."""

    incidents: tuple[tuple[Any, ...], ...]
    changes: tuple[tuple[Any, ...], ...]


def told(engine: Engine) -> Told:
    """What a database says of its incidents, in one order."""
    return Told(_sorted(rows(engine, incident)), _sorted(rows(engine, incident_change)))


def _sorted(found: Iterable[Any]) -> tuple[tuple[Any, ...], ...]:
    return tuple(sorted(map(tuple, found), key=repr))


def alert_truth(expected: Told, found: Told) -> list[str]:
    """What is wrong with the incidents that were found: each one that is missing, is too many, or differs."""
    wrong = []
    for kind, wanted, had in (
        ("incident", expected.incidents, found.incidents),
        ("change", expected.changes, found.changes),
    ):
        wrong += [f"missing {kind}: {row}" for row in wanted if row not in had]
        wrong += [f"false {kind}: {row}" for row in had if row not in wanted]
    return wrong


def delivery_truth(expected: Told, received: Iterable[Received], unverified: Sequence[str]) -> list[str]:
    """What is wrong with what one receiver heard: a change untold, one that never was, or one told in two ways."""
    wrong = [f"not verified: {reason}" for reason in unverified]
    bodies: dict[str, bytes] = {}
    wrong += [
        f"{item.webhook_id} was told with two bodies"
        for item in received
        if bodies.setdefault(item.webhook_id, item.body) != item.body
    ]
    heard = Counter((message["type"], message["data"]["incident_id"]) for message in map(json.loads, bodies.values()))
    wanted: Counter[tuple[str, str]] = Counter()
    for row in expected.incidents:
        named = dict(zip(incident.columns.keys(), row, strict=True))
        wanted["incident.opened", named["incident_id"]] += 1
        if named["resolved_at_ms"] is not None:
            wanted["incident.resolved", named["incident_id"]] += 1
    wrong += [f"{kind} of {name} was not told" for kind, name in (wanted - heard)]
    wrong += [f"{kind} of {name} was told {(heard - wanted)[kind, name]} times too often" for kind, name in (heard - wanted)]
    return wrong


# --- memory ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Memory:
    """Resident memory and open files of a process over time. `look` is called again and again while it works."""

    pid: int
    resident_bytes: list[int] = field(default_factory=list)
    open_files: list[int] = field(default_factory=list)

    def look(self) -> None:
        """Takes one sample; none of a process that is gone."""
        folder = Path(f"/proc/{self.pid}")
        try:
            pages = int((folder / "statm").read_text().split()[1])
            files = len(list((folder / "fd").iterdir()))
        except OSError:
            return
        self.resident_bytes.append(pages * os.sysconf("SC_PAGE_SIZE"))
        self.open_files.append(files)

    def plateau(self, allowed_mebibytes: float, allowed_files: int = 16) -> list[str]:
        """What is wrong: the last quarter of the samples lies higher above the second quarter than is allowed."""
        wrong = []
        for name, samples, allowed in (
            ("bytes of memory", self.resident_bytes, allowed_mebibytes * _MEBIBYTE),
            ("open files", self.open_files, allowed_files),
        ):
            quarter = len(samples) // 4
            if quarter == 0:
                wrong.append(f"only {len(samples)} samples of {name}")
                continue
            early, late = max(samples[quarter : 2 * quarter]), max(samples[-quarter:])
            if late - early > allowed:
                wrong.append(f"{name} grew from {early} to {late}")
        return wrong


# --- logs --------------------------------------------------------------------------------------


def clean_log(log: str, *, secrets: Iterable[str] = (), texts: Iterable[str] = (), ended_at_once: bool = False) -> list[str]:
    """What is wrong with a daemon's log: a line that is not one JSON object, a failure nobody expected, a secret, a news text.

    With `ended_at_once` (kill -9) the last line of a life may be cut off, and the next life's first line follows it.
    """
    wrong = []
    for number, line in enumerate(log.splitlines(), 1):
        try:
            event = json.loads(line)
        except ValueError:
            if not ended_at_once:
                wrong.append(f"line {number} is no JSON: {line[:200]}")
            continue
        # kafka-python shows where it was when a connection broke: that is what broken connections are.
        broken = "Traceback" in str(event.get("exception", "")) and not str(event.get("logger", "")).startswith("kafka.net")
        if event.get("level") == "critical" or broken:
            wrong.append(f"line {number} is a failure: {line[:400]}")
    wrong += [f"a secret stands in the log: {secret[:4]}..." for secret in secrets if secret in log]
    wrong += [f"a text stands in the log: {text[:40]}..." for text in texts if text in log]
    return wrong
