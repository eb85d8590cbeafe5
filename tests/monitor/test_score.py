"""One answer for every line, in order, whatever the line."""

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.config import BatchSettings, Settings
from monitor.score import score
from monitor.watchlist import Entity, WatchList
from tests.fakes import FakeClassifier


def answers(*lines: bytes, batch: int = 512, watchlist: WatchList | None = None) -> list[dict[str, Any]]:
    configured = Settings(batch=BatchSettings(max_documents=batch))
    return [json.loads(line) for line in score(iter(lines), FakeClassifier(), configured, watchlist)]


def test_a_line_is_a_document_or_a_text_with_an_entity_or_plain_words():
    document, asked, plain = answers(
        b'{"uri": "a", "headline": "Bank loses", "body_text": "in credit"}\n',
        b'{"text": "Halden gains", "entity": "Halden"}\n',
        b"Shares of nobody move\n",
    )
    assert (document["id"], document["sentiment"], document["topic"]) == ("a", "negative", "credit")
    assert (asked["sentiment"], asked["entity"], asked["sentiment_of"]) == ("positive", "Halden", "document")
    assert (plain["line"], plain["sentiment"]) == (3, "neutral")
    assert set(document["sentiment_probabilities"]) == {"negative", "neutral", "positive"}
    assert sum(document["topic_probabilities"].values()) == 1


def test_a_bad_line_is_answered_with_its_error_and_nothing_stops():
    found = answers(b"{\n", b"\n", b'{"uri": "a"}\n', b"\xff\xfe\n", b"fine words\n")
    assert [("error" in answer) for answer in found] == [True, True, True, True, False]
    assert [answer["line"] for answer in found] == [1, 2, 3, 4, 5]
    assert all(answer["error"]["reason"] and answer["error"]["detail"] for answer in found[:4])


def test_an_unsure_answer_keeps_its_label_and_says_so():
    (answer,) = answers(b"it perhaps loses\n")
    assert (answer["sentiment"], answer["sentiment_uncertain"]) == ("negative", True)


def test_watched_names_are_told():
    (answer,) = answers(b"Ann Co loses\n", watchlist=WatchList([Entity("ann", "Ann Co")]))
    assert answer["entities"] == ["ann"]


lines = st.sampled_from(
    [b"a loses\n", b"b gains\n", b"\n", b"{\n", b'{"text": "c gains"}\n', b'{"uri": "d", "headline": "loses"}\n']
)


@given(st.lists(lines, max_size=30), st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_answers_stand_in_the_order_of_the_lines_however_they_are_batched(given_lines, batch):
    found = answers(*given_lines, batch=batch)
    assert [answer["line"] for answer in found] == list(range(1, len(given_lines) + 1))
    alone = [answers(line)[0] for line in given_lines]
    place_of = {"line": 0, "id": 0}
    for one, other in zip(found, alone, strict=True):
        assert one | place_of == other | place_of
