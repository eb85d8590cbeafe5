"""A real PostgreSQL on a free loopback port, of the binaries on this machine: started, stopped and killed by process id."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.kafka.server import free_port

VARIABLE = "BELLWETHER_TEST_POSTGRES"
START_S = 60.0
STOP_S = 30.0
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "max_connections": "200",
    # What is tested is the death of processes, not of the machine: nothing is lost by leaving the disk alone.
    "fsync": "off",
    "full_page_writes": "off",
    "deadlock_timeout": "200ms",
}


class PostgresAbsent(Exception):
    """There is no PostgreSQL to test with; the message says what is missing."""


@dataclass
class Postgres:
    """A server that somebody else runs: databases can be made in it, but it cannot be stopped. `address` names no database."""

    address: str

    def create_database(self) -> str:
        """The URL of a new, empty database, as `store.url` wants it."""
        name = f"t_{uuid.uuid4().hex[:12]}"
        with self.connect("postgres") as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        return f"{self.address}/{name}"

    def connect(self, database: str) -> psycopg.Connection[Any]:
        """A connection past our own code, for what a test does behind its back; every statement is its own transaction."""
        return psycopg.connect(f"{self.address}/{database}", autocommit=True, connect_timeout=10)


@dataclass
class LocalPostgres(Postgres):
    """A server of our own in `folder`."""

    address: str = ""
    folder: Path = Path()
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.address = f"postgresql://bellwether@127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What the server wrote."""
        return self.folder / "postgres.log"

    def create(self) -> None:
        """Makes the folder of the server's data. Raises PostgresAbsent."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            # PostgreSQL refuses to run as root.
            shutil.chown(self.folder, "postgres")
            for parent in self.folder.parents:
                if parent.stat().st_uid == 0 and not parent.stat().st_mode & 0o001:
                    parent.chmod(parent.stat().st_mode | 0o011)
        command = [_binary("initdb"), "-D", str(self._data), "-U", "bellwether", "-A", "trust", "-E", "UTF8", "--no-sync"]
        done = subprocess.run(_as_user(command), capture_output=True, text=True, timeout=120, check=False, cwd="/")
        if done.returncode != 0:
            raise PostgresAbsent(f"initdb failed: {done.stderr.strip()[-500:]}")

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        settings = SETTINGS | {"unix_socket_directories": str(self.folder), "port": str(self.port)}
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                _as_user([_binary("postgres"), "-D", str(self._data), *options]), stdout=log, stderr=log, cwd="/"
            )
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self.process.poll() is None:
            with suppress(psycopg.OperationalError), self.connect("postgres"):
                return
            time.sleep(0.05)
        self.kill()
        raise PostgresAbsent(f"it did not start; its log ends: {self.log.read_text(errors='replace')[-800:]}")

    def stop(self) -> None:
        """Ends every session and stops (a fast shutdown)."""
        self._end(signal.SIGINT)

    def kill(self) -> None:
        """Ends at once, as a crash does: sessions die in the middle of what they do, and nothing is tidied up."""
        self._end(signal.SIGQUIT)

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(number)
        self.process.wait(STOP_S)
        self.process = None

    @property
    def _data(self) -> Path:
        return self.folder / "data"


def start_local(folder: Path) -> LocalPostgres:
    """A running server of our own in `folder`. Raises PostgresAbsent when the binaries are missing."""
    server = LocalPostgres(folder=folder)
    server.create()
    server.start()
    return server


def _binary(name: str) -> str:
    """Debian puts the server's programs where PATH does not look."""
    places = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)]
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", "")]))
    if found is None:
        raise PostgresAbsent(f"no {name} (on Debian: apt-get install postgresql)")
    return found


def _as_user(command: list[str]) -> list[str]:
    if os.geteuid() != 0:
        return command
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *command]
