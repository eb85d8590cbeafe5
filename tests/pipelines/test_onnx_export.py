"""The model as ONNX: it answers as the model does, at any shape, and says what its answers mean."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

from monitor.classifier.answers import probabilities
from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.errors import PipelineError
from monitor.types import Mention, Passage
from pipelines.cli import app
from pipelines.onnx_export import INPUTS, OPSET, OUTPUTS, check, export, padded
from tests.monitor.classifier.tiny import MAX_TOKENS, TOPICS, write_base, write_tiny_checkpoint


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    base = write_base(folder / "base")
    return load_checkpoint(write_tiny_checkpoint(folder / "checkpoint", base), base)


@pytest.fixture(scope="module")
def exported(loaded, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "deep" / "model.onnx"
    return path, export(loaded, path)


def test_it_was_checked_and_differs_by_rounding_alone(exported):
    path, report = exported

    assert 0 < report.largest_difference < 1e-4
    assert report.opset == OPSET
    assert report.bytes == path.stat().st_size
    assert [one.name for one in path.parent.iterdir()] == ["model.onnx"]


def test_a_program_without_bellwether_gets_the_answers_of_the_daemon(loaded, exported):
    """Texts of different lengths in one padded batch, with the calibration that the file itself carries."""
    passages = [
        Passage("halden falls", (Mention(0, 6, "a"),)),
        Passage("profit rises to a gain of 12 in savings, halden", (Mention(41, 47, "a"),)),
        Passage("queue", (Mention(0, 5, "a"),)),
    ]
    classifier = TwoHeadClassifier(loaded, "cpu")
    rows = classifier.prepare(passages)
    session = onnxruntime.InferenceSession(str(exported[0]), providers=["CPUExecutionProvider"])
    said = session.get_modelmeta().custom_metadata_map
    temperatures = {name: one["temperature"] for name, one in json.loads(said["calibration"]).items()}
    topic, sentiment, toward = (
        probabilities(logits, temperatures[name])
        for name, logits in zip(OUTPUTS, session.run(list(OUTPUTS), padded(rows)), strict=True)
    )

    for place, prediction in enumerate(classifier.classify(rows)):
        assert topic[place] == pytest.approx(prediction.topic_probabilities, abs=1e-4)
        assert sentiment[place] == pytest.approx(prediction.document.probabilities, abs=1e-4)
        assert toward[place] == pytest.approx(prediction.toward["a"].probabilities, abs=1e-4)


def test_the_file_says_what_its_answers_mean(loaded, exported):
    model = onnx.load(exported[0])
    said = {one.key: json.loads(one.value) for one in model.metadata_props}

    assert said["topics"] == list(TOPICS)
    assert said["sentiments"] == ["negative", "neutral", "positive"]
    assert said["version"] == loaded.version
    assert said["max_tokens"] == MAX_TOKENS
    assert [one.name for one in model.graph.input] == list(INPUTS)
    for one in model.graph.input:
        assert all(size.dim_param for size in one.type.tensor_type.shape.dim)


def test_a_file_that_answers_otherwise_is_found_out(loaded, exported, tmp_path):
    model = onnx.load(exported[0])
    (bias,) = [one for one in model.graph.initializer if one.name.endswith("topic_head.bias")]
    bias.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bias) + np.float32(0.01), bias.name))
    onnx.save(model, tmp_path / "other.onnx")

    assert check(loaded, tmp_path / "other.onnx") == pytest.approx(0.01, abs=1e-4)


def test_an_export_that_misses_the_tolerance_is_refused(loaded, tmp_path, monkeypatch):
    monkeypatch.setattr("pipelines.onnx_export.TOLERANCE", 0.0)
    with pytest.raises(PipelineError, match="answers otherwise than the model"):
        export(loaded, tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_command_writes_the_file(tmp_path):
    base = write_base(tmp_path / "base")
    checkpoint = write_tiny_checkpoint(tmp_path / "checkpoint", base)
    command = ["export", "--checkpoint", str(checkpoint), "--base", str(base), "--output", str(tmp_path / "model.onnx")]
    done = CliRunner().invoke(app, command, catch_exceptions=False)

    assert done.exit_code == 0
    assert f"opset {OPSET}" in done.output
    assert (tmp_path / "model.onnx").is_file()
