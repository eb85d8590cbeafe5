"""The unit for systemd: judged by systemd, shut in, and true to how the daemon reports, ends and fails."""

import configparser
import re
import sys

import pytest

from monitor import daemon as daemon_module
from monitor import supervision as supervision_module
from monitor.config import parse_duration
from monitor.errors import ConfigurationError
from tests.deploy.programs import DEPLOY, SYSTEMD_ANALYZE

UNIT = DEPLOY / "bellwether.service"
TEXT = UNIT.read_text(encoding="utf-8")
SHUTDOWN_S = 2 * daemon_module._SHUTDOWN_S
SHORTEST_LOAD_S = 5
MOST_EXPOSED = 15
"""In tenths of systemd's measure, of which 100 is the worst; a service that must reach the network has at least 9."""


@pytest.fixture
def installed(tmp_path):
    """The unit with a program that is there: systemd asks for it."""
    (program,) = re.findall(r"^ExecStart=(\S+)", TEXT, re.MULTILINE)
    unit = tmp_path / UNIT.name
    unit.write_text(TEXT.replace(program, sys.executable), encoding="utf-8")
    return unit


def settings() -> dict[str, str]:
    """Every setting of the service that is given once."""
    parser = configparser.RawConfigParser(strict=False, delimiters=["="], comment_prefixes=["#"], interpolation=None)
    parser.optionxform = str
    parser.read_string(TEXT)
    return dict(parser["Service"])


def seconds(text: str) -> float:
    return parse_duration(text.replace("min", "m")).total_seconds()


def test_systemd_takes_it(judge, installed):
    assert judge(SYSTEMD_ANALYZE, "verify", installed).strip() == ""


def test_a_setting_that_systemd_does_not_know_is_found(judge, installed):
    installed.write_text(installed.read_text(encoding="utf-8").replace("WatchdogSec", "WatchDogSec"), encoding="utf-8")
    assert "WatchDogSec" in judge(SYSTEMD_ANALYZE, "verify", installed)


def test_it_is_shut_in(judge, installed):
    judge(SYSTEMD_ANALYZE, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", installed)


def test_it_would_be_found_if_it_were_not(judge, installed):
    installed.write_text(installed.read_text(encoding="utf-8").replace("ProtectSystem=strict\n", ""), encoding="utf-8")
    open_unit = installed.read_text(encoding="utf-8").replace("CapabilityBoundingSet=\n", "")
    installed.write_text(open_unit, encoding="utf-8")
    judge(SYSTEMD_ANALYZE, "security", "--offline=true", f"--threshold={MOST_EXPOSED}", "--no-pager", installed, allowed=[1])


def test_the_watchdog_waits_for_several_reports():
    assert settings()["Type"] == "notify"
    assert seconds(settings()["WatchdogSec"]) >= 4 * supervision_module._REPORT_EVERY_S


def test_it_has_longer_to_start_than_a_model_takes_and_longer_to_end_than_the_daemon_takes():
    assert seconds(settings()["TimeoutStartSec"]) >= 180
    assert seconds(settings()["TimeoutStopSec"]) > SHUTDOWN_S
    assert settings()["KillSignal"] == "SIGTERM"


def test_a_failure_is_tried_again_and_a_wrong_configuration_is_not():
    assert settings()["Restart"] == "on-failure"
    assert settings()["RestartPreventExitStatus"] == str(ConfigurationError.exit_code)


def test_it_is_given_up_when_it_dies_at_once_and_not_while_a_database_is_away():
    interval_s = seconds(re.search(r"^StartLimitIntervalSec=(\w+)$", TEXT, re.MULTILINE)[1])
    burst = int(re.search(r"^StartLimitBurst=(\d+)$", TEXT, re.MULTILINE)[1])
    pause_s = seconds(settings()["RestartSec"])
    assert burst * pause_s < interval_s < burst * (pause_s + SHORTEST_LOAD_S)


def test_torch_may_write_machine_code():
    assert settings()["MemoryDenyWriteExecute"] == "no"


def test_secrets_are_lent_and_not_lying_about():
    credentials = re.findall(r"^LoadCredential=([\w-]+):(\S+)$", TEXT, re.MULTILINE)
    assert credentials
    assert all(path == f"/etc/bellwether/secrets/{name}" for name, path in credentials)
    assert settings()["UMask"] == "0077"
    assert settings()["DynamicUser"] == "yes"
