"""A record becomes a document with its text as the classifier reads it and the watched names at their places in it."""

import json

import pytest

from monitor.config import DocumentSettings, FileSettings
from monitor.decode import Decoder
from monitor.intake import Intake
from monitor.sources.file import FileSource
from monitor.store.engine import open_engine
from monitor.store.ledger import Ledger
from monitor.types import Document, Mention, Rejected
from monitor.watchlist import Entity, WatchList

WATCHED = WatchList([Entity("att", "AT&T"), Entity("credit", "Cr\u00e9dit Halden"), Entity("norvik", "Norvik")])
NOW_MS = 1_000_000


@pytest.fixture
def decoded(tmp_path):
    """What the lines of a file become."""

    def decode(*news):
        path = tmp_path / "news.jsonl"
        path.write_text("".join(line if isinstance(line, str) else json.dumps(line) + "\n" for line in news), encoding="utf-8")
        intake = Intake(
            source=FileSource(FileSettings(path=str(path), follow=False)),
            ledger=Ledger(open_engine(f"sqlite:///{tmp_path / 'store.db'}")),
            decoder=Decoder(DocumentSettings()),
            watchlist=WATCHED,
            owner="me",
            wall_ms=lambda: NOW_MS,
            max_ahead_ms=0,
        )
        entries = intake.decode(intake.read(0).records)
        intake.source.close()
        return entries

    return decode


def test_the_mentions_are_places_in_the_text_that_the_classifier_reads(decoded):
    news = {
        "uri": "a",
        "headline": " AT&amp;T  gains https://t.co/x as Norvik loses",
        "body_text": "Cre\u0301dit Halden &gt; AT&#38;T",
    }
    (document,) = decoded(news)
    passage = document.passage
    assert passage.text == "AT&T gains as Norvik loses\nCr\u00e9dit Halden > AT&T"
    assert passage.mentions == (Mention(0, 4, "att"), Mention(14, 20, "norvik"), Mention(27, 40, "credit"), Mention(43, 47, "att"))
    assert [passage.text[found.start : found.end] for found in passage.mentions] == ["AT&T", "Norvik", "Cr\u00e9dit Halden", "AT&T"]
    assert document.entities == passage.entities == ("att", "norvik", "credit")


def test_a_headline_or_a_body_alone_is_the_whole_text(decoded):
    headline, body = decoded({"uri": "a", "headline": "Norvik"}, {"uri": "b", "body_text": "of Norvik"})
    assert (headline.passage.text, headline.passage.mentions) == ("Norvik", (Mention(0, 6, "norvik"),))
    assert (body.passage.text, body.passage.mentions) == ("of Norvik", (Mention(3, 9, "norvik"),))


def test_a_name_is_not_read_across_the_end_of_the_headline(decoded):
    (document,) = decoded({"uri": "a", "headline": "Cr\u00e9dit", "body_text": "Halden"})
    assert document.entities == ()


def test_what_is_no_document_keeps_its_place_and_its_reason(decoded):
    first, bad, last = decoded({"uri": "a", "headline": "Norvik"}, "{\n", {"uri": "b", "headline": "nobody"})
    assert isinstance(bad, Rejected)
    assert isinstance(first, Document)
    assert (last.entities, last.passage.mentions) == ((), ())
