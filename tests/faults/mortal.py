"""The daemon in a process of its own: `bellwether run`, but for one fault that is built in and limits that are shortened."""

from __future__ import annotations

import importlib
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import monitor.daemon
import monitor.loop
import monitor.store.incidents
import monitor.store.ledger
from monitor.cli import main
from monitor.intake import Intake
from monitor.sources.kafka import KafkaSource
from monitor.store.incidents import Incidents
from monitor.store.lease import Lease
from monitor.store.ledger import Ledger
from monitor.store.outbox import SqlOutbox
from monitor.store.schema import scored


@dataclass(frozen=True, slots=True)
class Point:
    """A place on the path: before or after `owner.name` is called, in a call whose arguments or answer are `meant`."""

    owner: Any
    name: str
    after: bool
    meant: Callable[[Any], bool] = lambda _: True


POINTS: Final = {
    "after-poll": Point(Intake, "read", after=True, meant=lambda arrived: bool(arrived.records)),
    "after-decode": Point(Intake, "decode", after=True, meant=bool),
    "after-classify": Point(monitor.loop, "score", after=False),
    "inside-the-transaction": Point(monitor.store.ledger, "insert_rows", after=False, meant=lambda given: given[1] is scored),
    "after-the-commit": Point(Ledger, "save", after=True),
    "during-a-claim": Point(Ledger, "claim", after=True),
    "during-a-rebalance": Point(KafkaSource, "_fetch", after=False, meant=lambda given: not given[0]._stable()),
    "after-the-election": Point(Lease, "acquire", after=True, meant=bool),
    "before-a-settle": Point(Ledger, "settle", after=False),
    "during-a-settle": Point(monitor.store.ledger, "_save_documents", after=False),
    "after-a-settle": Point(Ledger, "settle", after=True),
    "during-a-judgement": Point(monitor.store.incidents, "_save_changes", after=False, meant=lambda given: bool(given[1].changes)),
    "after-a-judgement": Point(Incidents, "save", after=True),
    "before-a-delivery": Point(SqlOutbox, "hold", after=True, meant=bool),
    "during-a-delivery": Point(SqlOutbox, "record", after=False),
}


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens where, at the `passing`th passing of `point`.

    The deed "kill" ends the process as kill -9 does, "stop" stalls it as kill -STOP does; a number of seconds holds the thread.
    With `again` it happens at every later passing too.
    """

    point: str
    passing: int = 1
    deed: str = "kill"
    again: bool = False


def build_in(fault: Fault) -> None:
    """Makes the fault happen in this process."""
    point = POINTS[fault.point]
    original = getattr(point.owner, point.name)
    passed = 0
    lock = threading.Lock()

    def pass_by(seen: Any) -> None:
        nonlocal passed
        if not point.meant(seen):
            return
        with lock:
            passed += 1
            due = passed == fault.passing or (fault.again and passed > fault.passing)
        if due:
            _do(fault)

    def watched(*arguments: Any, **named: Any) -> Any:
        if not point.after:
            pass_by(arguments)
        answer = original(*arguments, **named)
        if point.after:
            pass_by(answer)
        return answer

    setattr(point.owner, point.name, watched)


def _do(fault: Fault) -> None:
    line = {"event": "fault.reached", "level": "info", "point": fault.point, "deed": fault.deed}
    os.write(sys.stderr.fileno(), json.dumps(line).encode() + b"\n")
    if fault.deed == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault.deed == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        time.sleep(float(fault.deed))


def live(config: str, log: str, fault: Fault | None, limits: Mapping[str, float]) -> None:
    """Is `bellwether run -c CONFIG` from here to the end of this process, which writes to the file `log`.

    `limits` are constants of the product by their full name, with the value that they have here: nobody tests for minutes.
    """
    with Path(log).open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    for name, value in limits.items():
        module, _, constant = name.rpartition(".")
        assert hasattr(importlib.import_module(module), constant), name
        setattr(importlib.import_module(module), constant, value)
    if fault is not None:
        build_in(fault)
    sys.argv = ["bellwether", "run", "-c", config]
    main()


class Process:
    """A daemon in a process of its own, forked from one that has imported everything: it starts at once."""

    def __init__(self, config: Path, log: Path, fault: Fault | None, limits: Mapping[str, float]) -> None:
        self._process = _CONTEXT.Process(target=live, args=(str(config), str(log), fault, dict(limits)))
        self._process.start()

    @property
    def pid(self) -> int:
        """The id of the process."""
        assert self._process.pid is not None
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; minus the signal that ended it; None while it lives."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """As `returncode`."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, once it has ended; fails when that takes longer."""
        self._process.join(timeout)
        code = self._process.exitcode
        assert code is not None, f"it still runs after {timeout} s"
        return code

    def send_signal(self, number: int) -> None:
        """Sends a signal, if it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends it at once."""
        self.send_signal(signal.SIGKILL)


_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.faults.mortal"])
