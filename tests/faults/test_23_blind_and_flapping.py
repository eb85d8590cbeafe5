"""Family 23: the feed goes blind while an alert fires, and a series swings around its level for hours. Nobody is told twice."""

import json
from dataclasses import replace
from datetime import timedelta

from monitor.config import TimeSettings
from monitor.store.engine import open_engine
from monitor.store.outbox import SqlOutbox
from tests.end_to_end.processes import until
from tests.end_to_end.stream import BEGIN, stamp
from tests.faults.oracles import delivery_truth, told
from tests.faults.tailing import append, desk, news, running, until_placed
from tests.faults.test_10_database import RULE, WATCHED
from tests.receiver import receiving

MINUTE = timedelta(minutes=1)
HOURS = 6
LAST_MS = round((BEGIN + timedelta(hours=HOURS + 1)).timestamp() * 1_000)
LETTERS = [f"{head}{tail}" for head in "bdfgklmnprst" for tail in ("andor", "ellix", "irmat", "omund", "urvey")]


def headline(number):
    """A headline about the bank that is no copy of another."""
    words = [LETTERS[(number * step + step * step) % len(LETTERS)] for step in (1, 7, 11, 13, 17, 23, 29)]
    return f"{' '.join(words)} {number} Bank0 Holdings"


def about_the_bank(minute, number):
    return news(f"bank:{number}", headline(number), source="wire", received_at=BEGIN + minute * MINUTE)


def heard(folder, lines, rule):
    """What a receiver heard of, and the whole of what was decided, once everything was read and told."""
    folder.mkdir()
    engine = open_engine(f"sqlite:///{folder / 'store.db'}")
    append(folder, lines)
    with receiving() as receiver:
        with running(folder, engine, rules=[rule], receivers=[desk(receiver.url)], watchlist=WATCHED) as daemon:
            until_placed(engine, len(lines))
            until(lambda: (daemon.incidents.evaluated_until_ms() or 0) >= LAST_MS, 60, "the last minute judged")
            until(lambda: SqlOutbox(engine).waiting() == 0, 60, "all told")
        assert delivery_truth(told(engine), receiver.received, receiver.unverified) == []
    engine.dispose()
    return [message["type"] for message in receiver.first_of_each()]


def test_a_series_that_swings_around_its_level_for_six_hours_is_told_of_twice_at_most(tmp_path):
    # In every window of ten minutes there are five stories or six, one or the other each minute, for six hours; then calm.
    lines, number = [], 0
    for minute in range(HOURS * 60):
        for _ in range((1, 0, 1, 1, 0, 1, 0, 1, 1, 0, 0)[minute % 11]):
            lines.append(about_the_bank(minute, number))
            number += 1
    lines.append(news("last", "Nothing of note", received_at=BEGIN + timedelta(hours=HOURS + 1)))
    swinging = replace(RULE, window_ms=600_000, level=6, clear_level=2)
    assert heard(tmp_path / "two levels", lines, swinging) == ["incident.opened", "incident.resolved"]
    # The stream is one that makes a rule without hysteresis speak again and again: else the test above would say nothing.
    assert len(heard(tmp_path / "one level", lines, replace(swinging, clear_level=6))) > 20


def test_while_the_feed_is_blind_what_fires_goes_on_firing_and_somebody_can_know(tmp_path):
    burst = [about_the_bank(minute, minute) for minute in range(14)]
    poison = [json.dumps({"received_at": stamp(BEGIN + timedelta(hours=1) + minute * MINUTE)}).encode() for minute in range(180)]
    calm = [
        news(f"calm:{minute}", headline(minute).replace("Bank0", "No"), received_at=BEGIN + timedelta(hours=5) + minute * MINUTE)
        for minute in range(40)
    ]
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    seen = TimeSettings(idle_after=timedelta(milliseconds=300), blind_after=timedelta(minutes=10))
    with receiving() as receiver:
        with running(tmp_path, engine, rules=[RULE], receivers=[desk(receiver.url)], watchlist=WATCHED, time=seen) as daemon:

            def sample(name):
                return daemon.registry.get_sample_value(f"bellwether_{name}")

            append(tmp_path, burst)
            until(lambda: len(receiver.received) == 1, 60, "the alert")
            append(tmp_path, poison)
            until(lambda: sample("feed_blind") == 1 and sample("alerts_unknown") == 1, 60, "the blindness told")
            until_placed(engine, len(burst + poison))
            assert [message["type"] for message in receiver.first_of_each()] == ["incident.opened"]
            append(tmp_path, calm)
            until(lambda: len(receiver.received) == 2, 60, "the end of the alert")
            until(lambda: sample("feed_blind") == 0 and sample("alerts_unknown") == 0, 60, "sight again")
        assert delivery_truth(told(engine), receiver.received, receiver.unverified) == []
    engine.dispose()
