"""Texts in other words: labels stay, the places of entities move with their names, and nothing is drawn that was not asked for."""

import random
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import PipelineError
from pipelines.augmentation import (
    Edit,
    augment,
    in_case_of,
    names_of,
    other_number,
    read_lexicon,
    rewritten,
    with_companion,
    with_other_numbers,
    with_swapped_entities,
    with_synonyms,
)
from pipelines.corpus import Example, Toward
from pipelines.recipe import Recipe

NAMES = ("Halden", "Castor Bank", "Orlen", "Marrow & Sons", "北岸银行", "远山集团", "St. Velm", "Ångfart")
WORDS = (
    "profit",
    "rises",
    "Falls",
    "SOARS",
    "by",
    "12%",
    "3.5",
    "1,250",
    "in 2019",
    "Q3",
    "大涨",
    "下跌",
    "、",
    "loss",
    "ſays",
    "7",
)


@st.composite
def headlines(draw):
    """A text of words and names, some of the names watched; a name may stand in it again."""
    pieces = draw(st.lists(st.one_of(st.sampled_from(WORDS), st.sampled_from(NAMES)), min_size=1, max_size=9))
    text, places = "", {}
    for piece in pieces:
        text += " " if text else ""
        if piece in NAMES:
            places.setdefault(piece, len(text))
        text += piece
    watched = [name for name in places if draw(st.booleans())]
    toward = tuple(
        Toward(places[name], places[name] + len(name), draw(st.sampled_from(("negative", "positive")))) for name in watched
    )
    return Example(text, "part", draw(st.sampled_from((None, "Credit"))), draw(st.sampled_from((None, "neutral"))), toward)


corpora = st.lists(headlines(), min_size=1, max_size=6)
ALL = Recipe(entity_swaps=0.7, number_changes=0.7, synonyms=0.7)


def called(example):
    return [example.text[one.start : one.end] for one in example.toward]


@settings(max_examples=200, deadline=None)
@given(corpora, st.integers(0, 99))
def test_every_entity_is_found_under_a_name_of_the_corpus_and_keeps_its_sentiment(examples, seed):
    names = names_of(examples)
    for before, after in zip(examples, augment(examples, ALL, random.Random(seed)), strict=True):
        assert all(name in names for name in called(after))
        assert len(set(called(after))) == len(set(called(before)))
        assert [one.sentiment for one in after.toward] == [one.sentiment for one in before.toward]
        assert (after.topic, after.sentiment, after.part) == (before.topic, before.sentiment, before.part)
        for old, new in zip(called(before), called(after), strict=True):
            assert bool(re.search(r"[一-龥]", old)) == bool(re.search(r"[一-龥]", new))


@settings(max_examples=60, deadline=None)
@given(corpora, st.integers(0, 99))
def test_the_same_seed_gives_the_same_texts(examples, seed):
    assert augment(examples, ALL, random.Random(seed)) == augment(examples, ALL, random.Random(seed))


@settings(max_examples=60, deadline=None)
@given(corpora)
def test_probability_nought_changes_nothing(examples):
    order = random.Random(1)
    assert augment(examples, Recipe(), order) == examples
    lexicon = read_lexicon()
    for example in examples:
        assert with_synonyms(example, 0.0, lexicon, order) == example
        assert with_other_numbers(example, 0.0, order) == example
        assert with_swapped_entities(example, 0.0, NAMES, order) == example


@settings(max_examples=100, deadline=None)
@given(headlines(), st.integers(0, 99))
def test_other_words_are_of_the_same_group(example, seed):
    lexicon = read_lexicon()
    after = with_synonyms(example, 1.0, lexicon, random.Random(seed))
    found = [word.group().casefold() for word in lexicon.pattern.finditer(example.text)]
    kept = re.sub(r"\s+", " ", after.text.casefold())
    for word in found:
        if word in lexicon.groups and not any(word in name.casefold() for name in called(example)):
            assert any(other in kept for other in lexicon.groups[word] if other != word)


def test_a_headline_in_other_words():
    example = Example("Halden rises 12% as Castor Bank falls", "x", toward=(Toward(0, 6, "positive"), Toward(20, 31, "negative")))
    swapped = with_swapped_entities(example, 1.0, ("Orlen", "Marrow & Sons"), random.Random(1))
    assert swapped.text in ("Orlen rises 12% as Marrow & Sons falls", "Marrow & Sons rises 12% as Orlen falls")
    assert set(called(swapped)) == {"Orlen", "Marrow & Sons"}
    words = with_synonyms(example, 1.0, read_lexicon(), random.Random(1))
    assert "rises" not in words.text
    assert "falls" not in words.text
    assert called(words) == ["Halden", "Castor Bank"]


def test_a_name_is_swapped_wherever_it_stands_and_never_within_another_word():
    example = Example("Orlen buys Tarn, says Orlen; Orlenian tea", "x", toward=(Toward(0, 5, "positive"),))
    swapped = with_swapped_entities(example, 1.0, ("Velm",), random.Random(1))
    assert swapped.text == "Velm buys Tarn, says Velm; Orlenian tea"


def test_entities_whose_names_overlap_stay():
    example = Example("Castor Bank falls", "x", toward=(Toward(0, 11, "negative"), Toward(0, 6, "negative")))
    assert with_swapped_entities(example, 1.0, ("Velm",), random.Random(1)) == example


def test_no_entity_takes_a_name_that_the_text_has():
    example = Example("Orlen falls, Velm rises", "x", toward=(Toward(0, 5, "negative"),))
    assert with_swapped_entities(example, 1.0, ("Velm", "Orlen"), random.Random(1)) == example


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10**7), st.integers(0, 3), st.booleans(), st.floats(0.8, 1.25))
def test_a_number_keeps_its_digits_and_changes_by_the_factor(whole, places, commas, factor):
    number = f"{whole:,}" if commas else str(whole)
    number += f".{7 * whole % 10**places:0{places}d}" if places else ""
    changed = other_number(number, factor)
    assert [character if not character.isdecimal() else "0" for character in changed] == [
        character if not character.isdecimal() else "0" for character in number
    ]
    before, after = float(number.replace(",", "")), float(changed.replace(",", ""))
    unit = 10.0**-places
    assert min(before, before * factor) - unit <= after <= max(before, before * factor) + unit
    assert (after == 0) == (before == 0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 99_999), min_size=2, max_size=5), st.integers(0, 99))
def test_what_was_more_is_not_less_afterwards(numbers, seed):
    example = Example(" then ".join(map(str, numbers)), "x")
    after = [int(number) for number in with_other_numbers(example, 1.0, random.Random(seed)).text.split(" then ")]
    for one, other in zip(numbers, after, strict=True):
        for another, yet_another in zip(numbers, after, strict=True):
            assert one <= another or other >= yet_another


@pytest.mark.parametrize(
    "text", ["since 2019", "Q3 2024", "on 12/05", "at 10:30", "a 10-K", "1-2 weeks", "COVID19", "v2.0.1", "007", "item 0"]
)
def test_years_dates_and_numbers_in_names_stay(text):
    for seed in range(10):
        assert with_other_numbers(Example(text, "x"), 1.0, random.Random(seed)).text == text


def test_numbers_with_a_unit_change_and_words_around_them_do_not():
    example = Example("up 12.5% to $3.4bn on 2,400 orders", "x")
    texts = {with_other_numbers(example, 1.0, random.Random(seed)).text for seed in range(20)}
    assert len(texts) > 10
    assert all(re.fullmatch(r"up \d\d\.\d% to \$\d\.\dbn on \d,\d{3} orders", text) for text in texts)


def test_case_is_kept():
    assert [in_case_of(word, "went up") for word in ("rose", "Rose", "ROSE")] == ["went up", "Went up", "WENT UP"]


def test_the_lexicon_has_many_groups_and_no_word_twice():
    lexicon = read_lexicon()
    groups = set(lexicon.groups.values())
    assert len(groups) >= 150
    assert sum(bool(re.search(r"[一-龥]", group[0])) for group in groups) >= 50
    assert all(len(group) >= 2 for group in groups)
    # Every word is found in a text of its own, whole.
    assert all(lexicon.pattern.fullmatch(word) for word in lexicon.groups)


def test_a_word_in_two_groups_is_an_error(tmp_path):
    path = tmp_path / "lexicon.yaml"
    path.write_text("english:\n  - [up, higher]\n  - [higher, taller]\nchinese: []\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="higher is in two groups"):
        read_lexicon(path)


def test_edits_move_what_stands_behind_them():
    example = Example("a bb ccc", "x", toward=(Toward(2, 4, "neutral"), Toward(5, 8, "neutral")))
    after = rewritten(example, [Edit(2, 4, "long name"), Edit(0, 1, "")])
    assert (after.text, called(after)) == (" long name ccc", ["long name", "ccc"])


PARAPHRASERS = """
class Turned:
    def paraphrase(self, texts):
        return [" ".join([text.split()[-1], *text.split()[:-1]]) for text in texts]

class Mute:
    def paraphrase(self, texts):
        return []

class Forgetful:
    def paraphrase(self, texts):
        return ["something else"] * len(texts)
"""


def test_a_paraphraser_is_plugged_in_by_its_name(tmp_path, monkeypatch):
    (tmp_path / "invented_paraphrasers.py").write_text(PARAPHRASERS, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    def said_by(name, example):
        recipe = Recipe(paraphrases=1.0, paraphraser=f"invented_paraphrasers:{name}")
        return augment([example], recipe, random.Random(1))[0]

    example = Example("Halden rises sharply", "x", topic="Credit", toward=(Toward(0, 6, "positive"),))
    after = said_by("Turned", example)
    assert (after.text, called(after), after.topic) == ("sharply Halden rises", ["Halden"], "Credit")
    assert said_by("Forgetful", example) == example
    assert said_by("Forgetful", replace(example, toward=())).text == "something else"
    with pytest.raises(PipelineError, match="gave 0 texts for 1"):
        said_by("Mute", example)


@pytest.mark.parametrize("place", ["nowhere.at.all:thing", "random:nothing"])
def test_a_paraphraser_that_is_not_there_is_told(place):
    with pytest.raises(PipelineError, match=f"the paraphraser {place} cannot be had"):
        augment([Example("a", "x")], Recipe(paraphrases=1.0, paraphraser=place), random.Random(1))


@settings(max_examples=200, deadline=None)
@given(headlines(), st.lists(headlines().map(lambda example: example.text), min_size=1, max_size=3), st.integers(0, 99))
def test_beside_another_text_an_example_says_only_what_it_says_of_whom_it_names(example, texts, seed):
    changed = with_companion(example, 1.0, texts, random.Random(seed))
    assert called(changed) == called(example)
    assert [one.sentiment for one in changed.toward] == [one.sentiment for one in example.toward]
    if changed == example:
        assert not example.toward or any(name.casefold() in text.casefold() for name in called(example) for text in texts)
    else:
        assert (changed.topic, changed.sentiment) == (None, None)
        assert changed.text in {f"{text}\n{example.text}" for text in texts} | {f"{example.text}\n{text}" for text in texts}
    assert with_companion(example, 0.0, texts, random.Random(seed)) == example
