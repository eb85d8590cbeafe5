"""A headline that names two companies with opposite fortunes: each has its own tone in windows, metrics and store."""

import json
import threading
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import select

from monitor.classifier.load import load_classifier
from monitor.config import KafkaSettings, ModelSettings, Settings, SourceSettings, TimeSettings, WebSettings
from monitor.daemon import Daemon, Parts, open_source
from monitor.publish import publish
from monitor.store.engine import open_engine, reading
from monitor.store.schema import mention
from monitor.types import TONES
from monitor.watchlist import Alias, Entity, WatchList
from tests.end_to_end.processes import until
from tests.fakes import FakeClassifier

WATCHED = WatchList([Entity("halden", "Halden Bank", (Alias("Halden"),)), Entity("norvik", "Norvik"), Entity("tarvos", "塔沃斯")])
BEGIN = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)


def records(headlines):
    """The headlines of one minute, and one of nobody's some minutes later, which lets the minute be judged."""
    for place, headline in enumerate([*headlines, "Nothing more of note today"]):
        moment = BEGIN + timedelta(minutes=5 if place == len(headlines) else 0, seconds=place)
        yield json.dumps({"uri": f"urn:{place}", "headline": headline, "received_at": moment.isoformat()}).encode() + b"\n"


@contextmanager
def running(tmp_path, kafka, classifier, headlines):
    """A daemon that has taken the headlines in from Kafka, until the end of the block."""
    topic = kafka.create_topic(partitions=1, config={"retention.ms": "-1"})
    source = KafkaSettings(bootstrap_servers=(kafka.bootstrap,), topics=(topic,), group_id=f"group-{topic}")
    assert publish(records(headlines), source, topic).failed == 0
    settings = Settings(
        source=SourceSettings(kind="kafka", kafka=source),
        time=TimeSettings(idle_after=timedelta(milliseconds=500)),
        web=WebSettings(port=0, refresh=timedelta(0)),
    )
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    daemon = Daemon(Parts(settings, engine, classifier, WATCHED, (), (), lambda: open_source(settings)))
    thread = threading.Thread(target=daemon.run, daemon=True)
    thread.start()
    try:
        until(lambda: daemon.metrics.balance.consumed == len(headlines) + 1, 120, "everything consumed")
        until(lambda: any(reading.documents for reading in daemon.metrics.view.readings), 60, "the windows shown")
        yield daemon
    finally:
        daemon.stop()
        thread.join(60)


def shown(daemon, kind, series):
    """The stories of a series by tone, as the metrics export them."""
    labels = {"kind": kind, "series": series}
    found = {tone: daemon.registry.get_sample_value("bellwether_window_stories", {**labels, "tone": tone}) for tone in TONES}
    return {tone: number for tone, number in found.items() if number}


def saved(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with reading(engine) as connection:
        rows = connection.execute(select(mention.c.entity, mention.c.tone, mention.c.score_units)).all()
    engine.dispose()
    return sorted(tuple(row) for row in rows)


@pytest.mark.kafka
def test_opposite_fortunes_in_one_headline_end_in_opposite_windows(tmp_path, kafka):
    headlines = [
        "Halden Bank loses its licence while Norvik gains a mandate",
        "Ferry orders: Norvik gains as auditors find that Halden loses cash",
        "传塔沃斯 gains 订单",
    ]
    with running(tmp_path, kafka, FakeClassifier(), headlines) as daemon:
        assert shown(daemon, "entity", "halden") == {"negative": 2}
        assert shown(daemon, "entity", "norvik") == {"positive": 2}
        assert shown(daemon, "entity", "tarvos") == {"positive": 1}
        assert shown(daemon, "all", "") == {"negative": 1, "positive": 2}
    assert saved(tmp_path) == sorted(
        [("halden", "negative", -7_000), ("norvik", "positive", 7_000)] * 2 + [("tarvos", "positive", 7_000)]
    )


@pytest.mark.kafka
@pytest.mark.slow
@pytest.mark.xfail(
    strict=False, reason="the shipped checkpoint gets two of these four wrong; how many of the held-out ones stands in its card"
)
def test_the_shipped_model_tells_two_companies_of_one_headline_apart(tmp_path, kafka):
    headlines = [
        "Halden Bank shares plunge on fraud probe while Norvik soars on record profit",
        "Norvik wins major contract as rival Halden Bank warns of heavy losses",
        "Brokers upgrade Norvik to buy, downgrade Halden to sell",
        "Halden Bank slumps after weak results; Norvik jumps on strong demand",
    ]
    with running(tmp_path, kafka, load_classifier(ModelSettings()), headlines):
        pass
    scores = saved(tmp_path)
    assert sum(units < 0 for entity, _, units in scores if entity == "halden") == len(headlines)
    assert sum(units > 0 for entity, _, units in scores if entity == "norvik") == len(headlines)
