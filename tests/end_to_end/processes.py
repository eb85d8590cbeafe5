"""The daemon as users run it: a process with a configuration file, asked over HTTP how it is, ended by signals."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.receiver import SECRET

START_S = 120.0
RUNNING: list[subprocess.Popen[bytes]] = []
"""Every daemon that a test started, so that a failing test leaves none behind."""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def until(true: Callable[[], Any], wait_s: float, what: str) -> Any:
    """The first true answer; fails with `what` when there is none in time."""
    deadline = time.monotonic() + wait_s
    while time.monotonic() < deadline:
        if answer := true():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not within {wait_s} s: {what}")


@dataclass
class Bellwether:
    """One instance in a folder: configuration, rules, watch list, log; and its database, where `store_url` names no other."""

    folder: Path
    source: dict[str, Any]
    rules: list[dict[str, Any]] = field(default_factory=list)
    entities: list[dict[str, Any]] = field(default_factory=list)
    receiver_url: str | None = None
    sections: dict[str, Any] = field(default_factory=dict)
    store_url: str | None = None
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        configuration = {
            "source": self.source,
            "model": {"disabled": True},
            "store": {"url": self.url},
            "web": {"port": self.port, "refresh": "0s"},
            "log": {"format": "json"},
            **self.sections,
        }
        if self.rules:
            (self.folder / "rules.yaml").write_text(yaml.safe_dump({"rules": self.rules}), encoding="utf-8")
            configuration["rules_file"] = "rules.yaml"
        if self.entities:
            (self.folder / "watchlist.yaml").write_text(yaml.safe_dump({"entities": self.entities}), encoding="utf-8")
            configuration["watchlist_file"] = "watchlist.yaml"
        if self.receiver_url:
            configuration["receivers"] = [
                {
                    "name": "desk",
                    "url": self.receiver_url,
                    "secret": SECRET,
                    "allow_http": True,
                    "allow_private_addresses": True,
                }
            ]
        self.config.write_text(yaml.safe_dump(configuration), encoding="utf-8")

    @property
    def config(self) -> Path:
        return self.folder / "bellwether.yaml"

    @property
    def database(self) -> Path:
        return self.folder / "bellwether.db"

    @property
    def url(self) -> str:
        return self.store_url or f"sqlite:///{self.database}"

    @property
    def log(self) -> str:
        path = self.folder / "bellwether.log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def command(self, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """A command of the installation, with its configuration."""
        whole = [sys.executable, "-m", "monitor", *arguments]
        return subprocess.run(whole, capture_output=True, text=True, timeout=START_S, check=False, **options)

    def start(self, *, environment: dict[str, str] | None = None) -> None:
        with (self.folder / "bellwether.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "monitor", "run", "-c", str(self.config)],
                stdout=log,
                stderr=log,
                env={**os.environ, **(environment or {})},
            )
        RUNNING.append(self.process)

    def get(self, path: str) -> tuple[int, str]:
        """Status and body of an HTTP GET; (0, "") where nobody answers."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=10) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def until_ready(self) -> None:
        def ready() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.log[-3000:]}"
            return self.get("/readyz")[0] == 200

        until(ready, START_S, f"ready; its log:\n{self.log[-3000:]}")

    def metrics(self) -> dict[str, float]:
        """Every sample of /metrics by its name and labels as printed."""
        samples = {}
        for line in self.get("/metrics")[1].splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.rpartition(" ")
                samples[name] = float(value)
        return samples

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self) -> int:
        """Asks for an orderly end; the exit code."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(START_S)

    def events(self, name: str) -> list[dict[str, Any]]:
        """The logged events of this name."""
        lines = (line for line in self.log.splitlines() if line.startswith("{"))
        return [event for line in lines if (event := json.loads(line)).get("event") == name]
