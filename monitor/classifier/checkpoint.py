"""A checkpoint folder to a model that may be trusted, or the reason why not; and a trained model to such a folder."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from monitor.classifier.base_encoder import check_base, find_base, sha256_of
from monitor.classifier.familiarity import Surprisals
from monitor.classifier.manifest import (
    ADAPTER_CONFIG_FILE,
    ADAPTER_FILE,
    HEADS_FILE,
    MANIFEST_FILE,
    SURPRISALS_FILE,
    WEIGHT_FILES,
    Manifest,
    decode_manifest,
    read_manifest_bytes,
)
from monitor.errors import ModelError
from monitor.types import SENTIMENTS

_HEADS: Final = ("topic_head", "sentiment_head")
_SURPRISALS: Final = "surprisals"
_MODULE_SETS: Final = ("target_modules", "feedforward_modules", "exclude_modules")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A loaded checkpoint: the model with its adapter merged, the tokenizer, the tokens' surprisals, what the manifest says.

    The model's sentiment logits stand in the order of `SENTIMENTS`, whatever order they were trained in. `version` is a short hash
    of the manifest, which holds the hashes of all weights.
    """

    manifest: Manifest
    model: Any
    tokenizer: Any
    surprisals: Surprisals
    version: str


def load_checkpoint(folder: Path, base: Path | None = None) -> Checkpoint:
    """The model of a checkpoint folder in fp32 on the CPU, every hash, name and shape verified.

    `base` is a folder with the base encoder; None: looked for. Raises ModelError: what is wrong, where, and what to do.
    """
    from monitor.classifier.model import TwoHeadModel, load_encoder
    from monitor.classifier.tokens import load_tokenizer

    content = read_manifest_bytes(folder)
    manifest = decode_manifest(content, folder / MANIFEST_FILE)
    _check_files(folder, manifest)
    base_folder = find_base(base, manifest.base.name)
    check_base(base_folder, manifest.base)
    encoder = load_encoder(base_folder)
    _check_length(encoder, manifest, folder)
    model = TwoHeadModel(_with_merged_adapter(encoder, folder), len(manifest.topics))
    model.load_state_dict(_read_heads(folder, model, manifest), strict=False)
    model.eval().requires_grad_(False)
    tokenizer = load_tokenizer(base_folder)
    surprisals = _read_surprisals(folder, tokenizer.get_vocab_size())
    return Checkpoint(manifest, model, tokenizer, surprisals, hashlib.sha256(content).hexdigest()[:12])


def _check_files(folder: Path, manifest: Manifest) -> None:
    for name in WEIGHT_FILES:
        found = sha256_of(folder / name)
        if found != manifest.files[name]:
            raise ModelError(
                f"{folder / name} is not the file that {MANIFEST_FILE} lists (SHA-256 {found[:12]}…, not "
                f"{manifest.files[name][:12]}…): copy the whole checkpoint again"
            )


def _check_length(encoder: Any, manifest: Manifest, folder: Path) -> None:
    longest = int(getattr(encoder.config, "max_position_embeddings", manifest.max_tokens))
    if manifest.max_tokens > longest:
        raise ModelError(f"{folder / MANIFEST_FILE}: max_tokens is {manifest.max_tokens}, the base reads {longest} at most")


def read_tensors(path: Path) -> dict[str, Any]:
    """The tensors of a safetensors file. Raises ModelError when it is none, or holds a number that is not finite."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} cannot be read as safetensors: {error}; copy the whole checkpoint again") from error
    broken = sorted(name for name, tensor in tensors.items() if not bool(tensor.isfinite().all()))
    if broken:
        raise ModelError(f"{path} holds numbers that are not finite, in {', '.join(broken[:5])}: train the checkpoint again")
    return dict(tensors)


def _check_shapes(path: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raises ModelError unless both have the same names and shapes."""
    faults = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    faults += [f"{name} belongs nowhere" for name in sorted(found.keys() - wanted.keys())]
    faults += [
        f"{name} has shape {tuple(found[name].shape)}, not {tuple(wanted[name].shape)}"
        for name in sorted(found.keys() & wanted.keys())
        if found[name].shape != wanted[name].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise ModelError(f"{path} does not fit the base and the manifest: {'; '.join(faults[:3])}{more}")


def _with_merged_adapter(encoder: Any, folder: Path) -> Any:
    """The encoder with the adapter added into its weights: it costs nothing when texts are scored.

    Any adapter of peft that changes weights can be added (LoRA, DoRA, AdaLoRA, IA³, LoHa ...).
    """
    from peft import PeftConfig, get_peft_model_state_dict, set_peft_model_state_dict

    from monitor.classifier.model import attach

    tensors = read_tensors(folder / ADAPTER_FILE)
    with _pruned_ranks_are_no_fault():
        try:
            config = PeftConfig.from_pretrained(str(folder))
            _check_kind(config, folder / ADAPTER_CONFIG_FILE)
            adapted = attach(encoder, config)
        except (ValueError, TypeError, KeyError, OSError) as error:
            told = " ".join(str(error).split())[:300]
            raise ModelError(f"{folder / ADAPTER_CONFIG_FILE} does not fit the base: {told}") from error
        _check_shapes(folder / ADAPTER_FILE, tensors, get_peft_model_state_dict(adapted, save_embedding_layers=False))
        set_peft_model_state_dict(adapted, tensors)
        return adapted.merge_and_unload()


def _check_kind(config: Any, origin: Path) -> None:
    """Raises ModelError when the adapter adds tokens instead of changing weights."""
    if config.is_prompt_learning:
        raise ModelError(
            f"{origin}: an adapter of kind {config.peft_type.value} adds tokens to every text and cannot be merged into the base; "
            "train one that changes weights (LoRA, DoRA, AdaLoRA, IA³)"
        )


@contextmanager
def _pruned_ranks_are_no_fault() -> Iterator[None]:
    """Keeps peft from warning about what AdaLoRA is for: layers whose rank was pruned to nothing, and the pattern of ranks."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Adapter '.*LoRA tensor\(s\) have invalid shape")
        warnings.filterwarnings("ignore", "The following rank_pattern keys did not match any targeted module")
        yield


def _read_heads(folder: Path, model: Any, manifest: Manifest) -> dict[str, Any]:
    """The heads' tensors, the rows of the sentiment head brought into the order of `SENTIMENTS`."""
    tensors = read_tensors(folder / HEADS_FILE)
    wanted = {name: tensor for name, tensor in model.state_dict().items() if name.split(".")[0] in _HEADS}
    _check_shapes(folder / HEADS_FILE, tensors, wanted)
    order = [manifest.sentiments.index(label) for label in SENTIMENTS]
    for name in ("sentiment_head.weight", "sentiment_head.bias"):
        tensors[name] = tensors[name][order]
    return tensors


def _read_surprisals(folder: Path, vocabulary: int) -> Surprisals:
    import torch

    tensors = read_tensors(folder / SURPRISALS_FILE)
    _check_shapes(folder / SURPRISALS_FILE, tensors, {_SURPRISALS: torch.empty(vocabulary)})
    surprisals: Surprisals = tensors[_SURPRISALS].double().numpy()
    return surprisals


def round_as_stored(model: Any) -> None:
    """Rounds what a model's encoder has learned to the half precision that a checkpoint holds it in, so that what is measured now
    is what is loaded later. In place.
    """
    import torch

    with torch.no_grad():
        for parameter in model.encoder.parameters():
            if parameter.requires_grad:
                parameter.copy_(parameter.half().to(parameter.dtype))


def write_checkpoint(folder: Path, model: Any, surprisals: Surprisals, manifest: Manifest) -> Manifest:
    """Writes a `TwoHeadModel` whose encoder carries an adapter; the manifest's `files` are filled in, and it is given back.

    The adapter is stored in half precision: half the bytes, and a difference in the fourth digit of a logit (`round_as_stored`).
    So are the surprisals: their third decimal decides nothing.
    The manifest is written last: a folder with a manifest is complete. Raises ModelError when the adapter cannot be merged, and so
    could not be loaded.
    """
    import torch
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = model.encoder.active_peft_config
    _check_kind(config, folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST_FILE).unlink(missing_ok=True)
    with _pruned_ranks_are_no_fault():
        adapter = get_peft_model_state_dict(model.encoder, save_embedding_layers=False)
    save_file({name: tensor.detach().half().contiguous() for name, tensor in adapter.items()}, folder / ADAPTER_FILE)
    heads = {name: tensor for name, tensor in model.state_dict().items() if name.split(".")[0] in _HEADS}
    save_file({name: tensor.detach().float().contiguous() for name, tensor in heads.items()}, folder / HEADS_FILE)
    save_file({_SURPRISALS: torch.from_numpy(surprisals).half()}, folder / SURPRISALS_FILE)
    for name in (ADAPTER_FILE, HEADS_FILE, SURPRISALS_FILE):
        (folder / name).chmod(0o644)  # safetensors writes for the owner alone
    _write_adapter_config(folder, config, manifest.base.name)
    complete = replace(manifest, files={name: sha256_of(folder / name) for name in WEIGHT_FILES})
    (folder / MANIFEST_FILE).write_text(json.dumps(asdict(complete), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return complete


def _write_adapter_config(folder: Path, config: Any, base_name: str) -> None:
    """The form of peft itself, with the base's published name in place of a path on this machine, and in one order on every run."""
    config.save_pretrained(str(folder))
    path = folder / ADAPTER_CONFIG_FILE
    written = json.loads(path.read_text(encoding="utf-8"))
    written |= {"base_model_name_or_path": base_name, "inference_mode": True}
    written |= {name: sorted(written[name]) for name in _MODULE_SETS if isinstance(written.get(name), list)}
    path.write_text(json.dumps(written, indent=2, sort_keys=True) + "\n", encoding="utf-8")
