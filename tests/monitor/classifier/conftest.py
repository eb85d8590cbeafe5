"""The tiny base and the tiny checkpoint, made once."""

import pytest

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.two_head import TwoHeadClassifier
from tests.monitor.classifier.tiny import write_base, write_tiny_checkpoint


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, base):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", base)


@pytest.fixture(scope="session")
def classifier(checkpoint, base):
    return TwoHeadClassifier(load_checkpoint(checkpoint, base), "cpu")
