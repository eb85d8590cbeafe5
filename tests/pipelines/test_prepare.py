"""What is let into training, and what is kept out of it."""

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.model import UNLABELLED
from pipelines.prepare import Example, prepare, read_sentfin, read_tfns, read_topic, split, topic_weights, without_conflicts
from tests.pipelines.invented import SENTFIN, TOPIC_NAMES, write_data

NEGATIVE, NEUTRAL, POSITIVE = 0, 1, 2


@pytest.fixture
def corpus(tmp_path):
    return lambda seed=1, **rows: prepare(write_data(tmp_path / "data", **rows), seed)


def texts(examples):
    return {example.text for example in examples}


def test_labels_of_every_set_become_ours(tmp_path):
    folder = write_data(tmp_path / "data")
    assert [example.sentiment for example in read_sentfin(folder / "sentiment/sentfin_train.tsv")][:3] == [
        NEGATIVE,
        POSITIVE,
        NEUTRAL,
    ]
    assert [example.sentiment for example in read_tfns(folder / "sentiment/tfns_train.csv")][:3] == [NEGATIVE, POSITIVE, NEUTRAL]
    topics = read_topic(folder / "topic/tf_topic_train.csv", 3)
    assert [(example.topic, example.sentiment) for example in topics[:3]] == [(0, UNLABELLED), (1, UNLABELLED), (2, UNLABELLED)]


@pytest.mark.parametrize("path", ["sentiment/tfns_train.csv", "topic/tf_topic_train.csv"])
def test_a_label_that_is_not_known_stops_everything(tmp_path, path):
    folder = write_data(tmp_path / "data")
    with (folder / path).open("a", encoding="utf-8") as file:
        file.write("more,3\n")
    with pytest.raises(ValueError, match=r"unknown labels \['3'\]"):
        prepare(folder, 1)


def test_a_sentiment_that_is_not_known_stops_everything(tmp_path):
    with pytest.raises(ValueError, match=r"sentfin_train.tsv: unknown labels \['mixed'\]"):
        prepare(write_data(tmp_path / "data", sentfin=[("x", "y", "mixed")]), 1)


def test_a_headline_whose_companies_fare_differently_has_no_polarity(corpus):
    found = corpus()
    assert "Orlen gains while Castor falls" not in texts(found.train)
    assert "Lowen up as Tessaly drops" not in texts(found.validation["sentfin"])
    assert "Kestrel and Marrow rally" in texts(found.train)


def test_links_and_entities_go_and_cashtags_stay(corpus):
    found = corpus(sentfin=[("$HLDN &amp; $CSTR jump https://t.co/abc", "Halden", "positive")])
    assert "$HLDN & $CSTR jump" in texts(found.train)


def test_the_same_words_in_other_dress_are_the_same_text(corpus):
    found = corpus(
        sentfin=[("HALDEN profit - rises!", "Halden", "positive"), ("castor MEETS in ardenne", "Castor", "negative")],
    )
    assert "Halden profit rises" in texts(found.train)
    assert "HALDEN profit - rises!" not in texts(found.train)
    assert "Castor meets in Ardenne" not in texts(found.train)


def test_a_text_that_two_sets_judge_differently_is_dropped_from_both(corpus):
    row = next(text for text, _, label in SENTFIN if label == "neutral")
    assert row not in texts(corpus(tfns=[(row, 0)]).train)


def test_a_text_without_letters_or_digits_is_no_example(corpus):
    found = corpus(sentfin=[("... !!", "x", "neutral"), ("https://t.co/x", "x", "neutral")])
    assert all(example.key for example in found.train)


def test_what_is_held_out_is_trained_on_in_no_set(corpus):
    leak = "Northmere rises again"
    found = corpus(sentfin=[(leak.upper(), "x", "positive")], tfns=[(leak + " https://t.co/q", 1)], topic=[(leak, 2)])
    held_out = {example.key for part in found.validation.values() for example in part}
    assert not held_out & {example.key for example in found.train}
    assert leak in texts(found.validation["sentfin"])


def test_a_headline_of_the_dev_part_is_held_out_even_when_it_is_dropped_there(corpus):
    found = corpus(sentfin=[("Lowen up as Tessaly drops", "Lowen", "positive")])
    assert "Lowen up as Tessaly drops" not in texts(found.train)


def test_about_a_tenth_is_held_out_and_the_seed_draws_it(tmp_path):
    folder = write_data(tmp_path / "data", tfns=[(f"more of bank {number}", 2) for number in range(2_000)])
    one, same, other = prepare(folder, 1), prepare(folder, 1), prepare(folder, 2)
    assert one == same
    assert 0.08 < len(one.validation["tfns"]) / 2_120 < 0.12
    assert texts(one.validation["tfns"]) != texts(other.validation["tfns"])


def test_files_are_described_by_what_is_in_them(corpus, tmp_path):
    found = corpus()
    first = found.files[0]
    content = (tmp_path / "data/sentiment/sentfin_train.tsv").read_bytes()
    assert (first.file, first.licence, first.rows) == ("sentfin_train.tsv", "MIT", len(SENTFIN))
    assert first.sha256 == hashlib.sha256(content).hexdigest()
    assert [file.rows for file in found.files[1:]] == [3, 120, 120]
    assert found.topics == TOPIC_NAMES


def test_counts_are_those_of_the_parts(corpus):
    found = corpus()
    assert found.counts["topic"]["read"] == 120
    assert found.counts["topic"]["train"] + found.counts["topic"]["validation"] == 120
    assert found.counts["topic"]["train"] == sum(example.topic != UNLABELLED for example in found.train)
    sentiment = found.counts["sentiment (sentfin, tfns)"]
    assert sentiment["read"] == len(SENTFIN) + 3 + 120
    assert sentiment["train"] == len(found.train) - found.counts["topic"]["train"]
    assert sentiment["validation"] == len(found.validation["sentfin"]) + len(found.validation["tfns"])


rows = st.lists(st.builds(Example, st.sampled_from(["a b", "A  b!", "c", "C.", "d"]), st.integers(0, 2)), max_size=12)


@settings(max_examples=100, deadline=None)
@given(rows)
def test_of_equal_texts_one_stays_if_they_agree_and_none_if_they_do_not(examples):
    kept = without_conflicts(examples)
    for key in {example.key for example in examples}:
        group = [example for example in examples if example.key == key]
        agree = len({example.sentiment for example in group}) == 1
        assert [example for example in kept if example.key == key] == (group[:1] if agree else [])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("abc 1", min_size=1, max_size=4), unique=True, max_size=20), st.integers(0, 9))
def test_a_text_falls_on_the_same_side_whatever_it_stands_among(drawn, seed):
    examples = [Example(text) for text in drawn]
    train, held_out = split(examples, seed, 0.5)
    assert sorted([*train, *held_out], key=lambda example: example.text) == sorted(examples, key=lambda example: example.text)
    for example in examples:
        assert split([example], seed, 0.5)[1] == ([example] if example in held_out else [])
    # Another dress of the same text goes where the text goes.
    assert [len(split([Example(example.text.upper() + "!")], seed, 0.5)[1]) for example in examples if example.key] == [
        int(example in held_out) for example in examples if example.key
    ]


def test_rare_topics_weigh_more_and_the_mean_weight_is_one():
    examples = [Example("x", topic=0)] * 16 + [Example("x", topic=1)] * 4 + [Example("x", sentiment=1)] * 99
    common, rare, unseen = topic_weights(examples, 3, 0.5)
    assert rare / common == pytest.approx(2)
    assert (16 * common + 4 * rare) / 20 == pytest.approx(1)
    assert unseen >= rare
    assert topic_weights(examples, 2, 0.0) == pytest.approx([1, 1])
    assert topic_weights([], 2, 0.5) == pytest.approx([1, 1])
