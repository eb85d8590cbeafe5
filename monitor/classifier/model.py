"""Packed token ids to the logits of two heads on one shared encoder; and encoders and adapters from their folders."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from monitor.classifier.packed_encoder import Entering, encode
from monitor.classifier.packing import Packed, mean_per_segment
from monitor.errors import ModelError
from monitor.types import SENTIMENTS


@dataclass(frozen=True, slots=True)
class Logits:
    """`topic` (rows, topics) and `sentiment` (rows, 3) of the rows, `toward` (targets, 3) of the targets; in packed order."""

    topic: Tensor
    sentiment: Tensor
    toward: Tensor


class TwoHeadModel(nn.Module):
    """A shared encoder and one linear layer per question.

    A row means the mean of its states, and a target the mean of the states that name it. The topic is read off the row. The
    sentiment is read off two meanings side by side, that of whom it is about and that of the row; the sentiment of a text as a
    whole is the sentiment toward everything in it. So one pass answers for the text and for every entity in it.

    The mean is taken and not the first token: every encoder has one, the same way of reading serves row and target, and a linear
    probe of the shipped base found no less in it.
    """

    def __init__(self, encoder: nn.Module, topics: int, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.topic_head = nn.Linear(hidden, topics)
        self.sentiment_head = nn.Linear(2 * hidden, len(SENTIMENTS))

    def forward(self, packed: Packed, entering: Entering | None = None) -> Logits:
        """The logits of every row and target; with `entering` the layers below it are not computed."""
        return self.answer(encode(self.encoder, packed, entering), packed)

    def answer(self, states: Tensor, packed: Packed) -> Logits:
        """The logits that the encoder's states (tokens, hidden) give."""
        rows = self.dropout(mean_per_segment(states, packed.lengths))
        targets = self.dropout(mean_per_segment(states[packed.target_tokens], packed.target_lengths))
        return Logits(
            topic=self.topic_head(rows),
            sentiment=self.sentiment_head(torch.cat([rows, rows], dim=1)),
            toward=self.sentiment_head(torch.cat([targets, rows[packed.target_rows]], dim=1)),
        )


def load_encoder(folder: Path) -> Any:
    """The encoder of a folder in the Hugging Face form, in fp32, without its pooling layer, nothing fetched.

    Raises ModelError when the folder is unreadable or lacks weights of the encoder.
    """
    from transformers import AutoModel

    with _quietly():
        try:
            encoder, found = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, KeyError) as error:
            raise ModelError(f"{folder} holds no encoder that can be loaded: {' '.join(str(error).split())[:300]}") from error
    missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ModelError(f"{folder} lacks weights of its encoder: {', '.join(missing[:5])}")
    encoder.pooler = None
    copy_weights(encoder)
    return encoder


def copy_weights(model: nn.Module) -> None:
    """Copies a model's weights out of the files that they are mapped from.

    Then whoever writes over these files, or cuts them off, changes no answer and ends no process.
    """
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.clone()


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the bars and reports of transformers: what is missing is checked here, and a pooler is not missed."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)


def linear_layers(encoder: nn.Module) -> list[str]:
    """The names of all linear layers of an encoder, in order: where a low-rank adapter is put."""
    return [name for name, module in encoder.named_modules() if isinstance(module, nn.Linear)]


def add_adapter(encoder: nn.Module, rank: int, alpha: int) -> Any:
    """The encoder with a fresh low-rank adapter on each of its linear layers; nothing but the adapter learns."""
    from peft import LoraConfig

    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=linear_layers(encoder), task_type="FEATURE_EXTRACTION")
    return attach(encoder, config)


def attach(encoder: nn.Module, config: Any) -> Any:
    """The encoder with a fresh adapter of peft's `config`. Raises ValueError when the config names layers that are not there."""
    from peft import get_peft_model

    with warnings.catch_warnings():
        # peft asks transformers in a form that a later transformers will not answer; its version is bounded in pyproject.toml.
        warnings.simplefilter("ignore", FutureWarning)
        # It also warns that the base has a path here and a name there: the base was checked by its hash.
        warnings.filterwarnings("ignore", "The PEFT config's `base_model_name_or_path`", UserWarning)
        return get_peft_model(encoder, config)
