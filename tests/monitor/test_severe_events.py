"""Every written example of every way to tell an event; whom an event is about; and what the classifier holds against it."""

import time
from itertools import pairwise
from pathlib import Path

import pytest

from monitor.errors import ConfigurationError
from monitor.scoring import score
from monitor.severe_events import NAME, SENTENCES, load_events, shipped_events
from monitor.types import Document, Opinion, Partition, Passage, Prediction, PublicationStatus, SevereEvent
from monitor.watchlist import Alias, Entity, WatchList

EVENTS = shipped_events()
WAYS = [(category, number, way) for category, ways in EVENTS.ways.items() for number, way in enumerate(ways)]
WATCHED = WatchList(
    [
        Entity("halden", "Halden", (Alias("Halden Bank"),)),
        Entity("norvik", "Norvik", (Alias("Norvik Group"),)),
        Entity("merrow", "Merrow"),
        Entity("hdyh", "海登银行"),
    ]
)
BAD = Opinion("negative", (0.8, 0.1, 0.1))
GOOD = Opinion("positive", (0.01, 0.09, 0.9))


def passage(text):
    return Passage(text, WATCHED.find(text))


def prediction(document=BAD, toward=None, topic="Financials", **changes):
    return Prediction(topic, (1.0,), changes.pop("topic_uncertain", False), document, toward or {}, **changes)


def told(text, **changes):
    return {(event.entity, event.category) for event in EVENTS.tell(passage(text), prediction(**changes))}


@pytest.mark.parametrize(("category", "number", "way"), WAYS, ids=lambda value: value if isinstance(value, str | int) else "")
def test_every_way_to_tell_an_event_keeps_its_written_examples(category, number, way):
    assert len(way.matches) >= 2
    assert len(way.rejects) >= 2
    for example in way.matches:
        found = [one for one in EVENTS.find(example.passage) if one.category == category and one.rejected_by is None]
        assert example.about, example.text
        assert {one.entity for one in found if one.pattern in way.written} == set(example.about), example.text
        assert {one.entity for one in found} == set(example.about), example.text
    for example in way.rejects:
        found = [one for one in EVENTS.find(example.passage) if one.category == category and one.rejected_by is None]
        assert not found, example.text


def test_every_category_is_told_in_both_languages():
    for category, ways in EVENTS.ways.items():
        assert {way.language for way in ways} == {"en", "zh"}, category


def test_every_pattern_catches_its_name_once():
    for _, _, way in WAYS:
        for written, compiled in zip(way.written, way.compiled, strict=True):
            assert set(compiled.groupindex) == {"about"}, written
            assert NAME in compiled.pattern, written


ABOUT = {
    "Halden seized by regulators, sold to Norvik": {("halden", "seizure")},
    "Norvik analyst says Merrow default likely": {("merrow", "default")},
    "Norvik analyst says Dee default likely": set(),
    "Norvik sues Halden's auditor": set(),
    "Norvik, Halden declared bankrupt": {("norvik", "insolvency"), ("halden", "insolvency")},
    "Norvik says Halden has filed for bankruptcy": {("halden", "insolvency")},
    "SEC charges Halden with fraud, not Norvik": {("halden", "fraud"), ("halden", "criminal_charges")},
    "Norvik accuses Halden of fraud": {("halden", "fraud")},
    "Lawyer for Halden pleads guilty": set(),
    "Norvik rescued Halden Bank (HLD.N) in 2008": set(),
    "Halden: Crypto firm collapses into bankruptcy": {("halden", "insolvency")},
    "Halden-Norvik venture files for bankruptcy": set(),
    "Lawmakers open Halden-Norvik probe": set(),
    "RPT-FACTBOX-Halden files for bankruptcy": set(),
    "RPT-Halden files for bankruptcy": {("halden", "insolvency")},
    "UPDATE 2-U.S. seizes troubled mortgage lender Halden as losses spread": {("halden", "seizure")},
    "Halden, the country's fourth-largest lender, said on Monday it had filed for bankruptcy": {("halden", "insolvency")},
    "Halden ‘bank run’ worsens": {("halden", "bank_run")},
    "HALDEN HALTS WITHDRAWALS": set(),
    "Halden Halts All Withdrawals": {("halden", "payment_freeze")},
    "A quiet day\nBody text. Halden Bank was placed into receivership.": {("halden", "insolvency"), ("halden", "seizure")},
    "监管机构接管海登银行": {("hdyh", "seizure")},
    "海登银行否认被接管": set(),
    "Halden暂停提现": {("halden", "payment_freeze")},
}


@pytest.mark.parametrize("text", ABOUT)
def test_an_event_is_about_whom_it_befalls(text):
    assert told(text) == ABOUT[text]


def test_a_noun_is_a_warning_and_a_statement_beside_it_is_critical():
    (noun,) = EVENTS.tell(passage("Shares sink on collapse of Halden"), prediction())
    assert noun == SevereEvent("halden", "insolvency", "warning", 8_000)
    (both,) = EVENTS.tell(passage("Shares sink on collapse of Halden. Halden files for bankruptcy."), prediction())
    assert both == SevereEvent("halden", "insolvency", "critical", 8_000)


def test_events_are_sorted_and_told_once():
    text = "Norvik files for bankruptcy. Halden files for bankruptcy. Halden goes bust. Halden halts withdrawals."
    events = EVENTS.tell(passage(text), prediction())
    assert [(event.entity, event.category) for event in events] == [
        ("halden", "insolvency"),
        ("halden", "payment_freeze"),
        ("norvik", "insolvency"),
    ]
    assert all(one < other for one, other in pairwise(events))


def test_the_opinion_of_the_entity_decides_where_a_category_asks_for_it():
    text = "Regulator opens investigation into Halden"
    assert told(text) == {("halden", "investigation")}
    assert told(text, toward={"halden": GOOD}) == set()
    assert told(text, document=GOOD, toward={"halden": BAD}) == {("halden", "investigation")}
    (found,) = EVENTS.judge(EVENTS.find(passage(text)), prediction(GOOD))
    assert found.rejected_by == "P(negative) is 0.010, below 0.05"


def test_what_befalls_somebody_needs_no_bad_words():
    assert told("Halden nationalised", document=GOOD) == {("halden", "rescue")}


def test_a_topic_under_which_a_category_is_not_plausible_rejects_it_if_the_classifier_is_sure():
    text = "Regulator opens investigation into Halden"
    assert told(text, topic="M&A | Investments") == set()
    assert told(text, topic="M&A | Investments", topic_uncertain=True) == {("halden", "investigation")}


def test_a_text_of_another_domain_is_judged_by_its_words_alone():
    assert told("Regulator opens investigation into Halden", document=GOOD, out_of_domain=True) == {("halden", "investigation")}


def test_only_the_first_sentences_that_name_somebody_are_read():
    quiet = "Halden is a lender. " * (SENTENCES - 1)
    assert told(f"{quiet}Halden files for bankruptcy.") == {("halden", "insolvency")}
    assert told(f"{quiet}Halden is big. Halden files for bankruptcy.") == set()


def document(text):
    found = passage(text)
    return Document(
        partition=Partition("news", 0),
        offset=0,
        next_offset=1,
        received_ms=0,
        uri="urn:1",
        version="1",
        headline=text,
        body="",
        language="en",
        source="wire",
        status=PublicationStatus.USABLE,
        published_ms=None,
        entities=found.entities,
        passage=found,
    )


def test_scored_documents_tell_events_and_nothing_where_nobody_is_named():
    texts = ["Halden files for bankruptcy", "Dee files for bankruptcy", "Halden opens branch"]
    scored = score([document(text) for text in texts], [prediction()] * 3, "model")
    assert [one.events for one in scored] == [(SevereEvent("halden", "insolvency", "critical", 8_000),), (), ()]


HOSTILE = {
    "a name again and again": "Halden " * 50_000,
    "names and words in turn": "Halden files for a voluntary " * 20_000,
    "appositions without an end": "Halden, " * 50_000,
    "amounts": "Halden loses about up to $1,000,000,000.0 mln bln " * 10_000,
    "what stands before a name": "the a an troubled failing big largest " * 10_000 + "Halden fails",
    "what stands behind a name": "Halden " + "is was has been to be said that it " * 10_000 + "fails",
    "Chinese without an end": "海登银行未能按期" * 20_000,
    "exceptions": "Halden bankruptcy " + "if no not fears of after " * 20_000,
    "quotation marks": "'" * 100_000 + "Halden fails",
    "one word": "Halden" + "a" * 300_000 + " Halden bankruptcy",
    "wire words": "A" * 100_000 + "- Halden fails",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_costs_no_more_than_its_first_sentences(text):
    hostile = passage(text)
    short = passage(text[:200])
    EVENTS.find(short)
    begin = time.process_time()
    EVENTS.find(hostile)
    assert time.process_time() - begin < 0.5


def test_a_file_with_faults_is_refused_with_all_of_them(tmp_path):
    shipped = (Path(__file__).parents[2] / "monitor" / "severe_events.yaml").read_text(encoding="utf-8")
    head = shipped[: shipped.index("\ncategories:")]
    file = tmp_path / "events.yaml"
    way = "      - says: ['{}']\n        matches: [a, b]\n        rejects: [a, b]\n"
    category = "  - id: {}\n    title: T\n    title_zh: 标\n    severity: critical\n    triggers: [t]\n    ways:\n"
    file.write_text(
        f"{head}\ncategories:\n{category.format('one')}{way.format('no name')}"
        f"{category.format('two')}{way.format('<X> (')}{category.format('two')}{way.format('<X> <nonsense>')}",
        encoding="utf-8",
    )
    with pytest.raises(ConfigurationError) as caught:
        load_events(file)
    message = str(caught.value)
    for part in ("categories.0 (one): 'no name' must hold <X> once", "categories.1 (two): ", "<nonsense> is not", "same id"):
        assert part in message


def test_a_way_without_examples_is_refused(tmp_path):
    file = tmp_path / "events.yaml"
    file.write_text(
        "en: {form: a, words: {X: <name>}, exceptions: {}}\nzh: {form: a, words: {X: <name>}, exceptions: {}}\n"
        "categories: [{id: one, title: T, title_zh: 标, severity: critical, triggers: [t], ways: [{says: [<X>], matches: [a]}]}]\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigurationError) as caught:
        load_events(file)
    assert "categories.0.ways.0.matches" in str(caught.value)
    assert "categories.0.ways.0.rejects" in str(caught.value)
