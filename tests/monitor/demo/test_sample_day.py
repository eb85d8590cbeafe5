"""The sample day is what it says: the same for a seed, in order, all kinds of lines, and news that the decoder takes."""

import json
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from monitor.config import DocumentSettings
from monitor.decode import Decoder
from monitor.demo.sample_day import Kind, sample_day
from monitor.types import Document, Partition, Record, Rejected
from monitor.watchlist import load_watchlist

DAY = date(2026, 3, 2)
DEMO = Path(__file__).parents[3] / "monitor" / "demo"


@pytest.fixture(scope="module")
def day():
    return sample_day(1, DAY)


def test_a_seed_writes_the_same_day_again_and_another_seed_another(day):
    assert sample_day(1, DAY) == day
    assert sample_day(2, DAY) != day


def test_the_day_has_some_two_thousand_lines_of_every_kind_in_order(day):
    assert 1_900 <= len(day) <= 2_200
    assert [line.at for line in day] == sorted(line.at for line in day)
    kinds = Counter(line.kind for line in day)
    assert set(kinds) == set(Kind)
    assert kinds[Kind.MALFORMED] == 20
    assert {line.at.date() for line in day if line.kind is not Kind.COPY} == {DAY}


def test_every_line_becomes_what_it_is_there_for(day):
    decoder = Decoder(DocumentSettings())
    for offset, line in enumerate(day):
        time_ms = round(line.at.timestamp() * 1000)
        found = decoder.decode(Record(Partition("demo", 0), offset, offset + 1, time_ms, line.value), time_ms)
        assert isinstance(found, Rejected) == (line.kind is Kind.MALFORMED), line
        if isinstance(found, Document):
            assert found.stale == (line.kind is Kind.STALE)
            assert found.clamped == (line.kind is Kind.FUTURE)


def test_the_run_is_about_the_bank_and_the_football_club_is_not(day):
    watchlist = load_watchlist(DEMO / "watchlist.yaml")
    about = {kind: Counter() for kind in Kind}
    for line in day:
        if line.kind is not Kind.MALFORMED:
            news = json.loads(line.value)
            about[line.kind].update(mention.entity for mention in watchlist.find(f"{news['headline']}\n{news['body_text']}"))
    assert about[Kind.RUN]["halden-bank"] >= 30
    assert about[Kind.NOISE]["halden-bank"] == 0
    assert about[Kind.NOISE]["lantern-bank"] == 0
