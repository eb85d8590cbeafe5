"""A base encoder and a checkpoint on it, random, tiny, made here: no test fetches anything."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from monitor.classifier.base_encoder import describe_base, sha256_of
from monitor.classifier.checkpoint import write_checkpoint
from monitor.classifier.familiarity import Surprisals, learn_surprisals
from monitor.classifier.manifest import (
    ADAPTER_FILE,
    FORMAT_VERSION,
    HEADS_FILE,
    MANIFEST_FILE,
    SURPRISALS_FILE,
    WEIGHT_FILES,
    Calibration,
    Manifest,
    Questions,
)
from monitor.classifier.model import TwoHeadModel, add_adapter, load_encoder
from monitor.classifier.text import NORMALISATION
from monitor.classifier.tokens import load_tokenizer

TOPICS = ("earnings", "credit", "weather")
WORDS = (
    "bank",
    "profit",
    "loss",
    "falls",
    "rises",
    "queue",
    "the",
    "of",
    "savings",
    "rumour",
    "halden",
    "gain",
    "to",
    "in",
    "a",
    "b",
)
MAX_TOKENS = 24
NAME = "invented/tiny"


def write_base(folder: Path, seed: int = 0, hidden: int = 32) -> Path:
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import BertConfig, BertModel

    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "##s", "##ing", "##a", *"$.,!0123456789", *WORDS]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    torch.manual_seed(seed)
    BertModel(
        BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=hidden,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=2 * hidden,
            max_position_embeddings=64,
            initializer_range=0.5,
        )
    ).save_pretrained(folder)
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])]
    )
    tokenizer.enable_truncation(8)
    tokenizer.enable_padding()
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def tiny_manifest(base: Path, **changes: Any) -> Manifest:
    described = {
        "format_version": FORMAT_VERSION,
        "created": "2026-11-25",
        "base": describe_base(base, NAME),
        "pooling": "mean",
        "normalisation": NORMALISATION,
        "max_tokens": MAX_TOKENS,
        "topics": TOPICS,
        "sentiments": ("negative", "neutral", "positive"),
        "calibration": Questions(Calibration(1.5, 0.4), Calibration(0.8, 0.5), Calibration(0.9, 0.45)),
        "out_of_domain_above": 9.0,
        "files": {},
        "data": (),
        "counts": {},
        "recipe": {},
        "seed": 1,
        "metrics": {},
        "epochs": (),
        "libraries": {},
    }
    return Manifest(**(described | changes))


def tiny_model(base: Path, seed: int = 0) -> TwoHeadModel:
    """With an adapter that changes something: a fresh one does not."""
    torch.manual_seed(seed)
    model = TwoHeadModel(add_adapter(load_encoder(base), rank=2, alpha=4), len(TOPICS))
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def tiny_surprisals(base: Path) -> Surprisals:
    """Of a training where every token stood once."""
    size = load_tokenizer(base).get_vocab_size()
    return learn_surprisals([range(size)], size)


def write_tiny_checkpoint(folder: Path, base: Path) -> Path:
    write_checkpoint(folder, tiny_model(base), tiny_surprisals(base), tiny_manifest(base))
    return folder


def copy_of(checkpoint: Path, folder: Path) -> Path:
    return Path(shutil.copytree(checkpoint, folder))


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / MANIFEST_FILE
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


def seal(folder: Path) -> None:
    """Makes the manifest agree with the files again."""
    edit_manifest(folder, lambda content: content.update(files={name: sha256_of(folder / name) for name in WEIGHT_FILES}))


def edit_tensors(folder: Path, file: str, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    assert file in {ADAPTER_FILE, HEADS_FILE, SURPRISALS_FILE}
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)
    seal(folder)


def write_sequence_classifier(folder: Path, labels: Sequence[str], family: str = "bert", seed: int = 0, **changes: Any) -> Path:
    """A random sequence-classification checkpoint of a family, published as transformers publishes one."""
    from tokenizers import Tokenizer
    from transformers import AutoConfig, AutoModelForSequenceClassification, PreTrainedTokenizerFast

    size = {
        "vocab_size": 40,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "initializer_range": 0.5,
        "id2label": dict(enumerate(labels)),
        "label2id": {label: place for place, label in enumerate(labels)},
    }
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **(size | changes)))
    for name, parameter in model.named_parameters():
        if "LayerNorm" in name or "layer_norm" in name:
            torch.nn.init.normal_(parameter, mean=float(name.endswith("weight")), std=0.1)
    model.save_pretrained(folder)
    write_base(folder / "words")
    tokenizer = Tokenizer.from_file(str(folder / "words" / "tokenizer.json"))
    shutil.rmtree(folder / "words")
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]", model_max_length=64
    ).save_pretrained(folder)
    return folder


def edit_config(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Changes the config.json of a published checkpoint."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
