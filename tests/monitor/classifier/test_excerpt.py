"""Which parts of a long passage are worth reading, and where sentences end."""

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from monitor.classifier.excerpt import MAX_SPAN_CHARACTERS, Span, parts, sentence_around, sentences
from monitor.types import Mention, Passage

SENTENCES = [
    ["Halden falls.", "Norvik rises!", "Why?", "Nobody knows"],
    ["A headline without a point", "The body begins."],
    ["Halden Inc. and Norvik Corp. agreed.", "Shares rose."],
    ["Mr. Moe of St. Olav met Dr. Lie.", "They spoke."],
    ["U.S. stocks fell on Jan. 5, the S.E.C. said.", "Bonds rose."],
    ["J. P. Brandt leaves.", "K. Lund follows."],
    ["The rate is 3.5%.", "It was 2.25% before."],
    ["Profit rose to $1.2 bln.", "Loans grew, e.g. in Oslo, by No. 4 rank."],
    ["“We lost.”", "Then he left."],
    ['He asked "why?" and left.', "(Nobody spoke.)", "It was late."],
    ["Yahoo! shares slip... and recover.", "So what?!", "It goes on…", "And on."],
    ["Version 2.0 of a.b.c ships.", "Fine"],
    ["The plan B.", "I stay."],
    ["海登银行被罚款。", "股价大跌！", "为什么？", "无人知晓；", "调查继续"],
    ["他说：“我们输了。”", "然后离开。"],
    ["「不会！」", "他说。"],
    ["利润增长3.5%。", "营收12.8亿元。"],
    ["涨了!", "快买!", "海登银行上涨。"],
    ["等等……", "结束。"],
    ["海登银行(Halden Inc.)上涨", "次日回落"],
]
JOINTS = {"A headline without a point": "\n", "海登银行(Halden Inc.)上涨": "\n", "The plan B.": None}


@pytest.mark.parametrize("expected", SENTENCES, ids=lambda expected: expected[0])
def test_a_sentence_ends_where_a_reader_would_say_so(expected):
    chinese = any("\u3400" <= character <= "\u9fff" for character in "".join(expected))
    joint = JOINTS.get(expected[0], "" if chinese else " ")
    if joint is None:
        # A single capital letter is taken for an initial: two sentences are read as one.
        joint, expected = " ", [" ".join(expected)]
    text = joint.join(expected)
    assert [text[span.start : span.end] for span in sentences(text)] == expected


texts = st.lists(
    st.sampled_from(
        ["Halden", "falls", ".", "!", "?", "…", " ", "\n", "。", "！", "”", '"', ")", "U.S.", "Inc.", "3.5", "银行", "x" * 90]
    ),
    max_size=60,
).map("".join)


@given(texts)
@settings(max_examples=200, deadline=None)
def test_sentences_are_in_order_and_leave_out_nothing_but_white_space(text):
    found = list(sentences(text))
    assert all(one.end <= other.start for one, other in pairwise(found))
    assert "".join("".join(text[span.start : span.end] for span in found).split()) == "".join(text.split())
    for span in found:
        assert text[span.start : span.end] == text[span.start : span.end].strip() != ""


@given(texts, st.data())
@settings(max_examples=200, deadline=None)
def test_the_sentence_around_some_characters_holds_them_and_is_bounded(text, data):
    places = [place for place, character in enumerate(text) if not character.isspace()]
    if not places:
        return
    start = data.draw(st.sampled_from(places))
    end = data.draw(st.sampled_from([place for place in places if start <= place < start + 30])) + 1
    span = sentence_around(text, start, end)
    assert span.start <= start < end <= span.end
    assert span.end - span.start <= MAX_SPAN_CHARACTERS + end - start


def test_the_sentence_around_a_name_is_cut_between_words_where_it_is_long():
    text = "word " * 200 + "Halden" + " word" * 200
    span = sentence_around(text, 1_000, 1_006)
    assert text[span.start : span.end].split() == [*["word"] * 40, "Halden", *["word"] * 40]


def test_a_name_with_a_point_in_it_is_not_torn():
    text = "It fell. Yahoo! Finance said so. It rose."
    assert sentence_around(text, 9, 23) == Span(9, 32)


def passage(text, *names):
    mentions = [
        Mention(place, place + len(name), name) for name in names for place in range(len(text)) if text.startswith(name, place)
    ]
    return Passage(text, tuple(sorted(mentions)))


def read(given_passage, characters=10_000):
    return [given_passage.text[span.start : span.end] for span in parts(given_passage, characters)]


def test_headline_and_lead_come_first_then_who_is_named_in_turn_then_the_beginning():
    text = "A headline. In two parts\nThe lead. A second one. Halden falls. Halden sinks. Norvik rises. The end."
    assert read(passage(text, "Norvik", "Halden")) == [
        "A headline.",
        "The lead.",
        "Halden falls.",
        "Norvik rises.",
        "Halden sinks.",
        "In two parts",
        "A second one.",
        "The end.",
    ]


def test_of_a_text_in_one_piece_the_first_two_sentences_lead():
    assert read(passage("One. Two. Three. Halden falls.", "Halden"))[:3] == ["One.", "Two.", "Halden falls."]
    assert read(passage("")) == []
    assert read(passage("One")) == ["One"]


def test_far_behind_the_beginning_only_what_names_somebody_is_read():
    text = f"A headline\nThe lead. {'It goes on. ' * 1_000}Halden falls. {'It goes on. ' * 1_000}"
    found = read(passage(text, "Halden"), 60)
    assert found[:3] == ["A headline", "The lead.", "Halden falls."]
    assert sum(map(len, found)) < 120


def test_a_headline_longer_than_all_that_is_read_leaves_the_lead_its_place():
    found = read(passage(f"{'word ' * 1_000}\nThe lead. Halden falls.", "Halden"), 100)
    assert found[1:3] == ["The lead.", "Halden falls."]


names = st.sampled_from(["Ann", "Bo", "包商"])
pieces = st.one_of(
    names,
    st.sampled_from([". ", "! ", "。", "\n", " ", "word ", "x", "7.5 ", "Inc. ", "”"]),
    st.sampled_from(["word " * 100, "字" * 300, "a. " * 50]),
)


@given(st.lists(pieces, max_size=40).map("".join), st.integers(8, 900))
@settings(max_examples=200, deadline=None)
@example("\nAnn", 8)
@example("Ann" + "字" * 450 + "Bo" + "字" * 450 + "Ann", 10)
def test_parts_do_not_overlap_and_hold_everybody_who_is_named(text, characters):
    whole = passage(text, "Ann", "Bo", "包商")
    found = parts(whole, characters)
    in_order = sorted(found)
    assert all(one.end <= other.start for one, other in pairwise(in_order))
    assert all(0 <= span.start < span.end <= len(text) for span in found)
    assert sum(span.end - span.start for span in found) <= 4 * characters + 4 * MAX_SPAN_CHARACTERS
    read_entities = {
        mention.entity for mention in whole.mentions for span in found if span.start < mention.end and span.end > mention.start
    }
    first = next(iter(whole.mentions), None)
    assert first is None or first.entity in read_entities
    if characters >= 2 * MAX_SPAN_CHARACTERS:
        assert read_entities == set(whole.entities)


@pytest.mark.parametrize(
    "text",
    [
        "." * 1_000_000,
        "x" * 1_000_000,
        "a. " * 300_000,
        ".”" * 500_000,
        "Ann " * 200_000,
        "！" * 1_000_000,
        " ." * 500_000,
        "字Ann" * 200_000,
    ],
    ids=lambda text: text[:4],
)
def test_of_a_megabyte_no_more_is_looked_at_than_of_a_page(text):
    mentions = tuple(Mention(place, place + 3, "Ann") for place in range(0, len(text) - 4, 4)) if "Ann" in text else ()
    found = parts(Passage(text, mentions), 1_000)
    assert len(found) <= 1_000
    assert sum(span.end - span.start for span in found) < 6_000
