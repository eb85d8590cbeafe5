"""The demo as a person starts it: one command, incidents on the screen, webhooks verified, exit 0."""

import re
import subprocess
import sys

import pytest

from monitor.store.engine import open_engine
from monitor.store.incidents import Incidents


@pytest.mark.slow
def test_the_demo_shows_a_run_on_a_bank_become_incidents_and_webhooks(tmp_path):
    command = [sys.executable, "-m", "monitor", "demo", "--speed", "6000", "--keep", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=400, check=False)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    incidents = Incidents(open_engine(f"sqlite:///{tmp_path / 'bellwether.db'}")).incidents()
    about_the_bank = [item for item in incidents if item.series.name == "halden-bank"]
    assert about_the_bank
    assert all(item.resolved_at_ms is not None for item in about_the_bank), "the day ends in calm"
    assert "opened at 13:" in shown.stdout
    received = re.search(r"(\d+) webhooks received, every signature verified; 0 refused", shown.stdout)
    changes = sum(1 + (item.resolved_at_ms is not None) for item in incidents)
    assert received is not None
    assert int(received[1]) == changes
    assert "Traceback" not in (tmp_path / "bellwether.log").read_text(encoding="utf-8")


def test_a_folder_that_holds_a_demo_is_not_overwritten(tmp_path):
    (tmp_path / "news.jsonl").write_text("precious\n", encoding="utf-8")
    command = [sys.executable, "-m", "monitor", "demo", "--keep", str(tmp_path)]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (shown.returncode, "holds an earlier demo" in shown.stdout) == (2, True)
    assert (tmp_path / "news.jsonl").read_text(encoding="utf-8") == "precious\n"
