"""The rules about Bellwether itself: they ask for what exists, fire when they should, and lead to a page that helps."""

import re
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import typer
import yaml

from monitor.cli import app
from monitor.config import Settings
from monitor.metrics import Metrics
from tests.deploy.exposition import filled, vocabulary
from tests.deploy.programs import AMTOOL, DEPLOY, PROMTOOL
from tests.deploy.promql import faults
from tests.readme import settings_rows

ROOT = DEPLOY.parent
RULES = DEPLOY / "prometheus" / "rules.yaml"
CASES = sorted((DEPLOY / "prometheus").glob("tests*.yaml"))
RUNBOOKS = sorted((DEPLOY / "runbooks").glob("*.md"))
SOURCES = [path for package in ("monitor", "alerts") for path in (ROOT / package).rglob("*.py")]


def rules() -> list[dict[str, Any]]:
    content = yaml.safe_load(RULES.read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def test_the_rules_are_rules(judge):
    judge(PROMTOOL, "check", "rules", "--lint=all", "--lint-fatal", RULES)


def test_each_alert_fires_when_it_should_in_the_words_that_people_read(judge):
    assert judge(PROMTOOL, "test", "rules", *CASES).count("SUCCESS") == len(CASES) == 2


def test_no_alert_is_without_a_case_in_which_it_fires_and_one_in_which_it_is_silent():
    fires, silent = set(), set()
    for path in CASES:
        for case in yaml.safe_load(path.read_text(encoding="utf-8"))["tests"]:
            for asked in case["alert_rule_test"]:
                (fires if asked["exp_alerts"] else silent).add(asked["alertname"])
    assert fires == silent == ALERTS.keys()


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule.get("alert") or rule["record"])
def test_a_rule_asks_for_what_the_daemon_exports(rule):
    known = vocabulary() | {rule["record"]: {"receiver": set()} for rule in rules() if "record" in rule}
    assert faults(rule["expr"], known) == []


@pytest.mark.parametrize(
    ("expression", "fault"),
    [
        ("sum(belwether_records_total)", "no series belwether_records_total"),
        ("rate(bellwether_records_total[5m]) > bellwether_reords_total", "no series bellwether_reords_total"),
        ('bellwether_records_total{result="counted"}', "bellwether_records_total has no label result"),
        ('bellwether_records_total{outcome="lost"}', "bellwether_records_total: outcome is never 'lost'"),
        ("sum by (flavour) (bellwether_fenced_total)", "no series has the label flavour"),
        ('{job="bellwether"}', 'a selector without a series that is known: {job="bellwether"}'),
    ],
)
def test_a_name_that_does_not_exist_is_found(expression, fault):
    assert faults(expression, vocabulary()) == [fault]


def test_what_is_recorded_is_used():
    text = RULES.read_text(encoding="utf-8")
    for rule in rules():
        if "record" in rule:
            assert text.count(rule["record"]) > 1, rule["record"]


def test_an_alert_needs_nothing_that_is_recorded_later_or_in_another_group():
    for group in yaml.safe_load(RULES.read_text(encoding="utf-8"))["groups"]:
        recorded = set()
        for rule in group["rules"]:
            needed = set(re.findall(r"\w+:\w+:\w+", rule["expr"]))
            assert needed <= recorded, rule
            recorded.add(rule.get("record"))


@pytest.mark.parametrize("alert", ALERTS.values(), ids=lambda alert: alert["alert"])
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(alert):
    assert alert["labels"]["severity"] in {"critical", "warning"}
    notes = alert["annotations"]
    assert notes.keys() == {"summary", "description", "runbook_url"}
    assert len(notes["summary"]) < 80 < len(notes["description"])
    assert notes["runbook_url"] == f"deploy/runbooks/{alert['alert']}.md"
    assert (ROOT / notes["runbook_url"]).is_file()


def test_every_counter_of_trouble_has_an_alert():
    text = RULES.read_text(encoding="utf-8")
    for metric in (
        "bellwether_source_lag",
        "bellwether_watermark_timestamp_seconds",
        "bellwether_feed_blind",
        "bellwether_records_rejected_total",
        "bellwether_outbox_waiting",
        "bellwether_store_retries_total",
        "bellwether_source_restarts_total",
        "bellwether_source_interruptions_total",
        "bellwether_fenced_total",
        "bellwether_documents_undefined_total",
        "bellwether_delivery_attempts_total",
    ):
        assert metric in text, metric


# --- runbooks ----------------------------------------------------------------------------------


def test_every_page_belongs_to_an_alert():
    assert {page.stem for page in RUNBOOKS} == ALERTS.keys()


def commands() -> set[str]:
    """Every `bellwether` command, as it is typed."""

    def below(command: Any, path: str) -> Iterator[str]:
        yield path
        for name, inner in getattr(command, "commands", {}).items():
            yield from below(inner, f"{path} {name}")

    return set(below(typer.main.get_command(app), "bellwether"))


def exported() -> set[str]:
    metrics: Metrics = filled()
    return {sample.name for family in metrics.registry.collect() for sample in family.samples}


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_page_says_what_it_means_what_to_look_at_and_what_to_do(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r"^#+ (.*)$", text, flags=re.MULTILINE) == [page.stem, "What it means", "What to look at", "What to do"]
    for target in re.findall(r"\]\(([^)]+)\)", text):
        assert (page.parent / target).is_file(), target


@pytest.mark.parametrize("page", RUNBOOKS, ids=lambda page: page.stem)
def test_a_page_names_settings_commands_metrics_and_events_that_exist(page):
    quoted = re.findall(r"`([^`]+)`", page.read_text(encoding="utf-8"))
    settings = {row[0].strip("`").replace("[]", "") for row in settings_rows(Settings)}
    sections = {name.split(".")[0] for name in settings if "." in name}
    events = set().union(*(re.findall(r'log\.\w+\(\s*"([\w.]+)"', path.read_text(encoding="utf-8")) for path in SOURCES))
    known_commands = commands()
    for text in quoted:
        if text.startswith("bellwether_"):
            assert text in exported(), text
        elif text.startswith("bellwether "):
            typed = re.match(r"bellwether( [a-z][a-z-]*)+", text)
            assert typed, text
            assert typed[0] in known_commands, text
        elif re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", text):
            key_of_the_topic_or_schema = text in {"retention.ms", "news.raw"}
            assert key_of_the_topic_or_schema or text in settings | events or text.split(".")[0] not in sections, text
            if text.split(".")[0] not in sections:
                assert key_of_the_topic_or_schema or text in events, text


# --- what compose mounts -----------------------------------------------------------------------


def test_prometheus_takes_its_configuration(judge, tmp_path):
    for path in (DEPLOY / "compose" / "prometheus.yaml", RULES):
        shutil.copy(path, tmp_path)
    judge(PROMTOOL, "check", "config", tmp_path / "prometheus.yaml")


def test_alertmanager_takes_its_configuration_and_every_severity_reaches_somebody(judge):
    configuration = DEPLOY / "compose" / "alertmanager.yaml"
    judge(AMTOOL, "check-config", configuration)
    for severity in sorted({alert["labels"]["severity"] for alert in ALERTS.values()}):
        reached = judge(AMTOOL, "config", "routes", "test", f"--config.file={configuration}", f"severity={severity}")
        assert reached.splitlines()[0] == "operations"
