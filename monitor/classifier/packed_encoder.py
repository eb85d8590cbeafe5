"""Packed token ids to the states of an encoder, without a token of padding where the encoder is one that we can take apart."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from monitor.classifier.packing import Packed

_FAMILIES: Final = {"bert", "electra", "roberta", "xlm-roberta", "camembert"}
_POSITIONS_AFTER_PADDING: Final = {"roberta", "xlm-roberta", "camembert"}


def taken_apart(encoder: nn.Module) -> Any | None:
    """The encoder under any adapter, when it is built as BERT is and reads absolute positions; else None."""
    adapted: Any = encoder
    inner = adapted.get_base_model() if hasattr(adapted, "get_base_model") else adapted
    config = getattr(inner, "config", None)
    known = getattr(config, "model_type", "") in _FAMILIES and hasattr(inner, "embeddings") and hasattr(inner, "encoder")
    both_ways = not getattr(config, "is_decoder", False)
    absolute = getattr(config, "position_embedding_type", "absolute") in {"absolute", None}
    prompted = bool(getattr(getattr(adapted, "active_peft_config", None), "is_prompt_learning", False))
    return inner if known and both_ways and absolute and not prompted else None


def encode(encoder: nn.Module, packed: Packed) -> Tensor:
    """The last hidden states (tokens, hidden) of all tokens, for training and for any encoder.

    An encoder of the BERT family runs packed: its linear layers see one matrix of all tokens, attention runs over each run of
    equal lengths. Any other runs its own forward pass on padded rows.
    """
    inner = taken_apart(encoder)
    return _encode_padded(encoder, packed) if inner is None else _encode_packed(inner, packed)


def first_position(config: Any) -> int:
    """The position of a row's first token: RoBERTa counts from behind the padding id, BERT from 0."""
    return int(config.pad_token_id) + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0


def _encode_packed(encoder: Any, packed: Packed) -> Tensor:
    embeddings, config = encoder.embeddings, encoder.config
    states = (
        embeddings.word_embeddings(packed.token_ids)
        + embeddings.position_embeddings(packed.positions + first_position(config))
        + embeddings.token_type_embeddings.weight[0]
    )
    states = embeddings.dropout(embeddings.LayerNorm(states))
    if hasattr(encoder, "embeddings_project"):
        states = encoder.embeddings_project(states)
    heads = int(config.num_attention_heads)
    for layer in encoder.encoder.layer:
        attention = layer.attention
        query, key, value = (getattr(attention.self, name)(states) for name in ("query", "key", "value"))
        attended = attend(query, key, value, heads, packed.runs)
        states = attention.output(attended, states)
        states = layer.output(layer.intermediate(states), states)
    return torch.as_tensor(states)


def attend(query: Tensor, key: Tensor, value: Tensor, heads: int, runs: tuple[tuple[int, int], ...]) -> Tensor:
    """Attention (tokens, hidden) within each row. Rows of one length are attended to together, so that nothing is masked."""
    hidden = query.shape[1]
    parts, start = [], 0
    for rows, length in runs:
        cut = slice(start, start + rows * length)
        one, other, content = (
            tensor[cut].view(rows, length, heads, hidden // heads).transpose(1, 2) for tensor in (query, key, value)
        )
        mixed = functional.scaled_dot_product_attention(one, other, content)
        parts.append(mixed.transpose(1, 2).reshape(rows * length, hidden))
        start += rows * length
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _encode_padded(encoder: nn.Module, packed: Packed) -> Tensor:
    longest = packed.runs[0][1]
    places = torch.arange(longest, device=packed.lengths.device)
    mask = places[None, :] < packed.lengths[:, None]
    padded = torch.full(mask.shape, padding_id(encoder), dtype=torch.long, device=mask.device)
    padded[mask] = packed.token_ids
    states = encoder(input_ids=padded, attention_mask=mask.long()).last_hidden_state
    return torch.as_tensor(states[mask])


def padding_id(encoder: Any) -> int:
    """The id that fills a row up; its value is masked and decides nothing."""
    return int(getattr(encoder.config, "pad_token_id", None) or 0)
