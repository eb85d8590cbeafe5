"""The model section of the configuration: which classifier it makes, which topics it will know, which faults are told before."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from monitor.checking import check
from monitor.classifier.load import check_model, checkpoint_folder, load_classifier
from monitor.classifier.manifest import HEADS_FILE
from monitor.classifier.null import NullClassifier
from monitor.classifier.roles import RolesClassifier
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.config import ModelSettings, SentimentSettings, Settings, TopicSettings
from monitor.errors import ConfigurationError, ModelError
from monitor.types import Passage
from tests.monitor.classifier.tiny import TOPICS, copy_of, write_sequence_classifier

OTHER_TOPICS = ("credit", "rumour")


@pytest.fixture(scope="module")
def topic(tmp_path_factory):
    return TopicSettings(checkpoint=write_sequence_classifier(tmp_path_factory.mktemp("topic"), OTHER_TOPICS))


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    folder = write_sequence_classifier(tmp_path_factory.mktemp("sentiment"), ("positive", "negative", "neutral"))
    return SentimentSettings(checkpoint=folder)


def without_weights(settings, folder):
    """The same settings for a checkpoint whose weights cannot be read."""
    copied = copy_of(settings.checkpoint, folder)
    (copied / "model.safetensors").write_bytes(b"")
    return settings.model_copy(update={"checkpoint": copied})


def test_a_configured_checkpoint_goes_before_the_shipped_one():
    assert checkpoint_folder(ModelSettings(checkpoint=Path("mine"))) == Path("mine")
    assert checkpoint_folder(ModelSettings()).parts[-2:] == ("monitor", "checkpoint")


def test_the_topics_can_be_asked_for_without_reading_weights(checkpoint, topic, sentiment, tmp_path):
    folder = copy_of(checkpoint, tmp_path / "light")
    (folder / HEADS_FILE).unlink()
    light = ModelSettings(checkpoint=folder, sentiment=without_weights(sentiment, tmp_path / "sentiment"))
    assert check_model(light) == TOPICS
    assert check_model(light.model_copy(update={"topic": without_weights(topic, tmp_path / "topic")})) == OTHER_TOPICS
    assert check_model(ModelSettings(checkpoint=folder, disabled=True)) == TOPICS


def test_topics_of_a_missing_checkpoint_are_an_error_unless_nothing_is_asked_of_it(topic, sentiment, tmp_path):
    for settings in (ModelSettings(checkpoint=tmp_path), ModelSettings(checkpoint=tmp_path, topic=topic)):
        with pytest.raises(ModelError, match="is no checkpoint"):
            check_model(settings)
    assert check_model(ModelSettings(checkpoint=tmp_path, topic=topic, sentiment=sentiment)) == OTHER_TOPICS
    assert check_model(ModelSettings(checkpoint=tmp_path, disabled=True)) == ("any",)
    assert check_model(ModelSettings(checkpoint=tmp_path, disabled=True, topic=topic)) == OTHER_TOPICS


def test_the_faults_of_both_roles_are_told_at_once(topic, sentiment):
    swapped = ModelSettings(
        topic=TopicSettings(checkpoint=topic.checkpoint, labels={"weather": "storm"}),
        sentiment=SentimentSettings(checkpoint=topic.checkpoint),
    )
    with pytest.raises(ModelError, match=r"model\.topic: .*labels names weather.*model\.sentiment: .*credit is none of negative"):
        check_model(swapped)


def test_rules_are_checked_against_the_topics_of_the_checkpoint_in_that_role(checkpoint, topic, tmp_path):
    rule = """rules: [{name: talk, metric: stories, series: "topic:%s", window: 15m, comparison: ">=", level: 3}]"""
    for name in ("rumour", "earnings"):
        (tmp_path / f"{name}.yaml").write_text(rule % name, encoding="utf-8")
    own, other = ModelSettings(checkpoint=checkpoint), ModelSettings(checkpoint=checkpoint, topic=topic)
    for model, known, unknown in ((other, "rumour", "earnings"), (own, "earnings", "rumour")):
        assert len(check(Settings(model=model, rules_file=tmp_path / f"{known}.yaml")).rules) == 1
        with pytest.raises(ConfigurationError, match=unknown):
            check(Settings(model=model, rules_file=tmp_path / f"{unknown}.yaml"))


def test_checking_needs_no_torch(topic, sentiment):
    settings = ModelSettings(topic=topic, sentiment=sentiment).model_dump(mode="json")
    command = (
        "import sys\n"
        "from monitor.classifier.load import check_model\n"
        "from monitor.config import ModelSettings\n"
        f"print(check_model(ModelSettings(**{settings})))\n"
        "assert not {'torch', 'transformers', 'huggingface_hub'} & sys.modules.keys()\n"
    )
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == (f"{OTHER_TOPICS}\n", 0), done.stderr


def test_without_roles_the_bellwether_checkpoint_answers_alone(checkpoint, base):
    classifier = load_classifier(ModelSettings(checkpoint=checkpoint, base=base, device="cpu"))
    assert isinstance(classifier, TwoHeadClassifier)
    assert classifier.topics == TOPICS


def test_a_checkpoint_in_one_role_stands_beside_the_bellwether_checkpoint(checkpoint, base, topic, sentiment):
    for role, topics in (({"topic": topic}, OTHER_TOPICS), ({"sentiment": sentiment}, TOPICS)):
        classifier = load_classifier(ModelSettings(checkpoint=checkpoint, base=base, device="cpu", **role))
        assert isinstance(classifier, RolesClassifier)
        assert classifier.topics == topics
        (answer,) = classifier.classify(classifier.prepare([Passage("bank loss")]))
        assert answer.topic in topics


def test_where_both_roles_are_taken_the_bellwether_checkpoint_is_not_touched(topic, sentiment, tmp_path):
    nowhere = tmp_path / "nowhere"
    settings = ModelSettings(checkpoint=nowhere, base=nowhere, device="cpu", topic=topic, sentiment=sentiment)
    classifier = load_classifier(settings)
    (answer,) = classifier.classify(classifier.prepare([Passage("bank loss")]))
    assert answer.topic in OTHER_TOPICS


def test_a_model_that_is_disabled_reads_no_weights(topic, sentiment, tmp_path):
    settings = ModelSettings(disabled=True, topic=without_weights(topic, tmp_path / "topic"), sentiment=sentiment)
    classifier = load_classifier(settings)
    assert isinstance(classifier, NullClassifier)
    assert classifier.topics == OTHER_TOPICS


def test_threads_hold_for_published_checkpoints_too(topic, sentiment):
    threads = torch.get_num_threads()
    try:
        load_classifier(ModelSettings(device="cpu", threads=1, topic=topic, sentiment=sentiment))
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(threads)
