"""The dashboards: made by their program, valid for Grafana, and every question in them has an answer from a real Prometheus."""

import itertools
import json
import re
import signal
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from deploy.grafana.dashboards import DASHBOARDS, rendered
from monitor.config import WebSettings
from monitor.metrics import Metrics, RenderedMetrics
from monitor.web import Health, WebApplication, WebServer
from tests.deploy.exposition import RECEIVER, filled, vocabulary
from tests.deploy.programs import DEPLOY, PROMETHEUS, PROMTOOL
from tests.deploy.promql import faults
from tests.end_to_end.processes import free_port, until

FILES = sorted((DEPLOY / "grafana").glob("*.json"))
SCHEMA = Path(__file__).parent / "schemas" / "grafana-dashboard.json"


def content(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def panels(path: Path) -> list[dict[str, Any]]:
    return [panel for panel in content(path)["panels"] if panel["type"] != "row"]


def expressions(path: Path) -> list[str]:
    """Every question of a dashboard: of its panels, its annotations and its variables."""
    page = content(path)
    asked = [target["expr"] for panel in panels(path) for target in panel["targets"]]
    asked += [note["expr"] for note in page["annotations"]["list"]]
    variables = (variable["query"] for variable in page["templating"]["list"] if variable["type"] == "query")
    return asked + [re.fullmatch(r"label_values\((.+), \w+\)", query)[1] for query in variables]


def spelt_out(expression: str) -> str:
    """The expression as Grafana would send it, everything chosen."""
    for name, value in (("$__rate_interval", "10s"), ("$job", "bellwether")):
        expression = expression.replace(name, value)
    return re.sub(r"\$(instance|receiver|topic|entity)\b", ".*", expression)


def test_the_files_are_what_the_program_writes():
    assert {path.stem for path in FILES} == {dashboard.uid for dashboard in DASHBOARDS}
    for dashboard in DASHBOARDS:
        path = DEPLOY / "grafana" / f"{dashboard.uid}.json"
        assert path.read_text(encoding="utf-8") == rendered(dashboard), "run: python deploy/grafana/dashboards.py"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_grafana_takes_it(path):
    jsonschema.validate(content(path), content(SCHEMA))


def test_the_schema_refuses_what_grafana_would_not_know():
    page = content(FILES[0])
    page["panels"][1]["gridPos"]["width"] = 4
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(page, content(SCHEMA))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_panel_says_what_it_shows_and_lies_on_no_other(path):
    everything = content(path)["panels"]
    numbers = [panel["id"] for panel in everything]
    assert len(set(numbers)) == len(numbers)
    for panel in panels(path):
        assert panel["title"]
        assert panel["description"].endswith(".")
        assert panel["fieldConfig"]["defaults"]["unit"]
        assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])
    places = [panel["gridPos"] for panel in everything]
    assert all(0 <= place["x"] <= place["x"] + place["w"] <= 24 for place in places)
    for one, other in itertools.combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above, (one, other)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_panel_asks_for_what_the_daemon_exports(path):
    for expression in expressions(path):
        assert faults(expression, vocabulary()) == [], expression


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_expression_is_promql(judge, path, tmp_path):
    asked = [{"record": f"asked:{number}", "expr": spelt_out(text)} for number, text in enumerate(expressions(path))]
    written = tmp_path / "asked.yaml"
    written.write_text(yaml.safe_dump({"groups": [{"name": "asked", "rules": asked}]}), encoding="utf-8")
    judge(PROMTOOL, "check", "rules", written)


def test_every_metric_of_the_daemon_is_shown_somewhere():
    shown = "\n".join(itertools.chain.from_iterable(map(expressions, FILES)))
    missing = set()
    for family in filled().registry.collect():
        if family.name.startswith("bellwether_") and family.name not in shown:
            missing.add(family.name)
    # What was consumed is the sum of the outcomes, which are shown.
    assert missing == {"bellwether_records_consumed"}


# --- a real Prometheus that scrapes a real exposition ------------------------------------------


@pytest.fixture
def exposed() -> Iterator[tuple[Metrics, int]]:
    """The daemon's own web server with metrics that have something to say."""
    metrics = filled()
    well = Health(ok=True, checks={})
    server = WebServer(WebApplication(RenderedMetrics(metrics.registry, 0), lambda: well, lambda: well), WebSettings(port=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield metrics, server.port
    server.close()
    thread.join(5)


@pytest.fixture
def prometheus(where, exposed, tmp_path) -> Iterator[str]:
    """Where a Prometheus answers that scrapes `exposed` every second under our rules."""
    program, folder = where(PROMETHEUS), tmp_path
    configuration = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(DEPLOY / "prometheus" / "rules.yaml")],
        "scrape_configs": [{"job_name": "bellwether", "static_configs": [{"targets": [f"127.0.0.1:{exposed[1]}"]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
    address = f"127.0.0.1:{free_port()}"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                program,
                f"--config.file={folder / 'prometheus.yaml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
        )
    yield f"http://{address}"
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def answer(address: str, expression: str) -> list[dict[str, Any]]:
    """What Prometheus says now."""
    query = urllib.parse.urlencode({"query": expression})
    with urllib.request.urlopen(f"{address}/api/v1/query?{query}", timeout=10) as reply:
        return json.load(reply)["data"]["result"]


def test_every_question_has_an_answer(exposed, prometheus):
    metrics, _ = exposed

    def scraped_twice_and_judged() -> bool:
        move(metrics)
        try:
            scrapes = answer(prometheus, 'sum(count_over_time(up{job="bellwether"}[1m]))')
            firing = answer(prometheus, 'ALERTS{alertname="BellwetherLogBroken", alertstate="firing"}')
        except urllib.error.URLError:
            return False
        return bool(scrapes) and float(scrapes[0]["value"][1]) >= 3 and bool(firing)

    until(scraped_twice_and_judged, 60, "three scrapes and an alert")
    unanswered = {}
    for path in FILES:
        for expression in expressions(path):
            found = answer(prometheus, spelt_out(expression))
            if not found or any(result["value"][1] == "NaN" for result in found):
                unanswered[expression] = found
    assert unanswered == {}


def move(metrics: Metrics) -> None:
    """Something more of everything that is a quantile, so that none of them is of nothing."""
    metrics.batch_documents.observe(40)
    metrics.batch_tokens.observe(900)
    metrics.pass_tokens.observe(900)
    metrics.collection_delay_seconds.observe(12)
    metrics.delivery_seconds.labels(RECEIVER).observe(0.2)
