"""The name of a published encoder to a folder on this machine that holds exactly those weights."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Final

from monitor.classifier.fetch import ARTIFACTS, FILES, cached
from monitor.classifier.hub import snapshot
from monitor.classifier.manifest import Base
from monitor.errors import ModelError

BASE_NAME: Final = "BAAI/bge-small-en-v1.5"
"""The encoder of the shipped checkpoint."""

_WEIGHTS: Final = "model.safetensors"
_TOKENIZER: Final = "tokenizer.json"
_NOT_ENCODER: Final = ("pooler.", "cls.", "classifier.")
_SEEN_PREFIXES: Final = ("bert.", "roberta.", "electra.", "distilbert.")


def find_base(folder: Path | None, name: str) -> Path:
    """Where the encoder `name` lies: in `folder` when one is given, else in our cache, else on the hub.

    The hub is asked only when it is in neither. Raises ModelError with what to do when nothing is found.
    """
    found = folder or cached(name) or _downloaded(name)
    missing = [file for file in FILES if not (found / file).is_file()]
    if missing:
        raise ModelError(
            f"{found} does not hold the base encoder {name}: {', '.join(missing)} missing; set model.base to its folder"
        )
    return found


def _downloaded(name: str) -> Path:
    try:
        return snapshot(name, FILES)
    except ModelError as error:
        fetched = "run `bellwether fetch-base`, or " if name in ARTIFACTS else ""
        raise ModelError(
            f"the base encoder is not installed, and {error}: {fetched}set model.base to a folder with {', '.join(FILES)}"
        ) from error


def describe_base(folder: Path, name: str) -> Base:
    """The base in `folder` as a manifest names it. Raises ModelError when a file cannot be read."""
    return Base(name, weights_sha256(folder / _WEIGHTS), tokenizer_sha256(folder / _TOKENIZER))


def weights_sha256(path: Path) -> str:
    """What names an encoder's numbers: the SHA-256 of its tensors by name, whatever else is in the file and however it is laid out.

    Raises ModelError when the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    digest = hashlib.sha256()
    try:
        with safe_open(path, framework="np") as file:
            plain = {_plain(name): name for name in file.keys()}  # noqa: SIM118 (the library's file is no mapping)
            for name in sorted(plain):
                if not name.startswith(_NOT_ENCODER) and not name.endswith("position_ids"):
                    tensor = file.get_tensor(plain[name])
                    digest.update(f"{name} {tensor.dtype} {tensor.shape}\n".encode())
                    digest.update(tensor.tobytes())
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}") from error
    return digest.hexdigest()


def _plain(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in _SEEN_PREFIXES if name.startswith(prefix)), name)


def tokenizer_sha256(path: Path) -> str:
    """What names a tokenizer: the SHA-256 of its content, without the cutting and padding that callers choose themselves.

    Raises ModelError when the file cannot be read.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read as a tokenizer: {error}") from error
    kept = {key: value for key, value in content.items() if key not in {"truncation", "padding"}}
    return hashlib.sha256(json.dumps(kept, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


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
