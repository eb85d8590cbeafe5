"""Where the programs are found that judge deployment files, and how each can be had."""

import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Program:
    """A program by its name, and what brings it."""

    name: str
    install: str


class ProgramAbsent(Exception):
    """A program is not there; the message says how to get it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        super().__init__(f"{program.name} is not installed; {program.install}")


IN_THE_TEST_EXTRA = "it comes with the test extra: `make test` installs it"

BELLWETHER = Program("bellwether", "`make install` brings it")
CHECK_JSONSCHEMA = Program("check-jsonschema", IN_THE_TEST_EXTRA)
HADOLINT = Program("hadolint", IN_THE_TEST_EXTRA)
YAMLLINT = Program("yamllint", IN_THE_TEST_EXTRA)
KUBECTL = Program("kubectl", "kubernetes.io says how; 1.27 or newer")
PROMTOOL = Program("promtool", "on Debian: apt-get install prometheus")
PROMETHEUS = Program("prometheus", PROMTOOL.install)
AMTOOL = Program("amtool", "on Debian: apt-get install prometheus-alertmanager")
SYSTEMD_ANALYZE = Program("systemd-analyze", "on Debian: apt-get install systemd")


def find(program: Program) -> str:
    """Where the program lies: beside our Python, else on the path. Raises ProgramAbsent."""
    beside = Path(sys.executable).parent / program.name
    found = str(beside) if beside.is_file() else shutil.which(program.name)
    if found is None:
        raise ProgramAbsent(program)
    return found


def run(program: Program, *arguments: object, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The program, ended. Raises ProgramAbsent."""
    command = [find(program), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False, cwd=folder)
