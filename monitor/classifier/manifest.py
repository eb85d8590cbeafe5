"""The bytes of a checkpoint's manifest to what they say, checked, or a ModelError that says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from monitor.classifier.text import NORMALISATION
from monitor.errors import ModelError
from monitor.types import SENTIMENTS

FORMAT_VERSION: Final = 3
POOLING: Final = "mean"
MANIFEST_FILE: Final = "manifest.json"
ADAPTER_FILE: Final = "adapter_model.safetensors"
ADAPTER_CONFIG_FILE: Final = "adapter_config.json"
HEADS_FILE: Final = "heads.safetensors"
SURPRISALS_FILE: Final = "surprisals.safetensors"
WEIGHT_FILES: Final = (ADAPTER_CONFIG_FILE, ADAPTER_FILE, HEADS_FILE, SURPRISALS_FILE)


@dataclass(frozen=True, slots=True)
class Base:
    """The encoder that an adapter was trained on: its published name, the SHA-256 of its weights and of its tokenizer."""

    name: str
    weights_sha256: str
    tokenizer_sha256: str


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the logits of one question become probabilities: the temperature that divides them, the limit of certainty."""

    temperature: float
    uncertain_below: float


@dataclass(frozen=True, slots=True)
class Questions:
    """The calibration of each question: the topic, the sentiment of a text as a whole, the sentiment toward an entity in it."""

    topic: Calibration
    sentiment: Calibration
    toward: Calibration


@dataclass(frozen=True, slots=True)
class TrainingFile:
    """A file that the checkpoint was trained or validated on, and the licence of what is in it."""

    name: str
    licence: str
    file: str
    sha256: str
    rows: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Where a checkpoint comes from and how its numbers are to be read.

    `topics` and `sentiments` stand in the order of the heads' logits. A text whose unfamiliarity lies above `out_of_domain_above`
    (nats) resembles nothing that was trained on.
    `normalisation` numbers the rules that texts were normalised by, `files` maps the checkpoint's other files to their SHA-256,
    `counts` and `metrics` map a set to its figures, `libraries` maps a library to its version.
    """

    format_version: int
    created: str
    base: Base
    pooling: str
    normalisation: int
    max_tokens: int
    topics: tuple[str, ...]
    sentiments: tuple[str, ...]
    calibration: Questions
    out_of_domain_above: float
    files: dict[str, str]
    data: tuple[TrainingFile, ...]
    counts: dict[str, dict[str, int]]
    recipe: dict[str, int | float | str | bool | tuple[str, ...] | None]
    seed: int
    metrics: dict[str, dict[str, float]]
    epochs: tuple[dict[str, float], ...]
    libraries: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Format:
    format_version: int


def read_manifest(folder: Path) -> Manifest:
    """What the manifest of a checkpoint folder says. Raises ModelError when it is missing, unreadable, newer or not consistent."""
    return decode_manifest(read_manifest_bytes(folder), folder / MANIFEST_FILE)


def read_manifest_bytes(folder: Path) -> bytes:
    """The manifest's bytes. Raises ModelError when there are none."""
    try:
        return (folder / MANIFEST_FILE).read_bytes()
    except FileNotFoundError as error:
        raise ModelError(
            f"{folder} is no checkpoint: it has no {MANIFEST_FILE}; give the checkpoint folder that pipelines.finetune wrote"
        ) from error
    except OSError as error:
        raise ModelError(f"{folder / MANIFEST_FILE} cannot be read: {error.strerror or error}") from error


def decode_manifest(content: bytes, origin: Path) -> Manifest:
    """The manifest in `content`; `origin` is named in errors. Raises ModelError."""
    try:
        version = msgspec.json.decode(content, type=_Format).format_version
        if version != FORMAT_VERSION:
            advice = "update Bellwether" if version > FORMAT_VERSION else "train the checkpoint again"
            raise ModelError(f"{origin} has format {version}, this Bellwether reads format {FORMAT_VERSION}: {advice}")
        manifest = msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ModelError(f"{origin} is no manifest of a checkpoint: {error}; copy or train the checkpoint again") from error
    faults = list(_faults(manifest))
    if faults:
        raise ModelError(f"{origin} cannot be used: {'; '.join(faults)}")
    return manifest


def _faults(manifest: Manifest) -> Iterator[str]:
    yield from _label_faults(manifest)
    for name in ("topic", "sentiment", "toward"):
        yield from _calibration_faults(f"calibration.{name}", getattr(manifest.calibration, name))
    if manifest.max_tokens < 2:
        yield f"max_tokens must be at least 2, not {manifest.max_tokens}"
    if manifest.pooling != POOLING:
        yield f"pooling {manifest.pooling!r} is unknown; this Bellwether pools by {POOLING}"
    if manifest.normalisation != NORMALISATION:
        yield f"it was trained on texts normalised by rules {manifest.normalisation}, this Bellwether has rules {NORMALISATION}"
    missing = [name for name in WEIGHT_FILES if name not in manifest.files]
    if missing:
        yield f"files does not list {', '.join(missing)}"


def _label_faults(manifest: Manifest) -> Iterator[str]:
    sentiments, topics = manifest.sentiments, manifest.topics
    if sorted(sentiments) != sorted(SENTIMENTS):
        yield f"sentiments must be exactly {', '.join(SENTIMENTS)} (in any order), not {', '.join(sentiments)}"
    if len(topics) < 2 or not all(label.strip() for label in topics):
        yield "topics must be two or more names"
    if len(set(topics)) != len(topics):
        yield "topics must differ from each other"


def _calibration_faults(name: str, calibration: Calibration) -> Iterator[str]:
    if calibration.temperature <= 0:
        yield f"{name}.temperature must be above 0, not {calibration.temperature}"
    if not 0 <= calibration.uncertain_below <= 1:
        yield f"{name}.uncertain_below must lie between 0 and 1, not {calibration.uncertain_below}"
