"""What a real Alertmanager makes of our alerts: it receives, groups, silences, keeps and resolves them."""

import json
import threading
import time
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest

from alerts.channels.alertmanager import fingerprint
from alerts.channels.posting import Endpoint
from alerts.channels.webhook import BodyFormat, WebhookReceiver
from alerts.deliver import Sender
from alerts.notice import Voice
from alerts.outbox import plan
from alerts.remind import Reminder
from alerts.signature import Secret
from alerts.types import AttemptResult, Delivery, SeriesSelector, Severity
from monitor.store.engine import open_engine
from monitor.store.outbox import SqlOutbox
from monitor.types import Metric, Series, SeriesKind
from tests.alertmanager.telling import a_receiver, decide, fresh, now_ms
from tests.alerts.building import a_change, a_rule, minutes
from tests.faults.tailing import append, news, running

NORDIA = Series(SeriesKind.ENTITY, "nordia")


def tell(server, *changes, **receiver):
    """Sends changes as the sender would; how each attempt ended."""
    told = a_receiver(server.url, **receiver)
    channel = told.channel()
    return [channel.send(delivery, now_ms()) for delivery in plan(changes, [told], [], now_ms())]


def until(holds, timeout_s=30.0):
    deadline_s = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline_s, "it never came to that"
        time.sleep(0.05)
    return found


# --- what it takes -------------------------------------------------------------------------------


def test_an_alert_stands_there_as_we_told_it(alertmanager):
    change = fresh()
    (attempt,) = tell(alertmanager, change, voice=Voice(console_url="https://console.example/{incident_id}"))
    assert (attempt.result, attempt.status_code) == (AttemptResult.DELIVERED, 200)
    (seen,) = alertmanager.alerts()
    assert seen["labels"] == {
        "alertname": "tone",
        "desk": "credit",
        "entity": "halden-bank",
        "generator": "bellwether",
        "series": "entity:halden-bank",
        "severity": "critical",
    }
    assert seen["annotations"]["summary"] == "Halden Bank: 61.9 % of 21 stories negative over 1 h (limit 50 %)"
    assert "Stories: 21 (13 negative, 3 neutral, 4 positive, 1 uncertain)" in seen["annotations"]["description"]
    assert seen["generatorURL"] == f"https://console.example/{change.incident.incident_id}"
    assert seen["status"]["state"] in {"active", "unprocessed"}
    assert seen["fingerprint"] == fingerprint(seen["labels"])
    opened_s = change.incident.opened_at_ms / 1_000
    assert seen["startsAt"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(opened_s)))


def test_whatever_a_rule_and_a_name_are_called_it_is_taken(alertmanager):
    hostile = fresh(
        labels={"a b": "x", "9": "y", "": "z", "ключ": "ü", "alertname": "stolen", "empty": ""},
        annotations={"a.b": "c", "summary": '{{ range }} <!channel> "\\'},
        rule='tone{}="\\',
        display="Halden\u202e <b>&",
    )
    (attempt,) = tell(alertmanager, hostile)
    assert attempt.result is AttemptResult.DELIVERED
    (seen,) = alertmanager.alerts()
    assert seen["labels"]["alertname"] == 'tone{}="\\'
    assert seen["fingerprint"] == fingerprint(seen["labels"])
    assert {"a_b": "x", "_9": "y"}.items() <= seen["labels"].items()


def test_what_it_does_not_take_is_refused(alertmanager):
    nonsense = Delivery("msg_1", "am", "i", 1, b'[{"labels":{},"startsAt":"2026-11-25T05:14:00.000Z"}]', 0, 0)
    attempt = a_receiver(alertmanager.url).channel().send(nonsense, now_ms())
    assert (attempt.result, attempt.status_code) == (AttemptResult.REFUSED, 400)


# --- grouping, silencing, resolving --------------------------------------------------------------


def test_the_alerts_of_one_rule_are_one_group_and_one_notification(alertmanager, recorder):
    tell(alertmanager, fresh(), fresh(incident_id="2", series=NORDIA, display="Nordia"), fresh(incident_id="3", rule="volume"))
    posts = recorder.wait_for(lambda posts: sum(len(post["alerts"]) for post in posts) >= 3)
    by_rule = {post["groupLabels"]["alertname"]: post for post in posts}
    assert [one["labels"]["entity"] for one in by_rule["tone"]["alerts"]] == ["halden-bank", "nordia"]
    assert len(by_rule["volume"]["alerts"]) == 1
    groups = {group["labels"]["alertname"]: len(group["alerts"]) for group in alertmanager.groups()}
    assert groups == {"tone": 2, "volume": 1}


def test_a_silence_by_amtool_keeps_an_alert_quiet_and_leaves_the_others(alertmanager, recorder):
    silence = alertmanager.amtool(
        "silence", "add", "entity=halden-bank", "--author=desk", "--comment=we know", "--duration=1h", "--require-comment"
    )
    tell(alertmanager, fresh(), fresh(incident_id="2", series=NORDIA, display="Nordia"))
    posts = recorder.wait_for(lambda posts: len(posts) >= 1)
    assert {one["labels"]["entity"] for post in posts for one in post["alerts"]} == {"nordia"}
    seen = {one["labels"]["entity"]: one["status"] for one in alertmanager.alerts()}
    assert seen["halden-bank"] == {"state": "suppressed", "silencedBy": [silence], "inhibitedBy": []}
    assert seen["nordia"]["state"] == "active"
    alertmanager.amtool("silence", "expire", silence)
    recorder.wait_for(lambda posts: any(one["labels"]["entity"] == "halden-bank" for post in posts for one in post["alerts"]))


def test_a_resolved_incident_is_resolved_there_at_once(alertmanager, recorder):
    tell(alertmanager, fresh())
    recorder.wait_for(bool)
    ended = fresh(resolved=True)
    tell(alertmanager, ended)
    posts = recorder.wait_for(lambda posts: posts[-1]["status"] == "resolved")
    (one,) = posts[-1]["alerts"]
    ended_s = ended.incident.resolved_at_ms / 1_000
    assert one["endsAt"].startswith(time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ended_s)))
    until(lambda: alertmanager.alerts() == [])


def test_an_end_that_lies_ahead_of_the_clock_is_now(alertmanager):
    tell(alertmanager, fresh())
    assert len(alertmanager.alerts()) == 1
    ahead = a_change(resolved=True, opened_at_ms=now_ms() + minutes(3), resolved_at_ms=now_ms() + minutes(4))
    (attempt,) = tell(alertmanager, ahead)
    assert attempt.result is AttemptResult.DELIVERED
    until(lambda: alertmanager.alerts() == [])


@pytest.mark.parametrize("resolved", [False, True])
def test_our_webhook_of_its_shape_is_the_one_that_it_sends_itself(alertmanager, recorder, resolved):
    voice = Voice(console_url="https://console.example/{incident_id}")
    opened, change = fresh(), fresh(resolved=resolved)
    tell(alertmanager, opened, voice=voice)
    recorder.wait_for(bool)
    if resolved:
        tell(alertmanager, change, voice=voice)
    theirs = recorder.wait_for(lambda posts: posts[-1]["status"] == ("resolved" if resolved else "firing"))[-1]
    webhook = WebhookReceiver(
        "recorder", Endpoint(Secret("https://h/")), (Secret("whsec_" + "c2VjcmV0" * 4),), voice, BodyFormat.ALERTMANAGER
    )
    ours = json.loads(webhook.render(change if resolved else opened))
    assert ours.keys() == theirs.keys()
    for key in ("version", "groupKey", "truncatedAlerts", "status", "receiver", "groupLabels", "commonLabels", "commonAnnotations"):
        assert ours[key] == theirs[key], key
    (our_alert,), (their_alert,) = ours["alerts"], theirs["alerts"]
    assert our_alert.keys() == their_alert.keys()
    for key in ("status", "labels", "annotations", "generatorURL", "fingerprint"):
        assert our_alert[key] == their_alert[key], key
    if not resolved:
        assert our_alert["endsAt"] == their_alert["endsAt"]


# --- what stands is told again -------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    yield engine
    engine.dispose()


def reminder_of(store, receiver):
    """As after a restart: it knows nothing but the store."""
    return Reminder(SqlOutbox(store), receiver, receiver.channel(), observe=lambda *_: None, wall_ms=now_ms)


def test_an_open_incident_outlives_the_resolve_timeout_only_because_it_is_told_again(lend, store):
    server = lend(resolve_timeout="2s")
    receiver = a_receiver(server.url)
    decide(store, receiver, fresh())
    reminder_of(store, receiver).remind()
    assert len(server.alerts()) == 1
    for _ in range(8):
        # Longer in all than the resolve timeout; each time a reminder that knows nothing but the store.
        time.sleep(0.5)
        reminder_of(store, receiver).remind()
        assert len(server.alerts()) == 1
    until(lambda: server.alerts() == [])


def test_an_alertmanager_that_restarted_with_nothing_hears_of_every_open_incident_again(lend, store):
    server = lend()
    receiver = a_receiver(server.url)
    opened = [fresh(incident_id=str(number), series=Series(SeriesKind.ENTITY, f"bank-{number:03}")) for number in range(250)]
    decide(store, receiver, *opened)
    reminder = reminder_of(store, receiver)
    reminder.remind()
    assert len(server.alerts()) == 250
    server.stop()
    reminder.remind()
    server.start()
    assert server.alerts() == []
    reminder.remind()
    assert len(server.alerts()) == 250


def test_an_end_that_got_lost_is_told_again(lend, store):
    server = lend()
    receiver = a_receiver(server.url)
    decide(store, receiver, fresh())
    reminder_of(store, receiver).remind()
    decide(store, receiver, fresh(resolved=True))
    reminder_of(store, receiver).remind()
    until(lambda: server.alerts() == [])


def test_sender_and_reminder_together_bring_an_incident_from_its_opening_to_its_end(lend, store, recorder):
    server = lend(resolve_timeout="3s")
    receiver = a_receiver(server.url, resend_every_ms=500)
    stop = threading.Event()
    sender = Sender(SqlOutbox(store), {"am": receiver.channel()})
    threads = [threading.Thread(target=partial(work, stop)) for work in (sender.run, reminder_of(store, receiver).run)]
    for thread in threads:
        thread.start()
    try:
        decide(store, receiver, fresh(severity=Severity.WARNING))
        sender.notify()
        recorder.wait_for(lambda posts: any(post["status"] == "firing" for post in posts))
        time.sleep(4.0)
        assert [one["status"]["state"] for one in server.alerts()] == ["active"]
        decide(store, receiver, fresh(resolved=True, severity=Severity.WARNING))
        sender.notify()
        recorder.wait_for(lambda posts: posts[-1]["status"] == "resolved")
        time.sleep(1.5)
        assert server.alerts() == []
    finally:
        stop.set()
        sender.notify()
        for thread in threads:
            thread.join(20)
    assert [post["status"] for post in recorder.posts] == ["firing", "resolved"], "nobody hears a thing twice"


def test_a_daemon_keeps_its_alertmanager_informed_over_the_restarts_of_both(lend, store, tmp_path):
    server = lend()
    receiver = a_receiver(server.url, resend_every_ms=500)
    busy = a_rule(
        name="busy", metric=Metric.STORIES, series=SeriesSelector(SeriesKind.ALL), level=1, clear_level=1, minimum_stories=0,
        minimum_sources=0,
    )  # fmt: skip
    now = datetime.now(tz=UTC)
    append(
        tmp_path,
        [news(f"uri-{ago}", f"Halden halts withdrawals {ago}", received_at=now - timedelta(minutes=ago)) for ago in (9, 5)],
    )
    database = str(store.url)
    with running(tmp_path, open_engine(database), rules=[busy], receivers=[receiver]):
        (seen,) = until(lambda: server.alerts(alertname="busy"), 60)
        assert seen["labels"]["series"] == "all"
        server.stop()
        server.start()
        assert until(lambda: server.alerts(alertname="busy"))
    server.stop()
    server.start()
    assert server.alerts() == []
    with running(tmp_path, open_engine(database), rules=[busy], receivers=[receiver]):
        assert until(lambda: server.alerts(alertname="busy"), 60)
