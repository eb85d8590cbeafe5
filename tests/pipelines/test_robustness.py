"""Texts that are changed for a test: mentions stay on their names, and nothing else changes than what should."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.types import Mention, Passage
from pipelines.robustness import CHANGES, Edit, denials, edited, other_names, out_of_domain, read_probes, without_punctuation

WORDS = st.sampled_from(["Straße", "ǰ", "bank", "3.5%", "$TSX", "up,", "down.", "Halden-Bank", "“quoted”", "İzmir", "跌。"])


@st.composite
def passages(draw):
    """Words with some of them mentioned, each as an entity of its own."""
    words = draw(st.lists(WORDS, min_size=1, max_size=12))
    mentioned = draw(st.sets(st.integers(0, len(words) - 1)))
    starts = [sum(len(word) + 1 for word in words[:place]) for place in range(len(words))]
    mentions = tuple(Mention(starts[place], starts[place] + len(words[place]), str(place)) for place in sorted(mentioned))
    return Passage(" ".join(words), mentions)


def named(passage):
    return {mention.entity: passage.text[mention.start : mention.end] for mention in passage.mentions}


@settings(deadline=None)
@given(passages(), st.sampled_from([name for name in CHANGES if name != "other names"]))
def test_a_changed_text_still_names_what_it_named(passage, name):
    after = CHANGES[name](passage)

    for entity, before in named(passage).items():
        alone = CHANGES[name](Passage(before)).text
        assert named(after).get(entity, "") == alone


@settings(deadline=None)
@given(passages())
def test_a_name_is_replaced_wherever_it_stands_and_nothing_else_is(passage):
    old, new = named(passage), named(other_names(passage))
    hidden = other_names(passage).text
    for name in read_probes().names:
        hidden = hidden.replace(name, "NAME")

    assert new.keys() == old.keys()
    assert set(new.values()) <= set(read_probes().names)
    assert hidden.split() == ["NAME" if word in old.values() else word for word in passage.text.split()]


def test_every_place_of_a_name_is_replaced_and_other_words_are_not():
    after = other_names(Passage("Halden falls; Haldenberg rises; Halden again", (Mention(0, 6, "a"),)))
    name = named(after)["a"]

    assert after.text == f"{name} falls; Haldenberg rises; {name} again"


def test_names_that_overlap_are_left_alone():
    passage = Passage("Halden Bank falls", (Mention(0, 6, "a"), Mention(0, 11, "b")))

    assert other_names(passage) is passage


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("Profit up 3.5%, says Halden.", "Profit up 3.5% says Halden"),
        ("$TSX: down 1,200 points - again!", "$TSX down 1,200 points  again"),
        ("A “weak” year-end (again)", "A weak year-end again"),
        ("利润大跌，股价重挫。", "利润大跌股价重挫"),
    ],
)
def test_punctuation_goes_and_what_belongs_to_numbers_stays(before, after):
    assert without_punctuation(Passage(before)).text == after


def test_edits_move_what_stands_behind_them():
    passage = Passage("ab cd ef", (Mention(3, 5, "c"), Mention(6, 8, "e")))
    after = edited(passage, [Edit(6, 8, "f"), Edit(0, 3, "")])

    assert after == Passage("cd f", (Mention(0, 2, "c"), Mention(3, 4, "e")))


def test_a_mention_that_nothing_is_left_of_is_gone():
    assert edited(Passage("a b", (Mention(2, 3, "b"),)), [Edit(2, 3, "")]) == Passage("a ")


def test_every_denial_names_the_company_on_both_sides_and_differs():
    pairs = list(denials())

    assert {pair.language for pair in pairs} == {"english", "chinese"}
    for pair in pairs:
        assert pair.plain.text != pair.denied.text
        assert named(pair.plain) == named(pair.denied) != {}
    for language in ("english", "chinese"):
        says = [pair.says for pair in pairs if pair.language == language]
        assert says.count("positive") == says.count("negative")


def test_there_are_sixty_texts_of_other_kinds_and_none_twice():
    texts = [passage.text for passage in out_of_domain()]

    assert len(set(texts)) == len(texts) >= 60
