"""What the answers of a published checkpoint stand for is found by name, or every fault is told with what there is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.classifier.published import find_published
from monitor.config import SentimentSettings, TopicSettings
from monitor.errors import ModelError
from monitor.types import SENTIMENTS

NAMES = ("positive", "negative", "neutral")


def published(folder, names=NAMES, **changes):
    """A folder that looks like a published checkpoint; nothing in it can be loaded."""
    folder.mkdir(exist_ok=True)
    config = {
        "architectures": ["BertForSequenceClassification"],
        "model_type": "bert",
        "id2label": {str(place): name for place, name in enumerate(names)},
    }
    (folder / "config.json").write_text(json.dumps(config | changes), encoding="utf-8")
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "vocab.txt").write_bytes(b"words")
    return folder


def sentiment(folder, **settings):
    return find_published("sentiment", SentimentSettings(checkpoint=folder, **settings), fetch=False)


def topic(folder, **settings):
    return find_published("topic", TopicSettings(checkpoint=folder, **settings), fetch=False)


def test_a_role_without_a_checkpoint_is_not_taken():
    assert find_published("topic", TopicSettings(), fetch=False) is None


@given(st.permutations(NAMES))
def test_sentiments_are_found_by_name_in_any_order(tmp_path_factory, names):
    found = sentiment(published(tmp_path_factory.mktemp("any"), names))
    assert found.labelling.labels == SENTIMENTS
    assert [SENTIMENTS[place] for place in found.labelling.places] == list(names)


def test_the_case_of_a_sentiment_does_not_matter_and_other_words_are_mapped(tmp_path):
    found = sentiment(published(tmp_path, ("Bullish", "NEUTRAL", "Bearish")), labels={"Bullish": "positive", "Bearish": "negative"})
    assert found.labelling.places == (2, 1, 0)


def test_several_answers_may_stand_for_one_sentiment_and_one_for_none(tmp_path):
    stars = ("1 star", "2 stars", "3 stars", "4 stars", "5 stars", "no review")
    meanings = ("negative", "negative", "neutral", "positive", "positive", None)
    found = sentiment(published(tmp_path, stars), labels=dict(zip(stars, meanings, strict=True)))
    assert found.labelling.places == (0, 0, 1, 2, 2, None)


def test_two_answers_need_a_limit_of_certainty_in_place_of_neutral(tmp_path):
    folder = published(tmp_path, ("POSITIVE", "NEGATIVE"))
    with pytest.raises(ModelError, match=r"no answer stands for neutral: set uncertain_below above 0\.5"):
        sentiment(folder, uncertain_below=0.5)
    assert sentiment(folder, uncertain_below=0.75).labelling.places == (2, 0)


def test_topics_are_those_of_the_checkpoint_under_our_names(tmp_path):
    folder = published(tmp_path, ("Earnings", "Credit Risk", "Misc", "Gossip"))
    assert topic(folder).labelling.labels == ("Earnings", "Credit Risk", "Misc", "Gossip")
    found = topic(folder, labels={"Credit Risk": "credit", "Misc": "other", "Gossip": "other", "Earnings": None})
    assert (found.labelling.labels, found.labelling.places) == (("credit", "other"), (None, 0, 1, 1))


FAULTS = {
    "no names": (None, {}, ["LABEL_0 is none of", "LABEL_1 is none of", "its answers are LABEL_0, LABEL_1"]),
    "a name that says nothing": (("LABEL_0", "neutral", "positive"), {}, ["LABEL_0 is none of negative, neutral, positive"]),
    "a label that is not there": (
        NAMES,
        {"labels": {"bearish": "negative"}},
        ["labels names bearish, which it does not have", "its answers are positive, negative, neutral"],
    ),
    "positive is never reached": (NAMES, {"labels": {"positive": "neutral"}}, ["no answer stands for positive"]),
    "negative is not listened to": (NAMES, {"labels": {"negative": None}}, ["no answer stands for negative"]),
}


@pytest.mark.parametrize(("names", "settings", "told"), FAULTS.values(), ids=FAULTS.keys())
def test_labels_that_do_not_give_the_three_sentiments_are_refused(tmp_path, names, settings, told):
    folder = published(tmp_path, names or ())
    with pytest.raises(ModelError) as caught:
        sentiment(folder, **settings)
    for part in (*told, f"model.sentiment: {folder} cannot be used"):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        ({}, "LABEL_1 says nothing: write in labels what it stands for"),
        ({"LABEL_1": "credit", "earnings": "credit"}, "labels leaves fewer than two topics"),
        ({"LABEL_1": None}, "labels leaves fewer than two topics"),
        ({"LABEL_1": "credit", "LABEL_7": "x"}, "labels names LABEL_7, which it does not have"),
    ],
)
def test_topics_that_say_nothing_are_refused(tmp_path, labels, told):
    with pytest.raises(ModelError, match=told):
        topic(published(tmp_path, ("earnings", "LABEL_1")), labels=labels)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"architectures": ["BertForMaskedLM"]}, "it is a BertForMaskedLM and classifies no texts"),
        ({"problem_type": "multi_label_classification"}, "problem_type is multi_label_classification: an answer must be one of"),
        ({"problem_type": "regression"}, "problem_type is regression"),
        ({"id2label": {"0": "positive"}}, "it has a single output"),
        ({"id2label": {"0": "negative", "2": "positive", "3": "neutral"}}, "id2label does not name the outputs 0, 1, 2"),
        ({"id2label": ["negative", "positive"]}, "id2label does not name the outputs 0, 1, 2"),
    ],
)
def test_what_is_no_classifier_of_texts_is_refused(tmp_path, changes, told):
    with pytest.raises(ModelError, match=told):
        sentiment(published(tmp_path, **changes))


def test_every_fault_is_told_at_once(tmp_path):
    folder = published(tmp_path, ("bad", "good", "neutral"), problem_type="regression")
    (folder / "model.safetensors").unlink()
    (folder / "vocab.txt").unlink()
    told = [r"no model\.safetensors", r"no tokenizer \(tokenizer\.json, vocab\.txt", "problem_type", "bad is none", "good is none"]
    with pytest.raises(ModelError, match=".*".join(told)):
        sentiment(folder)


def test_pickled_weights_are_refused_with_advice(tmp_path):
    folder = published(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(
        ModelError, match=r"pickled ones can run code: name a revision that has it .* or convert the checkpoint once"
    ):
        sentiment(folder)


def test_weights_in_several_files_are_accepted(tmp_path):
    folder = published(tmp_path)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    (folder / "model.safetensors.index.json").write_text("{}", encoding="utf-8")
    assert sentiment(folder) is not None


def test_an_adapter_is_refused_because_its_model_would_be_fetched_unseen(tmp_path):
    folder = published(tmp_path)
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "someone/else"}', encoding="utf-8")
    with pytest.raises(ModelError, match=r"it holds an adapter .* merge it into its model"):
        sentiment(folder)


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "cannot be read: No such file"), (b"{", "is no JSON"), (b"\xff", "is no JSON"), (b"[]", "is no configuration")],
)
def test_a_folder_without_a_readable_configuration_is_refused(tmp_path, content, told):
    if content is not None:
        (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ModelError, match=rf"model\.topic: .*config\.json {told}"):
        topic(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "vocab.txt"])
def test_the_version_follows_every_file_that_is_read(tmp_path, file):
    folder = published(tmp_path)
    before = sentiment(folder).version
    (folder / "README.md").write_text("not read", encoding="utf-8")
    assert sentiment(folder).version == before
    with (folder / file).open("ab") as changed:
        changed.write(b" ")
    assert sentiment(folder).version != before


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 2.0},
        {"uncertain_below": 0.5},
        {"max_tokens": 64},
        {"labels": {"neutral": "positive", "negative": "neutral", "positive": "negative"}},
    ],
)
def test_the_version_follows_every_setting_that_decides_an_answer(tmp_path, settings):
    folder = published(tmp_path)
    assert sentiment(folder, **settings).version != sentiment(folder).version


# --- the hub ---------------------------------------------------------------------------------------

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub with one checkpoint in it, and no network."""
    import huggingface_hub.constants

    cache = tmp_path / "hub"
    stored = cache / "models--invented--finbert"
    (stored / "refs").mkdir(parents=True)
    (stored / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    (stored / "snapshots").mkdir()
    folder = published(stored / "snapshots" / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return folder


@pytest.mark.parametrize("fetch", [True, False])
@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_checkpoint_in_the_cache_of_the_hub_is_found_by_its_name(hub, revision, fetch):
    settings = SentimentSettings(checkpoint="invented/finbert", revision=revision)
    found = find_published("sentiment", settings, fetch=fetch)
    assert found.folder == hub
    assert found.pinned == (revision is not None)


@pytest.mark.parametrize(("fetch", "told"), [(False, "is not on this machine"), (True, "is not to be had from the hub")])
def test_one_that_is_not_there_is_refused_with_the_command_that_fetches_it(hub, fetch, told):
    settings = SentimentSettings(checkpoint="invented/other", revision="refs/pr/8")
    with pytest.raises(ModelError, match=rf"{told} .*`hf download invented/other --revision refs/pr/8`, or give the folder"):
        find_published("sentiment", settings, fetch=fetch)


def test_a_folder_is_pinned(tmp_path):
    assert sentiment(published(tmp_path)).pinned
