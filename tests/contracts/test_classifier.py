"""Every classifier keeps the contract: the null one, the tests' own, the Bellwether checkpoint, published ones in its roles."""

import pytest

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.null import NullClassifier
from monitor.classifier.published import find_published
from monitor.classifier.roles import RolesClassifier
from monitor.classifier.sequence_classification import SequenceClassifier
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.config import SentimentSettings, TopicSettings
from tests.contracts.classifier_contract import *  # noqa: F403 (the contract's tests run here with every classifier)
from tests.fakes import FakeClassifier
from tests.monitor.classifier.tiny import write_base, write_sequence_classifier, write_tiny_checkpoint


def two_heads(folder):
    base = write_base(folder / "base")
    return TwoHeadClassifier(load_checkpoint(write_tiny_checkpoint(folder / "checkpoint", base), base), "cpu")


def topic(folder, family):
    published = write_sequence_classifier(folder / "topic", ("earnings", "credit", "weather", "other"), family)
    return SequenceClassifier(find_published("topic", TopicSettings(checkpoint=published), fetch=False), "cpu")


def sentiment(folder, family):
    published = write_sequence_classifier(folder / "sentiment", ("positive", "negative", "neutral"), family, seed=1)
    return SequenceClassifier(find_published("sentiment", SentimentSettings(checkpoint=published), fetch=False), "cpu")


CLASSIFIERS = {
    "null": lambda _: NullClassifier(("earnings", "credit")),
    "fake": lambda _: FakeClassifier(),
    "two heads": two_heads,
    "another topic": lambda folder: RolesClassifier(two_heads(folder), topic(folder, "roberta"), None),
    "another sentiment": lambda folder: RolesClassifier(two_heads(folder), None, sentiment(folder, "bert")),
    "both others": lambda folder: RolesClassifier(None, topic(folder, "distilbert"), sentiment(folder, "electra")),
}


@pytest.fixture(scope="module", params=CLASSIFIERS)
def classifier(request, tmp_path_factory):
    return CLASSIFIERS[request.param](tmp_path_factory.mktemp("classifier"))
