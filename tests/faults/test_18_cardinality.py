"""Family 18: more names than anybody counts. Only who is watched has series, only so many are exported, and the rest is summed."""

import os
import tracemalloc
from datetime import timedelta

import pytest
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from monitor.metrics import MAX_ENTITIES
from monitor.store.engine import open_engine
from monitor.store.ledger import Ledger
from monitor.types import SeriesKind
from monitor.watchlist import Entity, WatchList
from tests.end_to_end.processes import until
from tests.end_to_end.stream import BEGIN
from tests.faults.tailing import append, news, running, until_placed

NAMES = int(os.environ.get("BELLWETHER_TEST_NAMES", "4000"))
WATCHED = 400
LATER = news("later", "Nothing of note", received_at=BEGIN + timedelta(minutes=5))
"""Lets the minutes before it be judged and shown."""

STRANGE = ('a "quoted" name', '{curly="braces"}', "back\\slash", "Söhne & Co. <AG>", "哈尔登银行", "x" * 100)


def stories_by_series(daemon):
    """The exported stories of each entity, all tones together."""
    found = {}
    for family in text_string_to_metric_families(generate_latest(daemon.registry).decode()):
        if family.name == "bellwether_window_stories":
            for sample in family.samples:
                if sample.labels["kind"] == "entity":
                    found[sample.labels["series"]] = found.get(sample.labels["series"], 0) + sample.value
    return found


def names(begin, end):
    """News that name somebody new each, some of them at great length."""
    for number in range(begin, end):
        name = f"Newcomer{number} {'Q' * 10_000 if number % 100 == 0 else ''}"
        yield news(f"urn:{number}", f"{name} of {number * 7_919 % 10_007} loses {number}", source=f"s{number}", received_at=BEGIN)


def test_names_that_nobody_watches_make_no_series_and_cost_no_memory(tmp_path):
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    with running(tmp_path, engine) as daemon:
        append(tmp_path, names(0, NAMES // 2))
        until_placed(engine, NAMES // 2)
        shown = len(generate_latest(daemon.registry).splitlines())
        tracemalloc.start()
        append(tmp_path, names(NAMES // 2, NAMES))
        until_placed(engine, NAMES)
        grown_bytes, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert len(generate_latest(daemon.registry).splitlines()) <= shown + 20
        assert stories_by_series(daemon) == {}
    kinds = {bucket.series.kind for bucket in Ledger(engine).buckets(0)}
    engine.dispose()
    assert SeriesKind.ENTITY not in kinds
    # What is kept of a story, to know its copies by, is half a kilobyte.
    assert grown_bytes < NAMES // 2 * 4_000, f"{grown_bytes / (NAMES // 2):.0f} bytes a name"


def test_of_more_watched_names_than_are_exported_the_quiet_ones_are_summed(tmp_path):
    watched = [Entity(f"bank-{number}", f"Bank{number} Holdings") for number in range(WATCHED)]
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    lines = [
        news(f"urn:{number}:{turn}", f"Bank{number} Holdings in the news {turn} of {number * turn}", received_at=BEGIN)
        for number in range(WATCHED)
        for turn in range(1, 2 + (number < 50))
    ]
    append(tmp_path, [*lines, LATER])
    with running(tmp_path, engine, watchlist=WatchList(watched)) as daemon:
        until_placed(engine, len(lines) + 1)
        until(lambda: sum(stories_by_series(daemon).values()) == len(lines), 60, "every story shown")
        shown = stories_by_series(daemon)
    engine.dispose()
    assert len(shown) == MAX_ENTITIES + 1
    assert shown["other"] == WATCHED - MAX_ENTITIES
    assert {f"bank-{number}" for number in range(50)} <= shown.keys()


@pytest.mark.parametrize("name", STRANGE)
def test_a_strange_name_is_found_counted_and_exported_as_it_is_written(tmp_path, name):
    engine = open_engine(f"sqlite:///{tmp_path / 'store.db'}")
    append(tmp_path, [news("a", f"Today {name} loses", received_at=BEGIN), LATER])
    with running(tmp_path, engine, watchlist=WatchList([Entity(name, name)])) as daemon:
        until(lambda: stories_by_series(daemon) == {name: 1}, 60, "the story shown")
    engine.dispose()
