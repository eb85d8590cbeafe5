"""Token ids of a passage: those of the whole text where it fits, of the parts that matter where it does not."""

import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing

from monitor.classifier.tokens import load_tokenizer, prepare, targets
from monitor.errors import ModelError
from monitor.types import Mention, Passage
from tests.monitor.classifier.tiny import MAX_TOKENS, WORDS

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


def test_the_limits_that_a_tokenizer_was_published_with_do_not_hold_here(tokenizer):
    short, long = prepare([Passage("bank"), Passage("bank " * 12)], tokenizer, MAX_TOKENS)
    assert short.tokens == 3
    assert long.tokens == 14
    assert not long.truncated


@pytest.mark.parametrize(("words", "truncated"), [(MAX_TOKENS - 3, False), (MAX_TOKENS - 2, False), (MAX_TOKENS - 1, True)])
def test_a_text_is_truncated_when_it_has_more_tokens_than_the_limit(tokenizer, words, truncated):
    (prepared,) = prepare([Passage("bank " * words)], tokenizer, MAX_TOKENS)
    assert prepared.truncated is truncated
    assert prepared.tokens == min(words + 2, MAX_TOKENS)
    assert prepared.token_ids[0] == CLS
    assert prepared.token_ids[-1] == SEP


def test_an_empty_text_is_its_two_special_tokens(tokenizer):
    assert [one.token_ids for one in prepare([Passage(""), Passage(" ")], tokenizer, MAX_TOKENS)] == [(CLS, SEP)] * 2
    assert prepare([], tokenizer, MAX_TOKENS) == []


pieces = st.one_of(
    st.sampled_from([*WORDS, "banks", "12.5", "unheard", "$a", "x" * 99, "x" * 101, "halden."]),
    st.integers(1, 6_000).map(lambda length: "y" * length),
    st.integers(1, 300).map(lambda times: "bank " * times),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(pieces, max_size=8).map(" ".join), max_size=4))
def test_what_fits_is_tokenised_as_the_tokenizer_does_and_nothing_is_ever_longer(tokenizer, texts):
    found = prepare([Passage(text) for text in texts], tokenizer, MAX_TOKENS)
    for text, one in zip(texts, found, strict=True):
        whole = tokenizer.encode(text).ids
        if len(text) <= 16 * MAX_TOKENS and len(whole) <= MAX_TOKENS:
            assert (list(one.token_ids), one.truncated) == (whole, False)
        else:
            assert one.truncated
            assert one.tokens <= MAX_TOKENS
            assert (one.token_ids[0], one.token_ids[-1]) == (CLS, SEP)
    assert found == [prepare([Passage(text)], tokenizer, MAX_TOKENS)[0] for text in texts]


def test_a_target_is_the_tokens_that_share_a_character_with_a_mention(tokenizer):
    text = "halden banks falls, the bank of halden"
    mentions = (Mention(0, 11, "halden"), Mention(7, 12, "banks"), Mention(32, 38, "halden"))
    (prepared,) = prepare([Passage(text, mentions)], tokenizer, MAX_TOKENS)
    pieces_of = {
        target.entity: [tokenizer.id_to_token(prepared.token_ids[place]) for place in target.places] for target in prepared.targets
    }
    assert pieces_of == {"halden": ["halden", "bank", "halden"], "banks": ["bank", "##s"]}


offsets = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), max_size=12).map(
    lambda steps: [(sum(map(sum, steps[:place])) + gap, sum(map(sum, steps[: place + 1]))) for place, (gap, _) in enumerate(steps)]
)
mention_lists = st.lists(
    st.builds(
        lambda start, size, name: Mention(start, start + size, name), st.integers(0, 40), st.integers(1, 8), st.sampled_from("abc")
    )
)


@settings(max_examples=300, deadline=None)
@given(offsets, mention_lists.map(sorted))
def test_targets_are_what_a_look_at_every_token_for_every_mention_finds(places, mentions):
    expected: dict[str, set[int]] = {}
    for mention in mentions:
        for place, (start, end) in enumerate(places):
            if start < end and start < mention.end and mention.start < end:
                expected.setdefault(mention.entity, set()).add(place)
    assert {target.entity: target.places for target in targets(mentions, places)} == {
        entity: tuple(sorted(found)) for entity, found in expected.items()
    }
    assert [target.entity for target in targets(mentions, places)] == list(expected)


# --- long passages: every word stands once, so that its id says where it stood -------------------


@pytest.fixture(scope="module")
def numbered():
    """A tokenizer for texts of the words W0, W1, …: the id of a word is 10 more than its number."""
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2, ".": 3, "!": 4} | {f"W{number}": number + 10 for number in range(3_000)}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    return tokenizer


def written(lengths, headline):
    """Sentences of so many words, the first of them as the headline."""
    number, told = 0, []
    for length in lengths:
        told.append(" ".join(f"W{number + place}" for place in range(length)) + ".")
        number += length
    return "\n".join((told[0], " ".join(told[1:]))) if headline else " ".join(told)


def naming(text, words_by_entity):
    """The passage in which the words with these numbers are mentions."""
    starts = {int(found[1]): found.span() for found in re.finditer(r"W(\d+)", text)}
    mentions = [
        Mention(*starts[number], entity) for entity, numbers in words_by_entity.items() for number in numbers if number in starts
    ]
    return Passage(text, tuple(sorted(mentions)))


long_texts = st.builds(
    naming,
    st.builds(written, st.lists(st.integers(1, 60), min_size=1, max_size=40), st.booleans()),
    st.dictionaries(st.sampled_from("abcdef"), st.lists(st.integers(0, 1_500), min_size=1, max_size=5)),
)


@settings(max_examples=200, deadline=None)
@given(long_texts, st.integers(16, 128))
def test_of_any_passage_the_tokens_are_in_order_once_within_the_limit_and_name_whom_they_should(numbered, passage, max_tokens):
    (one,) = prepare([passage], numbered, max_tokens)
    assert one.tokens <= max_tokens
    words = [token for token in one.token_ids if token >= 10]
    assert words == sorted(set(words))
    text_of = {place: passage.text[mention.start : mention.end] for place, mention in enumerate(passage.mentions)}
    by_entity: dict[str, set[int]] = {}
    for place, mention in enumerate(passage.mentions):
        by_entity.setdefault(mention.entity, set()).add(int(text_of[place][1:]) + 10)
    for target in one.targets:
        named = [one.token_ids[place] for place in target.places]
        assert named
        assert set(named) == by_entity[target.entity] & set(words)
    assert {target.entity for target in one.targets} == {entity for entity, ids in by_entity.items() if ids & set(words)}
    # The headline: as much of it as half of the budget holds.
    first = passage.text.split("\n")[0].split(".")[0].split()
    budget = max_tokens - 2
    assert [token - 10 for token in words[: min(len(first), budget // 2, 60)]] == list(range(min(len(first), budget // 2, 60)))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(300, 1_400), min_size=1, max_size=6, unique=True), st.booleans(), st.randoms(use_true_random=False))
def test_everybody_who_is_named_is_kept_while_there_is_room(numbered, numbers, headline, chance):
    text = written([chance.randrange(5, 40) for _ in range(60)], headline)
    passage = naming(text, {f"entity-{number}": [number] for number in numbers})
    (one,) = prepare([passage], numbered, 2 + 4 * 8 * len(numbers))
    assert {target.entity for target in one.targets} == set(passage.entities)


def test_what_stands_around_a_late_name_is_kept_with_headline_and_lead(numbered):
    text = written([6, 8, *[10] * 100, 12, *[10] * 100], headline=True)
    (one,) = prepare([naming(text, {"late": [1_020]})], numbered, 64)
    words = [token - 10 for token in one.token_ids if token >= 10]
    assert words[:14] == list(range(14))
    assert words[14:] == list(range(1_014, 1_026))


def test_where_nobody_is_named_the_beginning_fills_what_is_left(numbered):
    (one,) = prepare([Passage(written([6, 8, *[10] * 200], headline=True))], numbered, 64)
    assert [token for token in one.token_ids if token >= 10] == list(range(10, 10 + 62 - 6))


def test_two_late_names_share_what_is_left_and_keep_their_own_surroundings(numbered):
    text = written([4, 4, *[10] * 50, 90, *[10] * 50], headline=True)
    (one,) = prepare([naming(text, {"one": [530], "other": [560]})], numbered, 42)
    words = {token - 10 for token in one.token_ids if token >= 10}
    assert set(range(525, 536)) <= words
    assert set(range(555, 566)) <= words


def test_a_long_chinese_passage_keeps_the_sentence_with_the_name():
    characters = [chr(0x4E00 + number) for number in range(400)]
    tokenizer = Tokenizer(
        WordLevel(
            {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2} | {one: place + 3 for place, one in enumerate(characters)}, unk_token="[UNK]"
        )
    )
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.normalizer = BertNormalizer()
    tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)])
    chosen = random.Random(1).choices(characters[20:], k=600)
    body = "。".join("".join(chosen[begin : begin + 20]) for begin in range(0, 600, 20))
    name, said = "".join(characters[:4]), "".join(characters[4:14])
    text = f"标题\n{body}。{name}{said}。{body}"
    place = text.index(name)
    (one,) = prepare([Passage(text, (Mention(place, place + 4, "halden"),))], tokenizer, 64)
    (target,) = one.targets
    assert [one.token_ids[at] for at in target.places] == [3, 4, 5, 6]
    assert list(one.token_ids[target.places[0] :][:14]) == list(range(3, 17))


def test_ten_thousand_names_in_a_megabyte_cost_no_more_tokens_than_one(numbered):
    class Counting:
        characters = 0

        def encode(self, text):
            return numbered.encode(text)

        def encode_batch(self, texts, **options):
            self.characters += sum(map(len, texts))
            return numbered.encode_batch(texts, **options)

    counting = Counting()
    text = "W1 falls. W2 rises! " * 50_000
    mentions = tuple(Mention(begin, begin + 2, f"entity-{begin % 700}") for begin in range(0, len(text), 100))
    (one,) = prepare([Passage(text, mentions)], counting, 128)
    assert len(mentions) == 10_000
    assert one.tokens == 128
    assert counting.characters < 5_000


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        load_tokenizer(tmp_path)
