"""What systemd hears, on the socket on which systemd would hear it."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import pytest

from monitor.errors import ConfigurationError
from monitor.supervision import Supervision
from monitor.web import Health

WATCHDOG_S = 4


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


class State:
    """How the daemon is, as its two probes would say."""

    def __init__(self):
        self.is_live, self.is_ready = True, False

    def live(self):
        return Health(self.is_live, {"loop": "turned 0.1 s ago"})

    def ready(self):
        return Health(self.is_ready, {"source": "open" if self.is_ready else "closed", "partitions": "3\nREADY=1"})


class Manager:
    """The receiving end: a bound datagram socket, read without waiting."""

    def __init__(self, address, path):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.environment = {"NOTIFY_SOCKET": path}

    def heard(self):
        """The messages since the last call, each as its assignments; statuses are looked at on their own."""
        messages = []
        while True:
            try:
                message = self.socket.recv(4096)
            except BlockingIOError:
                return messages
            messages.append(message.decode().split("\n"))

    def assignments(self):
        return [[line for line in message if not line.startswith("STATUS=")] for message in self.heard()]


@pytest.fixture(params=["path", "abstract"])
def manager(request):
    # A socket's path must be short, and those of pytest are not.
    with tempfile.TemporaryDirectory() as folder:
        name = str(Path(folder) / "notify") if request.param == "path" else f"bellwether-{uuid.uuid4().hex}"
        abstract = request.param == "abstract"
        manager = Manager("\0" + name if abstract else name, "@" + name if abstract else name)
        yield manager
        manager.socket.close()


@pytest.fixture
def state():
    return State()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def supervise(manager, state, clock):
    made = []

    def make(**environment):
        made.append(Supervision(manager.environment | environment, state.live, state.ready, clock))
        return made[-1]

    yield make
    for supervision in made:
        supervision.close()


def watchdog(seconds=WATCHDOG_S):
    return {"WATCHDOG_USEC": str(seconds * 1_000_000), "WATCHDOG_PID": str(os.getpid())}


def test_ready_is_said_once_and_only_when_news_is_being_read(manager, state, clock, supervise):
    supervision = supervise()
    supervision.look()
    assert manager.assignments() == [["EXTEND_TIMEOUT_USEC=60000000"]]
    state.is_ready = True
    supervision.look()
    assert manager.assignments() == [["READY=1"]]
    state.is_ready = False
    supervision.look()
    state.is_ready = True
    clock.now_s += 3600
    supervision.look()
    assert manager.assignments() == [[], []]


def test_the_manager_is_asked_for_patience_for_as_long_as_the_source_is_away(manager, clock, supervise):
    supervision = supervise()
    for _ in range(60):
        supervision.look()
        clock.now_s += 1
    assert manager.assignments() == [["EXTEND_TIMEOUT_USEC=60000000"]] * 6


def test_the_watchdog_hears_from_us_at_half_of_its_interval(manager, state, clock, supervise):
    state.is_ready = True
    supervision = supervise(**watchdog())
    for _ in range(WATCHDOG_S * 10):
        supervision.look()
        clock.now_s += 0.1
    assert manager.assignments() == [["READY=1", "WATCHDOG=1"], ["WATCHDOG=1"]]


def test_the_watchdog_of_another_process_hears_nothing(manager, state, supervise):
    state.is_ready = True
    supervise(**watchdog() | {"WATCHDOG_PID": str(os.getpid() + 1)}).look()
    assert manager.assignments() == [["READY=1"]]


def test_a_loop_that_stands_still_is_silent_so_that_it_is_restarted(manager, state, clock, supervise):
    state.is_ready = True
    supervision = supervise(**watchdog())
    supervision.look()
    manager.heard()
    state.is_live = state.is_ready = False
    for _ in range(10):
        clock.now_s += WATCHDOG_S
        supervision.look()
    assert manager.heard() == []
    state.is_live = state.is_ready = True
    supervision.look()
    assert manager.assignments() == [["WATCHDOG=1"]]


def test_the_status_says_how_it_is_and_when_that_changes(manager, state, supervise):
    supervision = supervise()
    supervision.look()
    state.is_ready = True
    supervision.look()
    supervision.look()
    (before, _), (after, _) = manager.heard()
    assert before == "STATUS=not reading: source closed, partitions 3 READY=1"
    assert after == "STATUS=reading: source open, partitions 3 READY=1"


def test_the_end_is_announced_once_and_nothing_follows_it(manager, state, clock, supervise):
    state.is_ready = True
    supervision = supervise(**watchdog())
    supervision.stopping()
    supervision.stopping()
    clock.now_s += 3600
    supervision.look()
    assert manager.assignments() == [["STOPPING=1"]]


def test_a_manager_that_does_not_read_delays_nothing_and_hears_the_next_report(manager, state, clock, supervise):
    state.is_ready = True
    supervision = supervise(**watchdog())
    began_s = time.monotonic()
    for _ in range(2000):
        clock.now_s += WATCHDOG_S / 2
        supervision.look()
    # Not a wait of a twentieth of a second for each would fit into this.
    assert time.monotonic() - began_s < 30
    taken = manager.assignments()
    assert 1 < len(taken) < 2000
    assert taken[0] == ["READY=1", "WATCHDOG=1"]
    # The last one was not taken, and is not waited for until the next is due.
    supervision.look()
    assert manager.assignments() == [["WATCHDOG=1"]]


def test_a_manager_that_is_gone_ends_nothing(manager, state, supervise):
    supervision = supervise()
    manager.socket.close()
    state.is_ready = True
    supervision.look()
    supervision.stopping()


def test_without_a_manager_nobody_asks_how_we_are():
    def asked():
        raise AssertionError("nobody is there to be told")

    supervision = Supervision({"WATCHDOG_USEC": "1000000"}, asked, asked)
    supervision.look()
    supervision.stopping()
    supervision.close()


@pytest.mark.parametrize(
    ("environment", "fault"),
    [
        ({"NOTIFY_SOCKET": "run/notify"}, "absolute path"),
        ({"NOTIFY_SOCKET": "/nowhere/notify"}, "No such file"),
        ({"NOTIFY_SOCKET": "/" + "x" * 200}, "too long"),
        ({"WATCHDOG_USEC": "soon"}, "microseconds"),
        ({"WATCHDOG_USEC": "0"}, "microseconds"),
    ],
)
def test_an_environment_that_no_manager_makes_is_refused(state, environment, fault):
    with pytest.raises(ConfigurationError, match=fault):
        Supervision(environment, state.live, state.ready)


def test_the_socket_is_not_inherited_by_what_the_daemon_starts(manager, supervise):
    supervision = supervise()
    listing = "import os; print(len(os.listdir('/proc/self/fd')))"
    with_it = subprocess.run([sys.executable, "-c", listing], capture_output=True, check=True, close_fds=False).stdout
    supervision.close()
    without_it = subprocess.run([sys.executable, "-c", listing], capture_output=True, check=True, close_fds=False).stdout
    assert with_it == without_it
