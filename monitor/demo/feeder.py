"""The lines of a day in, a file that grows as the day goes by: what a scraper would write, at any multiple of life."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from monitor.demo.sample_day import Line


class Feeder:
    """Appends each line to `path` when its moment has come. `stream_at` is the moment that the day has reached."""

    def __init__(self, lines: Sequence[Line], path: Path, speed: float) -> None:
        self._lines = lines
        self._path = path
        self._speed = speed
        self.stream_at: datetime = lines[0].at
        self.written = 0
        self.done = False

    def run(self, stop: threading.Event) -> None:
        """Writes the whole day, or until `stop` is set."""
        begun_s, first_at = time.monotonic(), self._lines[0].at
        with self._path.open("ab", buffering=0) as file:
            for line in self._lines:
                due_s = begun_s + (line.at - first_at).total_seconds() / self._speed
                while (wait_s := due_s - time.monotonic()) > 0:
                    if stop.wait(min(wait_s, 0.2)):
                        return
                file.write(line.value + b"\n")
                self.stream_at = line.at
                self.written += 1
        self.done = True
