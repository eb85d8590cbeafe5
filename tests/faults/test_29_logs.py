"""Family 29: the log cannot be written. The news goes on, and the log says afterwards how much of it is missing."""

import json
import os
import select
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest
import structlog

from monitor.config import LogSettings
from monitor.log import configure_logging
from monitor.store.engine import open_engine
from tests.end_to_end.processes import RUNNING, until
from tests.end_to_end.stream import stream
from tests.faults.tailing import append, conservation, installation, logging_to, until_placed

LONG = "x" * 3_000


@pytest.fixture
def logging_as_it_was(tmp_path):
    with logging_to(tmp_path / "before.log"):
        yield


@pytest.fixture
def pipe():
    """A pipe as a log's stream, and what is read from it."""
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb", buffering=0) as reader, os.fdopen(writing, "w") as writer:
        yield reader, writer


@pytest.fixture
def full_pipe():
    """The writing end of a pipe that is full and that nobody reads."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * select.PIPE_BUF)
    os.set_blocking(writing, True)
    yield writing
    os.close(writing)
    os.close(reading)


def start(instance, stderr, **options):
    command = [sys.executable, "-m", "monitor", "run", "-c", str(instance.config)]
    instance.process = subprocess.Popen(command, stderr=stderr, stdout=stderr, **options)
    RUNNING.append(instance.process)


def consumes(instance, lines):
    """The instance counts what is written now, and ends in order."""
    instance.until_ready()
    append(instance.folder, [line.value for line in lines])
    engine = open_engine(instance.url)
    until_placed(engine, len(lines))
    assert conservation(engine, instance.folder, lines) == []
    engine.dispose()
    return instance.terminate()


def test_a_full_disk_for_logs_costs_lines_and_nothing_else(tmp_path):
    instance = installation(tmp_path, sections={"log": {"format": "json", "level": "debug"}})
    with open("/dev/full", "wb") as full:  # noqa: PTH123 (it is a device)
        start(instance, full)
    assert consumes(instance, list(stream(300))) == 0


def test_a_reader_of_the_log_that_stopped_delays_no_news(tmp_path, full_pipe):
    instance = installation(tmp_path, sections={"log": {"format": "json", "level": "debug"}})
    start(instance, full_pipe)
    assert consumes(instance, list(stream(300))) == 0


def test_a_reader_of_the_log_that_is_gone_ends_nothing(tmp_path):
    reading, writing = os.pipe()
    instance = installation(tmp_path)
    start(instance, writing)
    os.close(writing)
    os.close(reading)
    assert consumes(instance, list(stream(300))) == 0


@pytest.mark.soak
def test_the_loop_that_stands_still_ends_the_process_though_nobody_reads_the_log(tmp_path, full_pipe):
    script = tmp_path / "stalled.py"
    script.write_text(STALLED, encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=full_pipe)
    RUNNING.append(process)
    assert process.wait(120) == 70


STALLED = """
import sys, threading
from pathlib import Path
sys.path.insert(0, ".")
import monitor.daemon
from monitor.config import LogSettings
from monitor.log import configure_logging
from monitor.store.engine import open_engine
from tests.fakes import FakeClassifier
from tests.faults.tailing import append, news, running

class Hanging(FakeClassifier):
    def classify(self, prepared):
        threading.Event().wait()

folder = Path(sys.argv[1])
configure_logging(LogSettings(format="json"))
monitor.daemon.STALL_AFTER_S = 1.0
append(folder, [news(str(number), "Halden loses") for number in range(300)])
with running(folder, open_engine(f"sqlite:///{folder / 'store.db'}"), classifier=Hanging()):
    threading.Event().wait()
"""


def test_lines_that_could_not_be_written_are_counted_and_told(pipe, logging_as_it_was):
    reader, writer = pipe
    configure_logging(LogSettings(format="json"), writer)
    log = structlog.get_logger("monitor.test")
    began_s = time.monotonic()
    for number in range(100):
        log.info("thing.happened", number=number, text=LONG)
    assert time.monotonic() - began_s < 3, "only the first of the lost lines was waited for"
    os.set_blocking(reader.fileno(), False)
    held = reader.read()
    log.info("thing.happened", number=100)
    lines = [json.loads(line) for line in (held + reader.read()).decode().splitlines() if line.endswith("}")]
    written = [line["number"] for line in lines if line["event"] == "thing.happened"]
    lost = [line["event"] for line in lines if line["event"].startswith("log.lost")]
    assert written[-1] == 100
    assert lost == [f"log.lost: {101 - len(written)} lines could not be written"]


def test_a_reader_that_is_merely_slow_gets_every_line_whole(pipe, logging_as_it_was):
    reader, writer = pipe
    configure_logging(LogSettings(format="json"), writer)
    read = bytearray()

    def drain():
        while piece := os.read(reader.fileno(), 1_024):
            read.extend(piece)
            if b"the end" in read:
                return

    thread = threading.Thread(target=drain)
    thread.start()
    log = structlog.get_logger("monitor.test")
    for number in range(200):
        log.info("thing.happened", number=number, text=LONG * 3)
    log.info("the end")
    thread.join(30)
    lines = [json.loads(line) for line in read.decode().splitlines()]
    assert [line.get("number") for line in lines] == [*range(200), None]


def test_a_log_that_is_rotated_by_copying_goes_on_in_the_emptied_file(tmp_path):
    instance = installation(tmp_path)
    instance.start()
    instance.until_ready()
    log = tmp_path / "bellwether.log"
    until(lambda: instance.events("daemon.started"), 10, "the first lines")
    os.truncate(log, 0)
    assert instance.terminate() == 0
    assert [event["event"] for event in map(json.loads, log.read_text(encoding="utf-8").splitlines())][-1] == "daemon.stopped"
