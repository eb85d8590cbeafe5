"""A corpus written is the corpus read, and what was changed by hand is noticed."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.manifest import TrainingFile
from monitor.errors import PipelineError
from pipelines.corpus import Corpus, Example, Toward, key_of, load_corpus, save_corpus, topic_weights
from tests.pipelines.invented import invented_corpus

SENTIMENTS = st.sampled_from(("negative", "neutral", "positive"))
EXAMPLES = st.builds(
    Example,
    st.text(max_size=12),
    st.sampled_from(("one", "two")),
    st.none() | st.sampled_from(("Credit", "Sea")),
    st.none() | SENTIMENTS,
    st.lists(st.builds(Toward, st.integers(0, 5), st.integers(6, 9), SENTIMENTS), max_size=2).map(tuple),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(EXAMPLES, max_size=5), st.lists(EXAMPLES, max_size=5))
def test_what_was_saved_is_loaded(tmp_path_factory, train, held):
    corpus = Corpus(
        tuple(train),
        {"one": tuple(held), "two": ()},
        ("Credit", "Sea"),
        (TrainingFile("Invented", "MIT", "invented.csv", "0" * 64, 7),),
        3,
        {"one": {"train": len(train), "dropped: repeated": 2}},
    )
    folder = tmp_path_factory.mktemp("corpus")
    save_corpus(corpus, folder)
    assert load_corpus(folder) == corpus


def test_another_corpus_in_the_same_folder_leaves_nothing_of_the_old_one(tmp_path):
    save_corpus(invented_corpus(), tmp_path)
    other = Corpus((Example("a", "x", "Sea"),), {"x": (Example("b", "x", "Sea"),)}, ("Credit", "Sea"), (), 1)
    save_corpus(other, tmp_path)
    assert load_corpus(tmp_path) == other
    assert {path.name for path in tmp_path.iterdir()} == {"corpus.json", "train.jsonl", "validation-x.jsonl"}


@pytest.mark.parametrize("name", ["train.jsonl", "validation-tones.jsonl"])
def test_a_corpus_changed_by_hand_is_refused(tmp_path, name):
    save_corpus(invented_corpus(), tmp_path)
    path = tmp_path / name
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[1:]))
    with pytest.raises(PipelineError, match="was changed after it was made"):
        load_corpus(tmp_path)


def test_a_folder_without_a_corpus_says_how_to_make_one(tmp_path):
    with pytest.raises(PipelineError, match=r"corpus\.json is missing: make the corpus with `bellwether-train data`"):
        load_corpus(tmp_path)
    (tmp_path / "corpus.json").write_text("{", encoding="utf-8")
    with pytest.raises(PipelineError, match="is no corpus"):
        load_corpus(tmp_path)


def test_content_names_a_corpus_and_where_an_example_stands_does_too():
    corpus = invented_corpus()
    moved = Corpus(corpus.train[1:], {**corpus.validation, "a": corpus.train[:1]}, corpus.topics, (), 1)
    assert len({corpus.sha256, moved.sha256, invented_corpus(held=21).sha256}) == 3
    assert corpus.sha256 == invented_corpus().sha256


def test_texts_are_the_same_by_their_letters_and_digits():
    assert key_of("  Halden -- UP 3%!") == key_of("halden up 3") == "halden up 3"
    assert key_of("央行：降息") == key_of("央行 降息")
    assert key_of("...") == ""


def test_rare_topics_weigh_more_and_the_mean_weight_is_one():
    examples = [Example("x", "p", "a")] * 16 + [Example("x", "p", "b")] * 4 + [Example("x", "p", sentiment="neutral")] * 99
    common, rare, unseen = topic_weights(examples, ("a", "b", "c"), 0.5)
    assert rare / common == pytest.approx(2)
    assert (16 * common + 4 * rare) / 20 == pytest.approx(1)
    assert unseen >= rare
    assert topic_weights(examples, ("a", "b"), 0.0) == pytest.approx([1, 1])
    assert topic_weights([], ("a", "b"), 0.5) == pytest.approx([1, 1])
