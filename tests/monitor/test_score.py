"""One answer for every line, in order, whatever the line."""

import io
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.config import BatchSettings, DocumentSettings, Settings
from monitor.score import MAX_CHUNK_BYTES, read_lines, score
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
    assert (asked["sentiment"], asked["entity"], asked["sentiment_of"]) == ("positive", "Halden", "entity")
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


WATCHED = WatchList([Entity("ann", "Ann Co"), Entity("bo", "AT&T"), Entity("cy", "Cy")])


def test_each_watched_name_is_told_with_the_sentiment_toward_it():
    (answer,) = answers(b"Cy: Ann Co gains and AT&amp;T loses\n", watchlist=WATCHED)
    assert {entity: told["sentiment"] for entity, told in answer["entities"].items()} == {
        "cy": "positive",
        "ann": "positive",
        "bo": "negative",
    }
    assert answer["entities"]["bo"] == {
        "sentiment": "negative",
        "sentiment_probabilities": {"negative": 0.8, "neutral": 0.1, "positive": 0.1},
        "sentiment_uncertain": False,
        "score": -0.7,
    }
    assert answer["sentiment"] == "positive"
    assert answers(b"nobody loses\n", watchlist=WATCHED)[0]["entities"] == {}


@pytest.mark.parametrize(
    ("entity", "sentiment", "of"),
    [
        ("Ann Co", "positive", "entity"),
        ("ANN co", "positive", "entity"),
        ("AT&T", "negative", "entity"),
        ("AT&amp;T", "negative", "entity"),
        ("Dee", "positive", "document"),
        ("", "positive", None),
    ],
)
def test_an_answer_says_whose_sentiment_it_is(entity, sentiment, of):
    (answer,) = answers(json.dumps({"text": "Ann Co gains while AT&amp;T loses", "entity": entity}).encode())
    assert answer["sentiment"] == sentiment
    assert answer.get("sentiment_of") == of
    assert "entities" not in answer


def test_who_is_asked_about_and_who_is_watched_do_not_mix():
    line = json.dumps({"text": "Ann Co gains while Bo loses", "entity": "Bo"}).encode()
    (answer,) = answers(line, watchlist=WATCHED)
    assert (answer["sentiment"], answer["sentiment_of"], answer["entity"]) == ("negative", "entity", "Bo")
    assert {entity: told["sentiment"] for entity, told in answer["entities"].items()} == {"ann": "positive"}


def test_a_watched_name_beyond_what_the_classifier_reads_has_the_sentiment_of_the_document():
    (answer,) = answers(b"loses " * 50 + b"Ann Co gains", watchlist=WATCHED)
    assert answer["entities"]["ann"]["sentiment"] == answer["sentiment"] == "negative"


FAULTS = {
    "blank": (b" \t\r\n", "missing_text", "the line is blank"),
    "a mark alone": (b"\xef\xbb\xbf\n", "missing_text", "the line is blank"),
    "invisible": ("\u200b\n".encode(), "missing_text", "the line is blank"),
    "no JSON": (b"{oops}\n", "not_json", "at byte 1"),
    "no UTF-8": (b"caf\xe9\n", "not_utf8", "at byte 3"),
    "an escape sequence": (b"\x1b[31mred\n", "forbidden_character", "the line"),
    "no id": (b'{"headline": "loses"}\n', "missing_id", "uri"),
    "a document of the wrong type": (b'{"uri": 1, "headline": "loses"}\n', "wrong_type", "uri must be a string"),
    "a text of the wrong type": (b'{"text": 1}\n', "wrong_type", "text must be a string"),
    "a null entity": (b'{"text": "loses", "entity": null}\n', "wrong_type", "entity must be a string"),
    "a blank text": (b'{"text": " "}\n', "missing_text", "text is blank"),
    "NUL in a text": (b'{"text": "a\\u0000"}\n', "forbidden_character", "text"),
    "a line end in an entity": (b'{"text": "a", "entity": "b\\nc"}\n', "forbidden_character", "entity"),
    "a long entity": (b'{"text": "a", "entity": "' + b"e" * 201 + b'"}\n', "too_large", "entity has more than 200"),
    "deep": (b'{"text": ' + b"[" * 100_000 + b"\n", "too_deep", "64 levels"),
}


@pytest.mark.parametrize(("line", "reason", "words"), FAULTS.values(), ids=FAULTS)
def test_an_error_says_what_is_wrong_with_the_line(line, reason, words):
    (answer,) = answers(line)
    assert set(answer) == {"line", "error"}
    assert answer["error"]["reason"] == reason
    assert words in answer["error"]["detail"]


def test_an_answer_holds_what_was_promised_and_no_more():
    (document,) = answers(b'{"uri": "a", "headline": "perhaps gains", "text": 5}')
    assert document == {
        "id": "a",
        "line": 1,
        "topic": "other",
        "topic_probabilities": {"earnings": 0.0, "credit": 0.0, "other": 1.0},
        "topic_uncertain": True,
        "unfamiliarity": None,
        "out_of_domain": False,
        "sentiment": "positive",
        "sentiment_probabilities": {"negative": 0.333333, "neutral": 0.333333, "positive": 0.333333},
        "sentiment_uncertain": True,
        "score": 0.0,
    }
    text, negative = answers(b'{"text": "gains", "more": null}', b"loses")
    assert (text["id"], text["line"], text["score"]) == (1, 1, 0.7)
    assert not {"entity", "sentiment_of", "entities"} & set(text)
    assert (negative["id"], negative["score"]) == (2, -0.7)


def test_what_does_not_begin_with_a_brace_is_plain_text():
    assert [answer["sentiment"] for answer in answers(b'["gains"] loses', b"  loses {", b"\xef\xbb\xbfloses")] == ["negative"] * 3
    assert answers(b'\xef\xbb\xbf {"uri": "a", "headline": "loses"} \r\n')[0]["id"] == "a"


def limited(max_bytes: int, lines: list[bytes]) -> list[bool]:
    configured = Settings(documents=DocumentSettings(max_bytes=max_bytes))
    found = [json.loads(line) for line in score(lines, FakeClassifier(), configured)]
    return [answer.get("error", {}).get("reason") == "too_large" for answer in found]


def test_a_line_of_just_the_allowed_size_is_answered():
    fits, long = b"x" * 1_024, b"x" * 1_025
    assert limited(1_024, [fits, fits + b"\r\n", long, long + b"\n", b" " * 3 + fits, b"x" + b" " * 1_024]) == [
        False,
        False,
        True,
        True,
        True,
        True,
    ]


def test_of_a_long_line_only_so_much_is_read_as_shows_that_it_is_long():
    stream = io.BytesIO(b"a\n" + b"x" * 200_000 + b"\n\r\n" + b"y" * 1_024 + b"\r\n" + b"z" * 1_025 + b"\nend")
    lines = list(read_lines(stream, 1_024))
    assert [len(line) for line in lines] == [2, 1_027, 2, 1_026, 1_026, 3]
    assert limited(1_024, lines) == [False, True, False, False, True, False]


@given(st.lists(st.binary(max_size=12).map(lambda line: line.replace(b"\n", b"")), max_size=8), st.booleans())
@settings(max_examples=80)
def test_lines_are_read_as_the_stream_itself_would_split_them(contents, ended):
    value = b"\n".join(contents) + (b"\n" if ended else b"")
    whole = io.BytesIO(value).readlines()
    assert list(read_lines(io.BytesIO(value), 5)) == [line[:8] for line in whole]


def test_no_more_than_a_chunk_is_read_before_its_answers_are_given():
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield b"loses\n"

    answered = score(endless(), FakeClassifier(), Settings(batch=BatchSettings(max_documents=4)))
    for number in range(1, 10):
        next(answered)
        assert taken == -(-number // 4) * 4


def test_a_chunk_of_long_lines_is_bounded_by_its_bytes():
    taken = 0
    half = b"x" * (MAX_CHUNK_BYTES // 2)

    def endless() -> Iterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield half

    answered = score(endless(), FakeClassifier(), Settings())
    for expected in (2, 2, 4, 4):
        next(answered)
        assert taken == expected


def test_a_batch_stays_within_its_tokens_unless_one_text_is_too_long_by_itself():
    classifier = FakeClassifier(max_tokens=600)
    lengths = [600, 300, 212, 1, 600, 511, 1, 1]
    lines = [b"a" * length for length in lengths]
    assert len(list(score(lines, classifier, Settings(batch=BatchSettings(max_tokens=512))))) == len(lines)
    assert [[len(text) for text in batch] for batch in classifier.batches] == [[600], [300, 212], [1], [600], [511, 1], [1]]


def test_the_classifier_is_not_asked_about_nothing():
    classifier = FakeClassifier()
    assert len(list(score([b"\n", b"{\n"], classifier, Settings()))) == 2
    assert not list(score([], classifier, Settings()))
    assert not classifier.batches


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
