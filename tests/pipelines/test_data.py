"""What is let into training, what is kept out of it, and what a description of data sets may say."""

import gzip
import hashlib
import json
import random
from pathlib import Path

import pytest
import yaml
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.errors import PipelineError
from pipelines.corpus import Example, Toward
from pipelines.data import SHIPPED_SETS, Sets, find, prepare, read_sets, read_table, split, without_leaks
from tests.pipelines.invented import SENTFIN, TOPIC_NAMES, write_data

SHARED = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture
def corpus(tmp_path):
    return lambda seed=1, **rows: prepare(write_data(tmp_path / "data", **rows), read_sets(SHIPPED_SETS), seed)


def texts(examples):
    return {example.text for example in examples}


def one(found, text):
    (example,) = (example for example in found.train if example.text == text)
    return example


def sets_of(folder, *described, topics=("Credit", "Sea")):
    """A description written to a file and read again, as people do it."""
    path = folder / "sets.yaml"
    path.write_text(yaml.safe_dump({"topics": list(topics), "sets": list(described)}, sort_keys=False), encoding="utf-8")
    return read_sets(path)


# --- the shipped description ---------------------------------------------------------------------


def test_labels_of_every_set_become_ours(corpus):
    found = corpus()
    assert one(found, "Halden profit rises").sentiment == "positive"
    labels = {example.text.split()[3]: example.sentiment for example in found.train if example.part == "tfns"}
    assert labels == {"falls": "negative", "gains": "positive", "is": "neutral"}
    for example in found.train:
        if example.part == "topic":
            assert example.topic is not None
            assert example.text.startswith(example.topic.lower())
            assert (example.sentiment, example.toward) == (None, ())
    assert found.topics == TOPIC_NAMES


def test_a_headline_whose_companies_fare_differently_has_opposite_entities_and_no_sentiment(corpus):
    example = one(corpus(), "Orlen gains while Castor falls")
    assert example.sentiment is None
    assert example.toward == (Toward(0, 5, "positive"), Toward(18, 24, "negative"))


def test_entities_that_fare_alike_are_the_sentiment_of_the_text_too(corpus):
    example = one(corpus(), "Kestrel and Marrow rally")
    assert example.sentiment == "positive"
    assert len(example.toward) == 2


@pytest.mark.parametrize(
    ("path", "row", "line"),
    [("sentiment/tfns_train.csv", "more,3", 122), ("topic/tf_topic_train.csv", "more,3", 122)],
)
def test_a_label_that_is_not_known_stops_everything_and_is_named(tmp_path, path, row, line):
    folder = write_data(tmp_path / "data")
    with (folder / path).open("a", encoding="utf-8") as file:
        file.write(row + "\n")
    with pytest.raises(PipelineError, match=rf"{Path(path).name}, line {line}: '3' is no "):
        prepare(folder, read_sets(SHIPPED_SETS), 1)


def test_links_and_markup_go_and_cashtags_stay(corpus):
    found = corpus(sentfin=[("$HLDN &amp; Halden jump https://t.co/abc", "Halden", "positive")])
    assert one(found, "$HLDN & Halden jump").toward == (Toward(8, 14, "positive"),)


def test_the_same_words_in_other_dress_are_the_same_text(corpus):
    found = corpus(sentfin=[("HALDEN profit - rises!", "Halden", "positive"), ("castor MEETS in ardenne", "Castor", "negative")])
    assert "HALDEN profit - rises!" not in texts(found.train)
    assert one(found, "Halden profit rises").toward == (Toward(0, 6, "positive"),)


def test_what_rows_contradict_each_other_about_is_dropped_and_counted(corpus):
    found = corpus(sentfin=[("Castor meets in Ardenne", "Castor", "negative")], tfns=[("velm is calm", 2), ("Velm is calm!", 0)])
    assert "Castor meets in Ardenne" not in texts(found.train)
    assert "velm is calm" not in texts(found.train)
    assert found.counts["sentfin"]["dropped: contradictory"] == 1
    assert found.counts["tfns"]["dropped: contradictory"] == 1


def test_an_entity_that_the_text_does_not_name_and_a_text_of_nothing_are_dropped_and_counted(corpus):
    found = corpus(sentfin=[("Tarn rises", "Velm", "positive"), ("... !!", "x", "neutral"), ("https://t.co/x", "x", "neutral")])
    assert found.counts["sentfin"]["dropped: entity not in the text"] == 1
    assert found.counts["sentfin"]["dropped: no text"] == 2
    assert all(example.key for example in found.train)


def test_a_text_of_two_sets_teaches_what_both_say(corpus):
    found = corpus(topic=[("Halden profit rises", 1)])
    example = one(found, "Halden profit rises")
    assert (example.topic, example.sentiment, len(example.toward)) == ("Earnings", "positive", 1)


def test_what_is_held_out_or_nearly_is_trained_on_in_no_set(corpus):
    leak = "Northmere rises again"
    near = "Oslund wins the big order for twelve new ferries from the harbour of Tarn on Monday"
    found = corpus(
        sentfin=[(leak.upper(), "x", "positive"), (near + " night", "Oslund", "positive")],
        sentfin_dev=[(near, "Oslund", "positive")],
        tfns=[(leak + " https://t.co/q", 1)],
        topic=[(leak, 2), ("Oslund wins a small order", 1)],
    )
    held_out = {example.key for part in found.validation.values() for example in part}
    assert not held_out & {example.key for example in found.train}
    assert leak in texts(found.validation["sentfin"])
    assert near + " night" not in texts(found.train)
    assert found.counts["all"]["leaks removed"] >= 2


def test_about_a_tenth_is_held_out_and_the_seed_draws_it(tmp_path):
    rows = [(f"{number} {hashlib.sha256(str(number).encode()).hexdigest()}", 2) for number in range(2_000)]
    folder = write_data(tmp_path / "data", tfns=rows)
    sets = read_sets(SHIPPED_SETS)
    first, same, other = prepare(folder, sets, 1), prepare(folder, sets, 1), prepare(folder, sets, 2)
    assert first == same
    assert 0.08 < len(first.validation["tfns"]) / 2_120 < 0.12
    assert texts(first.validation["tfns"]) != texts(other.validation["tfns"])
    assert texts(first.validation["sentfin"]) == texts(other.validation["sentfin"])


def test_files_are_described_by_what_is_in_them(corpus, tmp_path):
    found = corpus()
    first = found.files[0]
    content = (tmp_path / "data/sentiment/sentfin_train.tsv").read_bytes()
    assert (first.name, first.file, first.licence, first.rows) == ("SEntFiN 1.0", "sentfin_train.tsv", "MIT", len(SENTFIN))
    assert first.sha256 == hashlib.sha256(content).hexdigest()
    assert [file.rows for file in found.files[1:]] == [3, 120, 120]


def test_counts_are_those_of_the_parts(corpus):
    found = corpus()
    for part in ("sentfin", "tfns", "topic"):
        assert found.counts[part]["train"] == sum(example.part == part for example in found.train)
        assert found.counts[part]["validation"] == len(found.validation[part])
    assert found.counts["all"]["train"] == len(found.train)


# --- own data ------------------------------------------------------------------------------------

ROWS = [
    {"headline": "Tarn rises after the vote", "about": "Credit", "tone": "good", "who": "Tarn"},
    {"headline": "Velm falls into the sea", "about": "Sea", "tone": "bad", "who": ""},
    {"headline": "Nobody knows what Wick does", "about": "", "tone": "", "who": "Wick"},
    {"headline": "Zell looks at a loan", "about": "Credit", "tone": "", "who": ""},
]
OWN = {
    "name": "own",
    "licence": "internal",
    "columns": {"text": "headline", "topic": "about", "sentiment": "tone", "entity": "who"},
    "sentiments": {"good": "positive", "bad": "negative"},
    "validation_share": 0.001,
}


def write_rows(path, rows):
    kind = path.name.split(".")[1]
    if kind == "jsonl":
        lines = [json.dumps({name: value or None for name, value in row.items()}, ensure_ascii=False) for row in rows]
    else:
        by = "," if kind == "csv" else "\t"
        lines = [by.join(rows[0]), *(by.join(row.values()) for row in rows)]
    content = ("\n".join(lines) + "\n").encode()
    packed = {".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}.get(path.suffix, bytes)(content)
    path.write_bytes(packed)


@pytest.mark.parametrize("name", ["own.csv", "own.tsv", "own.jsonl", "own.csv.gz", "own.tsv.zst", "own.jsonl.zst", "own.jsonl.gz"])
def test_own_labels_are_read_from_any_kind_of_table_with_any_column_empty(tmp_path, name):
    write_rows(tmp_path / name, ROWS)
    found = prepare(tmp_path, sets_of(tmp_path, OWN | {"train": name}), 1)
    assert set(found.train) == {
        Example("Tarn rises after the vote", "own", "Credit", "positive", (Toward(0, 4, "positive"),)),
        Example("Velm falls into the sea", "own", "Sea", "negative"),
        Example("Zell looks at a loan", "own", "Credit"),
    }


def test_columns_may_be_missing_and_topics_be_mapped_or_unheard(tmp_path):
    write_rows(tmp_path / "own.csv", [{"text": "Tarn lends", "label": "loans"}, {"text": "Velm swims", "label": "sport"}])
    described = {
        "name": "own",
        "licence": "internal",
        "train": "own.csv",
        "columns": {"topic": "label"},
        "topics": {"loans": "Credit", "sport": None},
        "validation_share": 0.001,
    }
    assert prepare(tmp_path, sets_of(tmp_path, described), 1).train == (Example("Tarn lends", "own", "Credit"),)


def test_numbers_in_json_stay_as_they_are_written(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"text": "a", "label": 1}\n{"text": "b"}\n', encoding="utf-8")
    assert read_table(tmp_path / "own.jsonl")["label"].tolist() == ["1", ""]


def test_chinese_texts_that_nearly_equal_a_held_out_one_are_leaks():
    held = [Example("央行宣布下调存款准备金率零点五个百分点以支持实体经济", "zh")]
    near = Example("央行宣布下调存款准备金率零点五个百分点，以支持实体经济！", "zh")
    nearly = Example("央行宣布下调存款准备金率零点五个百分点以支持实体经济了", "zh")
    other = Example("某银行行长宣布辞职并离开公司", "zh")
    assert list(without_leaks([near, nearly, other], held)) == [other]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"columns": {"text": "text"}}, "names neither topic nor sentiment"),
        ({"columns": {"topic": "label", "entity": "who"}}, "names an entity and no sentiment"),
        ({"licence": None}, r"sets\.0\.licence"),
        ({"name": "Own Set"}, r"sets\.0\.name"),
        ({"sentiments": {"good": "splendid"}}, r"sets\.0\.sentiments\.good"),
        ({"colums": {}}, r"sets\.0\.colums: unknown key"),
    ],
)
def test_a_mistake_in_a_description_is_told_with_its_place(tmp_path, change, fault):
    with pytest.raises(PipelineError, match=rf"sets\.yaml cannot be used:\n.*{fault}"):
        sets_of(tmp_path, OWN | {"train": "own.csv"} | change)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("own.csv", "headline,about\na,Credit\n", "has no column tone, who; it has headline, about"),
        ("own.csv", "", "cannot be read"),
        ("own.jsonl", '{"headline": 1}\n{\n', "cannot be read"),
        ("own.jsonl", '{"headline": "a", "about": "Moon", "tone": "", "who": ""}\n', "line 1: 'Moon' is no topic"),
        ("own.csv", "headline,about,tone,who\na,,positive,\n", "line 2: 'positive' is no sentiment: it must be one of good, bad"),
        ("own.xlsx", "PK", "neither .csv nor .tsv nor .jsonl"),
        ("own.csv.gz", "no archive", "cannot be read"),
        ("own.csv.zst", "no archive", "cannot be read"),
        ("own.jsonl.zst", "no archive", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_used_is_told_with_its_name(tmp_path, name, content, fault):
    (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(PipelineError, match=rf"{name}[, ](.|\n)*{fault}"):
        prepare(tmp_path, sets_of(tmp_path, OWN | {"train": name}), 1)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(PipelineError, match=r"own\.csv cannot be read"):
        prepare(tmp_path, sets_of(tmp_path, OWN | {"train": "own.csv"}), 1)
    with pytest.raises(PipelineError, match=r"sets\.yaml cannot be read"):
        read_sets(tmp_path / "folder" / "sets.yaml")


def test_a_topic_named_twice_is_an_error(tmp_path):
    folder = write_data(tmp_path / "data")
    (folder / "topic/classes.txt").write_text("Sea\nSea\n", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"classes\.txt names a topic twice"):
        prepare(folder, read_sets(SHIPPED_SETS), 1)


# --- properties ----------------------------------------------------------------------------------

NAMES = ("Tarn", "Velm", "Wick AG", "Tarn Foods")
OTHERS = ("rises", "falls", "again", "while", "tarnished", "and", "the", "cup")


@st.composite
def tables(draw):
    """Rows as people label them: some name an entity, some repeat or contradict each other."""
    rows = []
    for _ in range(draw(st.integers(1, 25))):
        words = draw(st.lists(st.sampled_from((*NAMES, *OTHERS)), min_size=2, max_size=6))
        text = " ".join(words)
        who = draw(st.sampled_from(["", *(name for name in NAMES if name in text)]))
        rows.append({"headline": text, "about": draw(st.sampled_from(("", "Credit", "Sea"))), "who": who})
        rows[-1]["tone"] = draw(st.sampled_from(("good", "bad")))
    return rows


def prepared(folder, rows, seed):
    write_rows(folder / "own.csv", rows)
    return prepare(folder, sets_of(folder, OWN | {"train": "own.csv", "validation_share": 0.3}), seed)


@settings(max_examples=60, deadline=None)
@given(tables(), st.integers(0, 5))
def test_nothing_held_out_is_learned_and_places_name_the_entities(tmp_path_factory, rows, seed):
    folder = tmp_path_factory.mktemp("data")
    found = prepared(folder, rows, seed)
    held = found.validation["own"]
    assert not {example.key for example in held} & {example.key for example in found.train}
    assert list(without_leaks(found.train, held)) == list(found.train)
    said = {}
    for row in rows:
        said.setdefault((row["headline"], row["who"].casefold()), set()).add(row["tone"])
    for example in (*found.train, *held):
        assert example.topic or example.sentiment or example.toward
        for place in example.toward:
            name = example.text[place.start : place.end].casefold()
            tones = said[example.text, name]
            assert tones == {"good" if place.sentiment == "positive" else "bad"}


@settings(max_examples=40, deadline=None)
@given(tables(), st.integers(0, 5), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_decides_nothing(tmp_path_factory, rows, seed, order):
    folder = tmp_path_factory.mktemp("data")
    first = prepared(folder, rows, seed)
    shuffled = list(rows)
    order.shuffle(shuffled)
    second = prepared(folder, shuffled, seed)
    assert set(first.train) == set(second.train)
    assert set(first.validation["own"]) == set(second.validation["own"])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("abc 1", min_size=1, max_size=4), unique=True, max_size=20), st.integers(0, 9))
def test_a_text_falls_on_the_same_side_whatever_it_stands_among(drawn, seed):
    examples = [Example(text, "p") for text in drawn]
    train, held_out = split(examples, seed, 0.5)
    assert sorted([*train, *held_out], key=lambda example: example.text) == sorted(examples, key=lambda example: example.text)
    for example in examples:
        assert split([example], seed, 0.5)[1] == ([example] if example in held_out else [])
        # Another dress of the same text goes where the text goes.
        dressed = Example(example.text.upper() + "!", "p")
        assert bool(split([dressed], seed, 0.5)[1]) == (example in held_out)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(NAMES), st.lists(st.sampled_from((*NAMES, *OTHERS)), max_size=6), st.integers(0, 99))
def test_a_name_is_found_as_a_whole_word_where_it_is_one(name, words, seed):
    order = random.Random(seed)
    text = " ".join(words)
    found = find(order.choice((name, name.upper(), name.lower())), text)
    if name in words:
        assert found is not None
        start, end = found
        assert text[start:end] == name
        assert (text + " ")[end] == " "
        assert start == 0 or text[start - 1] == " "
    assert find("", text) is None


@pytest.mark.skipif(not (SHARED / "sentiment").is_dir(), reason="the published data sets are not here")
def test_the_published_sets_make_a_corpus_without_leaks():
    found = prepare(SHARED, read_sets(SHIPPED_SETS), 1)
    held = {example.key for part in found.validation.values() for example in part}
    assert not held & {example.key for example in found.train}
    assert set(found.validation) == {"sentfin", "tfns", "topic"}
    assert all(
        example.text[place.start : place.end].strip() == example.text[place.start : place.end]
        for example in found.train
        for place in example.toward
    )
    assert isinstance(Sets.model_validate({"topics": ["a", "b"], "sets": [OWN | {"train": "own.csv"}]}), Sets)
