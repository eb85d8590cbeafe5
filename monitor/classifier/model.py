"""Token ids to the logits of two heads on one shared encoder, and the loss that trains them."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from monitor.errors import ModelError
from monitor.types import SENTIMENTS

UNLABELLED: Final = -100
"""The label of an example that says nothing about a head."""


class TwoHeadModel(nn.Module):
    """An encoder of the BERT family, mean pooling over the real tokens, and one linear layer per question.

    The mean is taken and not the first token because the base encoder was itself trained to put the meaning of a text there; the
    first token of all-MiniLM-L6-v2 means nothing in particular.
    """

    def __init__(self, encoder: nn.Module, topics: int, dropout: float = 0.1) -> None:
        super().__init__()
        hidden = int(encoder.config.hidden_size)  # type: ignore[union-attr, arg-type]
        self.encoder = encoder
        self.dropout = nn.Dropout(dropout)
        self.topic_head = nn.Linear(hidden, topics)
        self.sentiment_head = nn.Linear(hidden, len(SENTIMENTS))

    def forward(self, token_ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Topic logits (texts, topics) and sentiment logits (texts, 3); for token ids and mask (texts, tokens; 1: real)."""
        states = self.encoder(input_ids=token_ids, attention_mask=mask).last_hidden_state
        pooled = self.dropout(mean_of_real_tokens(states, mask))
        return self.topic_head(pooled), self.sentiment_head(pooled)


def mean_of_real_tokens(states: Tensor, mask: Tensor) -> Tensor:
    """The mean (texts, hidden) of the states (texts, tokens, hidden) where `mask` is 1; zero for a text without tokens."""
    weights = mask.unsqueeze(-1).to(states.dtype)
    # A masked state can be NaN (attention over nothing), and NaN times zero is NaN.
    return states.masked_fill(weights == 0, 0.0).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def masked_loss(
    topic_logits: Tensor,
    sentiment_logits: Tensor,
    *,
    topics: Tensor,
    sentiments: Tensor,
    topic_weights: Tensor | None = None,
) -> Tensor:
    """The cross-entropy per label given: an example labelled for one head (the other says `UNLABELLED`) teaches that head only.

    Every label weighs the same whichever head it belongs to, times the weight of its topic; zero when there is no label at all.
    """
    topic_sum = functional.cross_entropy(topic_logits, topics, weight=topic_weights, ignore_index=UNLABELLED, reduction="sum")
    sentiment_sum = functional.cross_entropy(sentiment_logits, sentiments, ignore_index=UNLABELLED, reduction="sum")
    labels = (topics != UNLABELLED).sum() + (sentiments != UNLABELLED).sum()
    return (topic_sum + sentiment_sum) / labels.clamp(min=1)


def load_encoder(folder: Path) -> Any:
    """The encoder of a folder in the Hugging Face form, in fp32, without its pooling layer, nothing fetched.

    Raises ModelError when the folder is unreadable or lacks weights of the encoder.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        encoder, found = AutoModel.from_pretrained(folder, local_files_only=True, dtype=torch.float32, output_loading_info=True)
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        raise ModelError(f"{folder} holds no encoder that can be loaded: {' '.join(str(error).split())[:300]}") from error
    missing = sorted(name for name in found["missing_keys"] if not name.startswith("pooler."))
    if missing:
        raise ModelError(f"{folder} lacks weights of its encoder: {', '.join(missing[:5])}")
    encoder.pooler = None
    return encoder


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


def pad(rows: Sequence[tuple[int, ...]], padding_id: int = 0) -> tuple[Tensor, Tensor]:
    """Token ids and mask, both (texts, longest), of rows of different lengths; at least one column."""
    longest = max(1, max(map(len, rows), default=0))
    token_ids = torch.tensor([[*row, *[padding_id] * (longest - len(row))] for row in rows], dtype=torch.long)
    mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows], dtype=torch.long)
    return token_ids, mask
