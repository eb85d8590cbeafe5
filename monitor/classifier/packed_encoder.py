"""Packed token ids to the states of an encoder, without a token of padding where the encoder is one that we can take apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

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


@dataclass(frozen=True, slots=True)
class Entering:
    """The states (tokens, hidden) that enter layer number `layer`, counted from 0, of an encoder that was taken apart."""

    states: Tensor
    layer: int


def encode(encoder: nn.Module, packed: Packed, entering: Entering | None = None) -> Tensor:
    """The last hidden states (tokens, hidden) of all tokens, for training and for any encoder.

    An encoder of the BERT family runs packed: its linear layers see one matrix of all tokens, attention runs over each run of
    equal lengths; with `entering` it starts there. Any other runs its own forward pass on padded rows.
    """
    inner = taken_apart(encoder)
    if inner is None:
        return _encode_padded(encoder, packed)
    entering = entering or Entering(_embed(inner, packed), 0)
    return _through(inner, packed, entering, until=len(inner.encoder.layer))


def entering(encoder: nn.Module, packed: Packed, layer: int) -> Entering:
    """What enters a layer of an encoder that `taken_apart` takes."""
    inner = taken_apart(encoder)
    assert inner is not None
    return Entering(_through(inner, packed, Entering(_embed(inner, packed), 0), until=layer), layer)


def first_position(config: Any) -> int:
    """The position of a row's first token: RoBERTa counts from behind the padding id, BERT from 0."""
    return int(config.pad_token_id) + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0


def _embed(encoder: Any, packed: Packed) -> Tensor:
    embeddings, config = encoder.embeddings, encoder.config
    states = (
        embeddings.word_embeddings(packed.token_ids)
        + embeddings.position_embeddings(packed.positions + first_position(config))
        + embeddings.token_type_embeddings.weight[0]
    )
    states = embeddings.dropout(embeddings.LayerNorm(states))
    return torch.as_tensor(encoder.embeddings_project(states) if hasattr(encoder, "embeddings_project") else states)


def _through(encoder: Any, packed: Packed, entering: Entering, until: int) -> Tensor:
    """The states after the layers from `entering` up to `until`, which is not passed."""
    states, heads = entering.states, int(encoder.config.num_attention_heads)
    for layer in encoder.encoder.layer[entering.layer : until]:
        if encoder.training and layer.gradient_checkpointing:
            states = checkpoint(_layer, layer, states, heads, packed.runs, use_reentrant=False)
        else:
            states = _layer(layer, states, heads, packed.runs)
    return states


def _layer(layer: Any, states: Tensor, heads: int, runs: tuple[tuple[int, int], ...]) -> Tensor:
    attention = layer.attention
    query, key, value = (getattr(attention.self, name)(states) for name in ("query", "key", "value"))
    states = attention.output(attend(query, key, value, heads, runs), states)
    return torch.as_tensor(layer.output(layer.intermediate(states), states))


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
