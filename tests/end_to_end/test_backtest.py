"""A backtest as a person runs it: the incidents of the daemon, from files and from Kafka, and never a word to anybody."""

import json
import logging
import os
import re
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from random import Random

import pytest
import structlog
import yaml

from monitor.cli import app
from monitor.config import KafkaSettings
from monitor.publish import publish
from monitor.store.engine import open_engine
from monitor.store.incidents import Incidents
from pipelines.backtest.incidents import line
from tests.end_to_end.processes import Bellwether
from tests.end_to_end.stream import BEGIN, ENTITIES, IN_THE_NEWS, stream
from tests.monitor.classifier.tiny import WORDS, write_base, write_tiny_checkpoint
from tests.receiver import receiving

RULES = [
    {
        **IN_THE_NEWS,
        "annotations": {"summary": "{{ entity.name }}: {{ negative }} of {{ stories }} stories negative"},
    },
    {
        "name": "unsure",
        "metric": "uncertain_share",
        "series": "topic",
        "window": "1h",
        "comparison": ">=",
        "level": 0.4,
        "clear_level": 0.3,
        "minimum_stories": 5,
    },
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    base = write_base(tmp_path_factory.mktemp("base"))
    return base, write_tiny_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny", base)


@pytest.fixture
def installed(tmp_path, checkpoint):
    """An installation whose news are in a file, with a tiny model of random weights: it has opinions, and fast."""
    base, folder = checkpoint

    def install(receiver_url=None):
        file = {"path": str(tmp_path / "news.jsonl"), "timestamps": "document", "follow": False}
        sections = {
            "model": {"checkpoint": str(folder), "base": str(base), "threads": 1},
            "batch": {"max_documents": 64, "max_wait": "50ms"},
        }
        return Bellwether(tmp_path, {"kind": "file", "file": file}, RULES, ENTITIES, receiver_url, sections)

    return install


def spoken(line, chance):
    """The line with words in its headline that the tiny model knows; what is no document stays as it is."""
    try:
        told = json.loads(line)
        return json.dumps(told | {"headline": f"{' '.join(chance.choices(WORDS, k=6))} {told['headline']}"}).encode()
    except (ValueError, TypeError):
        return line


@pytest.fixture
def news(tmp_path):
    chance = Random(5)
    lines = [spoken(item.value, chance) for item in stream(1_200)]
    (tmp_path / "news.jsonl").write_bytes(b"".join(value + b"\n" for value in lines))
    return lines


@pytest.fixture
def backtest(capfd, monkeypatch):
    """Runs a command in this process, which need not load torch again; the lines of incidents, sorted, and what was said."""
    monkeypatch.setenv("COLUMNS", "200")
    handlers, level = logging.getLogger().handlers[:], logging.getLogger().level

    def run(bellwether, *arguments, command="backtest"):
        out = bellwether.folder / "incidents.jsonl"
        options = ["-c", str(bellwether.config), "--scores", str(bellwether.folder / "scores.db"), "--incidents", str(out)]
        app([command, *options, *arguments], standalone_mode=False)
        said = capfd.readouterr()
        return sorted(out.read_bytes().splitlines(keepends=True)), said.out + said.err

    yield run
    logging.getLogger().handlers[:] = handlers
    logging.getLogger().setLevel(level)
    structlog.reset_defaults()


def files(bellwether):
    return "--archive", str(bellwether.folder / "news.jsonl")


def lived(bellwether):
    """The incidents that the daemon opened, as a backtest would tell them."""
    engine = open_engine(bellwether.url)
    found = Incidents(engine).incidents()
    engine.dispose()
    return sorted(map(line, found))


def test_a_backtest_opens_the_incidents_that_the_daemon_opened_the_second_time_without_the_model(installed, news, backtest):
    bellwether = installed()
    bellwether.start()
    assert bellwether.process.wait(300) == 0, bellwether.log[-3_000:]
    expected = lived(bellwether)
    rules = {json.loads(item)["rule"] for item in expected}
    assert rules == {"in-the-news", "unsure"}
    found, said = backtest(bellwether, *files(bellwether))
    assert found == expected
    assert "not_json" in said
    again, said = backtest(bellwether, *files(bellwether))
    assert again == expected
    assert ", 0 texts classified now" in said or "; 0 texts classified now" in said


def test_a_backtest_of_two_halves_in_any_order_with_scores_from_before_is_that_of_the_whole(installed, news, tmp_path, backtest):
    bellwether = installed()
    expected, _ = backtest(bellwether, *files(bellwether))
    halves = [tmp_path / "early.jsonl", tmp_path / "late.jsonl"]
    for half, lines in zip(halves, (news[:700], news[700:]), strict=True):
        half.write_bytes(b"".join(value + b"\n" for value in lines))
    scores = tmp_path / "fresh.db"
    paths = ("--archive", str(halves[1]), str(halves[0]))
    app(["backtest", "-c", str(bellwether.config), "--score-only", "--scores", str(scores), *paths], standalone_mode=False)
    found, said = backtest(bellwether, "--scores", str(scores), *paths)
    assert found == expected
    assert ", 0 texts classified now" in said or "; 0 texts classified now" in said


def test_a_backtest_cannot_send_whatever_receivers_the_configuration_names(installed, news):
    with receiving() as receiver:
        bellwether = installed(receiver.url)
        arguments = ["backtest", "-c", str(bellwether.config), "--scores", str(bellwether.folder / "s.db"), *files(bellwether)]
        arguments += ["--incidents", str(bellwether.folder / "out.jsonl")]
        program = (
            "import sys\n"
            "from monitor import judging\n"
            "from monitor.cli import app\n"
            "plan, calls = judging.plan, []\n"
            "judging.plan = lambda *given: calls.append(plan(*given)) or calls[-1]\n"
            f"app({arguments!r}, standalone_mode=False)\n"
            "assert calls and not any(calls), calls\n"
            "assert {'monitor.daemon', 'monitor.store.outbox', 'alerts.deliver'}.isdisjoint(sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=False, env=os.environ
        )
        assert done.returncode == 0, done.stderr[-3_000:]
        assert (bellwether.folder / "out.jsonl").read_bytes()
        assert receiver.first_of_each() == []


@pytest.mark.kafka
def test_a_replay_of_kafka_is_the_backtest_of_the_same_records_and_no_group_notices(installed, news, kafka, backtest, monkeypatch):
    bellwether = installed()
    expected, _ = backtest(bellwether, *files(bellwether))
    topic = kafka.create_topic(partitions=2, config={"retention.ms": "-1"})
    settings = KafkaSettings(bootstrap_servers=(kafka.bootstrap,))
    assert publish(iter(news), settings, topic, timestamps="document").failed == 0
    monkeypatch.setenv("BELLWETHER_SOURCE__KIND", "kafka")
    monkeypatch.setenv("BELLWETHER_SOURCE__KAFKA__BOOTSTRAP_SERVERS", json.dumps([kafka.bootstrap]))
    groups = known_groups(kafka)

    def replay(*arguments):
        return backtest(bellwether, "--topic", topic, *arguments, command="replay")

    found, _ = replay()
    assert found == expected
    span = ("--from", f"{BEGIN:%Y-%m-%dT%H:%M}", "--until", f"{BEGIN + timedelta(hours=3):%Y-%m-%dT%H:%M}")
    assert replay(*span)[0] == backtest(bellwether, *files(bellwether), *span)[0] != expected
    _, said = replay("--offsets", "0:10-110")
    assert "100 records:" in said
    assert known_groups(kafka) == groups


def known_groups(kafka):
    with closing(kafka.admin()) as admin:
        return admin.list_groups()


HEADLINES = [
    ("06:00", "Halden Bank shares plunge after regulator opens fraud probe"),
    ("06:04", "Halden Bank warns of huge loss, cuts dividend"),
    ("06:07", "Depositors queue at Halden Bank as losses mount"),
    ("06:09", "Norvik Re quarterly profit beats forecasts"),
]


def test_the_shipped_model_finds_a_run_on_a_bank_in_a_table_of_headlines(tmp_path, backtest, capfd):
    rows = "".join(f"2026-03-02T{time}Z\ttop\t{title}\n" for time, title in HEADLINES)
    (tmp_path / "wire_2026.tsv").write_text("ts_utc\tslug\ttitle\n" + rows, encoding="utf-8")
    rule = {"name": "burst", "metric": "negative_stories", "series": "entity", "window": "15m", "comparison": ">=", "level": 3}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"rules": [rule]}), encoding="utf-8")
    watched = [{"id": "halden", "name": "Halden Bank"}, {"id": "norvik", "name": "Norvik Re"}]
    (tmp_path / "watchlist.yaml").write_text(yaml.safe_dump({"entities": watched}), encoding="utf-8")
    (tmp_path / "events.tsv").write_text(
        "event\tentity_regex\tknown_date\tfirst_neg_headline_utc\nRun on Halden\tHalden\t2026-03-02\t2026-03-02T06:00Z\n",
        encoding="utf-8",
    )
    names = ("rules", "watchlist", "scores", "events", "incidents", "report")
    paths = dict(zip(names, ("rules.yaml", "watchlist.yaml", "s.db", "events.tsv", "out.jsonl", "page.html"), strict=True))
    options = [part for name, path in paths.items() for part in (f"--{name}", str(tmp_path / path))]
    app(["backtest", *options, "--threads", "1", str(tmp_path / "wire_2026.tsv")], standalone_mode=False)
    (found,) = [json.loads(item) for item in (tmp_path / "out.jsonl").read_bytes().splitlines()]
    assert (found["rule"], found["kind"], found["entity"], found["topic"]) == ("burst", "threshold", "Halden Bank", None)
    assert found["opened_at"] == "2026-03-02T06:08:00Z"
    assert re.search(r"Run on Halden\s.*burst\s.*\s8\s", capfd.readouterr().out)
    assert "Run on Halden" in (tmp_path / "page.html").read_text(encoding="utf-8")
