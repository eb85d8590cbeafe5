"""Token ids of a text: those of the whole text, cut to the limit, whatever its length."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.text import normalise
from monitor.classifier.tokens import cut, load_tokenizer, prepare
from monitor.errors import ModelError
from tests.monitor.classifier.tiny import MAX_TOKENS, WORDS

CLS, SEP = 2, 3


@pytest.fixture(scope="module")
def tokenizer(base):
    return load_tokenizer(base)


def test_a_cut_text_still_ends_with_the_closing_token():
    assert cut((CLS, 10, 11, 12, SEP), 4) == (CLS, 10, 11, SEP)
    assert cut((CLS, 10, 11, SEP), 4) == (CLS, 10, 11, SEP)


def test_the_limits_that_a_tokenizer_was_published_with_do_not_hold_here(tokenizer):
    short, long = prepare(["bank", "bank " * 12], tokenizer, MAX_TOKENS)
    assert short.tokens == 3
    assert long.tokens == 14
    assert not long.truncated


@pytest.mark.parametrize(("words", "truncated"), [(MAX_TOKENS - 3, False), (MAX_TOKENS - 2, False), (MAX_TOKENS - 1, True)])
def test_a_text_is_truncated_when_it_has_more_tokens_than_the_limit(tokenizer, words, truncated):
    (prepared,) = prepare(["bank " * words], tokenizer, MAX_TOKENS)
    assert prepared.truncated is truncated
    assert prepared.tokens == min(words + 2, MAX_TOKENS)
    assert prepared.token_ids[0] == CLS
    assert prepared.token_ids[-1] == SEP


def test_an_empty_text_is_its_two_special_tokens(tokenizer):
    assert prepare(["", " https://halden.example "], tokenizer, MAX_TOKENS) == [prepare([""], tokenizer, MAX_TOKENS)[0]] * 2
    assert prepare([""], tokenizer, MAX_TOKENS)[0].token_ids == (CLS, SEP)
    assert prepare([], tokenizer, MAX_TOKENS) == []


pieces = st.one_of(
    st.sampled_from([*WORDS, "banks", "12.5", "unheard", "$a", "x" * 99, "x" * 101, "https://halden.example/1"]),
    st.integers(1, 6_000).map(lambda length: "y" * length),
    st.integers(1, 300).map(lambda times: " bank" * times),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(pieces, max_size=8).map(" ".join), max_size=4))
def test_the_ids_are_those_of_the_whole_text_cut(tokenizer, texts):
    whole = [tokenizer.encode(normalise(text)).ids for text in texts]
    prepared = prepare(texts, tokenizer, MAX_TOKENS)
    assert [one.token_ids for one in prepared] == [cut(tuple(ids), MAX_TOKENS) for ids in whole]
    assert [one.truncated for one in prepared] == [len(ids) > MAX_TOKENS for ids in whole]


def test_the_tail_of_a_long_text_is_not_tokenised(tokenizer):
    class Counting:
        characters = 0

        def encode_batch(self, texts):
            self.characters += sum(map(len, texts))
            return tokenizer.encode_batch(texts)

    counting = Counting()
    prepare(["bank " * 200_000], counting, MAX_TOKENS)
    assert counting.characters < 5_000


def test_a_file_that_is_no_tokenizer_is_named(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ModelError, match=r"tokenizer\.json cannot be read as a tokenizer"):
        load_tokenizer(tmp_path)
