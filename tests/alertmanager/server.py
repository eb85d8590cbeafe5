"""A real Alertmanager on a free loopback port, of Debian's package: started, stopped and killed by process id."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import urllib.request
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import urlencode

from tests.kafka.server import free_port

START_S = 60.0
STOP_S = 20.0
PROGRAMS = ("prometheus-alertmanager", "alertmanager")


class AlertmanagerAbsent(Exception):
    """There is no Alertmanager to test with; the message says what is missing."""


@dataclass
class Alertmanager:
    """A server of our own in `folder`. It tells `notify_url` of every group, and forgets what it has not heard of for a while."""

    folder: Path
    program: str
    notify_url: str = "http://127.0.0.1:1/"
    resolve_timeout: str = "5m"
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """What the path of its API is appended to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> Path:
        """What the server wrote."""
        return self.folder / "alertmanager.log"

    def start(self) -> None:
        """Starts it, with nothing remembered, and waits until it is ready. Raises AlertmanagerAbsent."""
        shutil.rmtree(self.folder / "data", ignore_errors=True)
        (self.folder / "alertmanager.yml").write_text(json.dumps(self._configuration()), encoding="utf-8")
        command = [
            self.program,
            f"--config.file={self.folder / 'alertmanager.yml'}",
            f"--storage.path={self.folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--cluster.listen-address=",
        ]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline_s = time.monotonic() + START_S
        while time.monotonic() < deadline_s and self.process.poll() is None:
            with suppress(URLError, OSError), urllib.request.urlopen(f"{self.url}/-/ready", timeout=2):
                return
            time.sleep(0.05)
        self.stop()
        raise AlertmanagerAbsent(f"it did not start; its log ends: {self.log.read_text(errors='replace')[-800:]}")

    def stop(self) -> None:
        """Stops it; what it knew is gone."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_S)
        self.process = None

    def alerts(self, **matching: str) -> list[dict[str, Any]]:
        """What its API shows of the alerts with these labels that are not over, in the order of their series."""
        query = urlencode([("filter", f'{name}="{value}"') for name, value in matching.items()])
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts?{query}", timeout=10) as answer:
            return sorted(json.load(answer), key=lambda one: one["labels"].get("series", ""))

    def groups(self) -> list[dict[str, Any]]:
        """How its API shows the alerts, group by group."""
        with urllib.request.urlopen(f"{self.url}/api/v2/alerts/groups", timeout=10) as answer:
            found: list[dict[str, Any]] = json.load(answer)
        return found

    def amtool(self, *arguments: str) -> str:
        """What Alertmanager's own command line prints."""
        command = ["amtool", f"--alertmanager.url={self.url}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    def _configuration(self) -> dict[str, Any]:
        return {
            "global": {"resolve_timeout": self.resolve_timeout},
            "route": {
                "receiver": "recorder",
                "group_by": ["alertname"],
                "group_wait": "300ms",
                "group_interval": "300ms",
                "repeat_interval": "1h",
            },
            "receivers": [{"name": "recorder", "webhook_configs": [{"url": self.notify_url, "send_resolved": True}]}],
        }


def start_local(folder: Path, **settings: Any) -> Alertmanager:
    """A running server of our own in `folder`. Raises AlertmanagerAbsent when the program is missing."""
    program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
    if program is None or shutil.which("amtool") is None:
        raise AlertmanagerAbsent("no alertmanager and amtool (on Debian: apt-get install prometheus-alertmanager)")
    server = Alertmanager(folder, program, **settings)
    server.start()
    return server
