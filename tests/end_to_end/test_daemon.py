"""The daemon as a process over a file that is tailed: what a person who runs it sees."""

import json
import socket
import sqlite3

import pytest

from monitor.store.dead_letters import DeadLetters
from monitor.store.engine import open_engine
from monitor.store.incidents import Incidents
from tests.end_to_end.processes import Bellwether, until
from tests.end_to_end.stream import ENTITIES, IN_THE_NEWS, stream
from tests.receiver import receiving

RULES = [
    {
        **IN_THE_NEWS,
        "annotations": {"summary": "{{ entity.name }}: {{ stories }} stories"},
    }
]
CONSUMED = "bellwether_records_consumed_total"
OUTCOMES = tuple(f'bellwether_records_total{{outcome="{name}"}}' for name in ("counted", "stale", "duplicate", "rejected"))


@pytest.fixture
def lines():
    return [line.value for line in stream(1_500)]


def installation(folder, receiver_url=None, **source):
    file = {"path": str(folder / "news.jsonl"), "timestamps": "document", **source}
    sections = {"batch": {"max_documents": 64, "max_wait": "50ms"}, "time": {"idle_after": "500ms"}}
    return Bellwether(folder, {"kind": "file", "file": file}, RULES, ENTITIES, receiver_url, sections)


def append(bellwether, lines):
    with (bellwether.folder / "news.jsonl").open("ab") as file:
        file.writelines(line + b"\n" for line in lines)


def history(bellwether):
    engine = open_engine(bellwether.url)
    found = sorted(
        (item.incident_id, item.opened_at_ms, item.resolved_at_ms, item.summary) for item in Incidents(engine).incidents()
    )
    engine.dispose()
    return found


def run_whole(bellwether):
    """Reads the file to its end and stops by itself."""
    bellwether.start()
    assert bellwether.process.wait(120) == 0, bellwether.log[-3_000:]


def test_a_file_read_at_once_in_pieces_or_over_restarts_gives_the_same_incidents(tmp_path, lines):
    whole = installation(tmp_path / "whole", follow=False)
    append(whole, lines)
    run_whole(whole)
    expected = history(whole)
    assert len(expected) >= 4
    assert all("stories" in summary for *_, summary in expected)

    pieces = installation(tmp_path / "pieces")
    for part in (lines[:400], lines[400:401], lines[401:1_100], lines[1_100:]):
        pieces.start()
        pieces.until_ready()
        before = pieces.metrics()[CONSUMED]
        append(pieces, part)
        until(lambda part=part, before=before: pieces.metrics()[CONSUMED] - before == len(part), 60, "the part consumed")
        assert pieces.terminate() == 0, pieces.log[-3_000:]
    opened = [(identity, opened_at, summary) for identity, opened_at, _, summary in expected]
    assert [(identity, opened_at, summary) for identity, opened_at, _, summary in history(pieces)] == opened


def test_nothing_is_counted_before_it_is_consumed_or_missing_in_the_end_and_nothing_of_a_text_is_exported(tmp_path, lines):
    bellwether = installation(tmp_path)
    bellwether.start()
    bellwether.until_ready()
    seen = set()

    def consumed():
        samples = bellwether.metrics()
        assert samples[CONSUMED] >= sum(samples[name] for name in OUTCOMES)
        seen.add(samples[CONSUMED])
        return samples[CONSUMED]

    for begin in range(0, 1_500, 100):
        append(bellwether, lines[begin : begin + 100])
        until(lambda begin=begin: consumed() > begin, 60, "some of it consumed")
    until(lambda: consumed() == 1_500, 60, "all consumed")
    until(lambda: sum(bellwether.metrics()[name] for name in OUTCOMES) == 1_500, 60, "all placed")
    samples = bellwether.metrics()
    truth = [line.outcome for line in stream(1_500)]
    assert [samples[name] for name in OUTCOMES] == [truth.count("counted"), 0, truth.count("duplicate"), truth.count("rejected")]
    exported = bellwether.get("/metrics")[1]
    words = {word for line in lines if line.startswith(b'{"uri": "tag') for word in json.loads(line)["headline"].split()[:12]}
    assert not [word for word in words if word in exported]
    assert "tag:example.org" not in exported + bellwether.log
    assert len(seen) > 10
    assert bellwether.terminate() == 0


def test_sigterm_saves_what_was_read_and_says_goodbye(tmp_path, lines):
    bellwether = installation(tmp_path)
    append(bellwether, lines[:30])
    bellwether.start()
    bellwether.until_ready()
    assert bellwether.terminate() == 0
    assert bellwether.events("daemon.stopped")
    again = installation(tmp_path)
    again.start()
    again.until_ready()
    append(again, lines[30:40])
    until(lambda: again.metrics()[CONSUMED] == 10, 30, "only what is new is consumed")
    assert again.terminate() == 0


def test_a_service_manager_hears_when_it_is_ready_that_it_is_alive_and_when_it_stops(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(60)
        bellwether = installation(tmp_path)
        bellwether.start(environment={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "2000000"})
        heard = []

        def until_heard(word):
            while not any(word in message for message in heard):
                heard.append(manager.recv(4_096).decode())

        until_heard("READY=1")
        heard.clear()
        until_heard("WATCHDOG=1")
        assert bellwether.terminate() == 0
        until_heard("STOPPING=1")


def test_health_and_unknown_paths_answer_as_probes_expect(tmp_path):
    bellwether = installation(tmp_path)
    bellwether.start()
    bellwether.until_ready()
    assert bellwether.get("/livez")[0] == 200
    assert json.loads(bellwether.get("/readyz")[1])["checks"]["partitions"] == "1"
    assert bellwether.get("/etc/passwd")[0] == 404
    assert bellwether.terminate() == 0


def test_a_receiver_hears_of_each_change_once_signed(tmp_path, lines):
    with receiving() as receiver:
        bellwether = installation(tmp_path, receiver.url, follow=False)
        append(bellwether, lines)
        run_whole(bellwether)
        # What was decided in the last moment is sent by the next start.
        again = installation(tmp_path, receiver.url)
        again.start()
        again.until_ready()
        told = sum(1 + (resolved is not None) for _, _, resolved, _ in history(again))
        until(lambda: len(receiver.received) >= told, 30, "all told")
        assert again.terminate() == 0
        assert not receiver.unverified
        assert len(receiver.received) == len(receiver.first_of_each()) == told
    listed = bellwether.command("outbox", "--config", str(bellwether.config), "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert {row["status"] for row in rows} == {"delivered"}
    assert len(rows) == told


def test_a_receiver_that_is_down_keeps_its_deliveries_in_the_outbox_with_the_reason(tmp_path, lines):
    with receiving() as receiver:
        receiver.status = 500
        bellwether = installation(tmp_path, receiver.url)
        append(bellwether, lines)
        bellwether.start()
        bellwether.until_ready()
        until(lambda: bellwether.events("delivery.failed"), 60, "a failed delivery")
        assert bellwether.terminate() == 0
        listed = bellwether.command("outbox", "--config", str(bellwether.config), "--status", "due", "--json")
    rows = [json.loads(line) for line in listed.stdout.splitlines()]
    assert rows
    assert any(row["last"] == "refused 500" for row in rows)
    assert receiver.url not in listed.stdout + bellwether.log


def test_dead_letters_are_listed_shown_and_replayed_to_a_file(tmp_path):
    bellwether = installation(tmp_path, follow=False)
    append(bellwether, [b'{"uri": "a", "headline": "fine"}', b'{"headline": "no id \x1b[31m"}', b"{"])
    run_whole(bellwether)
    options = ("--config", str(bellwether.config))
    rows = [json.loads(line) for line in bellwether.command("deadletters", "list", *options, "--json").stdout.splitlines()]
    assert [row["reason"] for row in rows] == ["not_json", "missing_id"] or len(rows) == 2
    shown = bellwether.command("deadletters", "show", str(rows[1]["number"]), *options)
    assert shown.returncode == 0
    assert "\x1b" not in shown.stdout
    target = tmp_path / "again.jsonl"
    numbers = [str(row["number"]) for row in rows]
    assert bellwether.command("deadletters", "replay", *numbers, *options, "--to", str(target)).returncode == 0
    assert len(target.read_bytes().splitlines()) == 2
    assert all(letter.replayed_at_ms for letter in DeadLetters(open_engine(bellwether.url)).letters())
    missing = bellwether.command("deadletters", "show", "999", *options)
    assert (missing.returncode, "no dead letter 999" in missing.stderr) == (2, True)


def test_a_locked_database_is_waited_for_and_nothing_is_lost(tmp_path, lines):
    bellwether = installation(tmp_path)
    bellwether.start()
    bellwether.until_ready()
    lock = sqlite3.connect(bellwether.database, isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    append(bellwether, lines[:50])
    assert bellwether.metrics()[CONSUMED] == 0
    lock.execute("ROLLBACK")
    lock.close()
    until(lambda: bellwether.metrics()[CONSUMED] == 50, 60, "consumed after the lock")
    assert bellwether.terminate() == 0


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"sourse": {}}, 2, "sourse: unknown key"),
        ({"batch": {"max_wait": 5}}, 2, "batch.max_wait: a duration needs a unit"),
        ({"store": {"url": "nonsense"}}, 2, "no database URL"),
        ({"source": {"kind": "file", "file": {"path": "/nowhere/news.jsonl", "follow": False}}}, 4, "/nowhere/news.jsonl"),
    ],
)
def test_a_wrong_configuration_ends_with_a_sentence_and_its_code(tmp_path, change, code, says):
    bellwether = installation(tmp_path)
    bellwether.sections.update(change)
    bellwether.source = change.get("source", bellwether.source)
    bellwether.__post_init__()
    bellwether.start()
    assert bellwether.process.wait(60) == code
    assert says in bellwether.log
    assert "Traceback" not in bellwether.log or code != 2


def test_secrets_are_shown_nowhere(tmp_path):
    bellwether = installation(tmp_path, "http://127.0.0.1:1/secret-path-of-the-hook")
    checked = bellwether.command("check", str(bellwether.config))
    assert checked.returncode == 0, checked.stderr
    assert "secret-path" not in checked.stdout + checked.stderr
    assert "whsec_" not in checked.stdout + checked.stderr
