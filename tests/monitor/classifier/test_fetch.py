"""An encoder out of the jar that carries it: against a graph made here, and against what the published graph itself answers."""

import shutil
import zipfile

import numpy as np
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from monitor.classifier import fetch as module
from monitor.classifier.base_encoder import BASE_NAME, describe_base, find_base
from monitor.classifier.fetch import ARTIFACTS, FILES, Artifact, cached, fetch, read_weights
from monitor.classifier.model import load_encoder
from monitor.classifier.packed_encoder import encode
from monitor.classifier.packing import pack
from monitor.classifier.tokens import load_tokenizer, prepare
from monitor.errors import ModelError
from monitor.types import Passage
from tests.monitor.classifier.tiny import write_base

NAME = "invented/encoder"
ARTIFACT = Artifact("invented:encoder:1", "encoder.onnx", "encoder-tokenizer.json", 2)


@pytest.fixture
def encoder():
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24, max_position_embeddings=32
    )
    return BertModel(config, add_pooling_layer=False)


def graph_of(encoder) -> bytes:
    """The weights as an exporter leaves them: matrices transposed and nameless, known by the nodes that multiply by them."""
    tensors, nodes = [], []
    for number, (name, tensor) in enumerate(encoder.state_dict().items()):
        array = tensor.numpy()
        if name.startswith("encoder.") and tensor.ndim == 2:
            nameless = f"onnx::MatMul_{number}"
            tensors.append(numpy_helper.from_array(np.ascontiguousarray(array.T), nameless))
            place = name.removesuffix(".weight").replace("encoder.layer.", "/encoder/layer.", 1)
            head, _, rest = place.removeprefix("/encoder/layer.").partition(".")
            node = f"/encoder/layer.{head}/{rest.replace('.', '/')}/MatMul"
            nodes.append(helper.make_node("MatMul", ["x", nameless], [f"y{number}"], name=node))
        else:
            tensors.append(numpy_helper.from_array(array, name))
    entering = helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 16])
    leaving = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 16])
    return helper.make_model(helper.make_graph(nodes, "encoder", [entering], [leaving], tensors)).SerializeToString()


def jar_of(encoder, folder, **entries):
    path = folder / "encoder.jar"
    base = write_base(folder / "tiny")
    content = {ARTIFACT.onnx: graph_of(encoder), ARTIFACT.tokenizer: (base / "tokenizer.json").read_bytes()} | entries
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(module, "ARTIFACTS", {NAME: ARTIFACT})


def test_the_weights_of_a_graph_are_those_it_was_made_of(encoder):
    found = read_weights(graph_of(encoder))
    wanted = {name: tensor for name, tensor in encoder.state_dict().items() if not name.endswith("position_ids")}
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name


def test_a_jar_becomes_a_folder_that_transformers_loads(encoder, tmp_path, own_cache):
    folder = fetch(NAME, jar_of(encoder, tmp_path))
    assert folder == cached(NAME)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    loaded = load_encoder(folder)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert find_base(None, NAME) == folder


def test_what_is_there_is_not_fetched_again(encoder, tmp_path, own_cache, monkeypatch):
    folder = fetch(NAME, jar_of(encoder, tmp_path))
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    assert fetch(NAME) == folder


def test_an_encoder_without_an_artifact_is_refused(own_cache):
    with pytest.raises(ModelError, match=f"nobody/nothing has no artifact; those that have: {NAME}"):
        fetch("nobody/nothing")


def test_without_maven_the_error_says_so(own_cache, monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda _name: None)
    with pytest.raises(ModelError, match="Maven is needed to fetch invented:encoder:1"):
        fetch(NAME)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({ARTIFACT.onnx: b"\xff\xff"}, "damaged"),
        ({ARTIFACT.onnx: helper.make_model(helper.make_graph([], "empty", [], [])).SerializeToString()}, "holds no BERT encoder"),
    ],
)
def test_a_jar_with_another_graph_leaves_nothing_behind(encoder, tmp_path, own_cache, entries, message):
    with pytest.raises(ModelError, match=message):
        fetch(NAME, jar_of(encoder, tmp_path, **entries))
    assert cached(NAME) is None
    assert not list((tmp_path / "cache/bellwether/encoders").iterdir())


def test_a_file_that_is_no_jar_is_refused(tmp_path, own_cache):
    path = tmp_path / "not.jar"
    path.write_text("no")
    with pytest.raises(ModelError, match="is not the jar of invented:encoder:1"):
        fetch(NAME, path)


def test_the_hash_of_an_encoder_is_that_of_its_numbers(encoder, tmp_path, own_cache):
    folder = fetch(NAME, jar_of(encoder, tmp_path))
    other = tmp_path / "other"
    shutil.copytree(folder, other)
    # Another exporter names the weights with a prefix and adds a pooler: the encoder is the same.
    from safetensors.torch import save_file

    tensors = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors | {"bert.pooler.dense.bias": torch.zeros(16)}, other / "model.safetensors")
    assert describe_base(other, NAME) == describe_base(folder, NAME)
    tensors["bert.encoder.layer.0.output.dense.bias"][0] += 1e-3
    save_file(tensors, other / "model.safetensors")
    assert describe_base(other, NAME).weights_sha256 != describe_base(folder, NAME).weights_sha256


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mvn") is None, reason="Maven is not installed")
def test_the_shipped_encoder_answers_what_the_published_graph_answers(tmp_path):
    import onnxruntime

    artifact = ARTIFACTS[BASE_NAME]
    jar = module._from_maven(artifact, tmp_path)
    with zipfile.ZipFile(jar) as archive:
        session = onnxruntime.InferenceSession(archive.read(artifact.onnx), providers=["CPUExecutionProvider"])
    folder = fetch(BASE_NAME)
    encoder, tokenizer = load_encoder(folder).eval(), load_tokenizer(folder)
    texts = ["Halden Bank shares sink as Meridian profit soars", "Savers queue at the doors.", "Oil"]
    prepared = prepare([Passage(text) for text in texts], tokenizer, 128)
    packed = pack(prepared)
    with torch.inference_mode():
        states = torch.split(encode(encoder, packed), packed.lengths.tolist())
    for place, own in zip(packed.order, states, strict=True):
        ids = np.array([prepared[place].token_ids], dtype=np.int64)
        feed = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        (published,) = session.run(["last_hidden_state"], feed)
        np.testing.assert_allclose(own.numpy(), published[0], atol=2e-5)
