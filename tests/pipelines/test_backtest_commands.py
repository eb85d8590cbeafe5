"""The command line finds commands of other packages by their entry points."""

import os
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def bellwether(tmp_path_factory):
    """Runs the command line beside a package whose command cannot be loaded."""
    folder = tmp_path_factory.mktemp("site")
    package = folder / "broken-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n", encoding="utf-8")
    (package / "entry_points.txt").write_text("[bellwether.commands]\nbroken = nowhere.at_all:command\n", encoding="utf-8")

    def run(*arguments):
        environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
        command = [sys.executable, "-m", "monitor", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=environment)

    return run


def test_backtest_and_replay_are_commands_like_any_other(bellwether):
    helped = bellwether("--help")
    assert helped.returncode == 0
    assert {"backtest", "replay", "run"} <= set(helped.stdout.split())
    assert "--score-only" in bellwether("backtest", "--help").stdout


def test_a_command_that_cannot_be_loaded_costs_only_itself(bellwether):
    assert "Cannot be loaded: ModuleNotFoundError" in bellwether("--help").stdout
    broken = bellwether("broken")
    assert broken.returncode == 1
    assert "the command broken cannot be loaded from nowhere.at_all:command" in broken.stderr
    assert bellwether("version").returncode == 0


def test_a_backtest_without_an_archive_or_rules_says_what_is_missing(bellwether, tmp_path):
    assert "--archive: name at least one file" in bellwether("backtest").stderr
    missing = bellwether("backtest", str(tmp_path / "nothing.tsv"))
    assert (missing.returncode, "is no file" in missing.stderr) == (7, True)
    wrong = bellwether("replay", "--offsets", "0-5")
    assert (wrong.returncode, "PARTITION:FIRST-BEHIND" in wrong.stderr) == (2, True)
