"""The weights of an encoder of the BERT family to its states of packed tokens, with as little work as torch allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from monitor.classifier.packed_encoder import first_position, taken_apart
from monitor.classifier.packing import Packed

Attention = Callable[[Tensor, Packed, int], Tensor]
"""Query, key and value side by side (tokens, 3 * hidden), how they are packed, the number of heads: to (tokens, hidden)."""

_gelu_ = torch.ops.aten.gelu_
_gelu_tanh_ = partial(torch.ops.aten.gelu_, approximate="tanh")
_ACTIVATIONS: Final[dict[str, Callable[[Tensor], Tensor]]] = {
    "gelu": _gelu_,
    "gelu_python": _gelu_,
    "gelu_new": _gelu_tanh_,
    "gelu_pytorch_tanh": _gelu_tanh_,
    "gelu_python_tanh": _gelu_tanh_,
    "relu": torch.relu_,
}

_FLASH_CAPABILITY: Final = (8, 0)
_FLASH_HEAD: Final = 256


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, states: Tensor) -> Tensor:
        return functional.layer_norm(states, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True, slots=True)
class _Linear:
    weight: Tensor
    bias: Tensor | None

    def __call__(self, states: Tensor) -> Tensor:
        return functional.linear(states, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class _Layer:
    queries_keys_values: _Linear
    attended: _Linear
    attended_norm: _Norm
    widened: _Linear
    narrowed: _Linear
    narrowed_norm: _Norm


class FusedEncoder:
    """An encoder for inference alone: query, key and value in one matrix, additions and activations in place.

    It says what `packed_encoder.encode` says of the same weights, to the rounding of its precision. On CUDA in half precision
    the rows of all lengths are attended to by one kernel, elsewhere each run of equal lengths by one.
    """

    def __init__(self, encoder: Any, device: str = "cpu", precision: torch.dtype = torch.float32) -> None:
        """Takes what `can_fuse` says yes to. Weights that stay where and as they are are shared with it and not copied."""
        inner = taken_apart(encoder)
        assert inner is not None

        def moved(tensor: Tensor) -> Tensor:
            return tensor.detach().to(device, precision)

        def linear(*modules: nn.Linear) -> _Linear:
            weights, biases = [moved(one.weight) for one in modules], [moved(one.bias) for one in modules]
            return _Linear(weights[0], biases[0]) if len(modules) == 1 else _Linear(torch.cat(weights), torch.cat(biases))

        def norm(module: nn.LayerNorm) -> _Norm:
            return _Norm(moved(module.weight), moved(module.bias), module.eps)

        embeddings = inner.embeddings
        self.heads = int(inner.config.num_attention_heads)
        self._words = moved(embeddings.word_embeddings.weight)
        # Every token is of type 0, so its type and its position are one vector.
        types = embeddings.token_type_embeddings.weight[0]
        self._places = moved(embeddings.position_embeddings.weight[first_position(inner.config) :] + types)
        self._norm = norm(embeddings.LayerNorm)
        self._projection = linear(inner.embeddings_project) if hasattr(inner, "embeddings_project") else None
        self._activate = _ACTIVATIONS[inner.config.hidden_act]
        self._layers = tuple(
            _Layer(
                queries_keys_values=linear(*(getattr(layer.attention.self, name) for name in ("query", "key", "value"))),
                attended=linear(layer.attention.output.dense),
                attended_norm=norm(layer.attention.output.LayerNorm),
                widened=linear(layer.intermediate.dense),
                narrowed=linear(layer.output.dense),
                narrowed_norm=norm(layer.output.LayerNorm),
            )
            for layer in inner.encoder.layer
        )
        self.attend = attention_for(device, precision, int(inner.config.hidden_size) // self.heads)

    @torch.inference_mode()
    def __call__(self, packed: Packed) -> Tensor:
        """The last hidden states (tokens, hidden) of all tokens, in the encoder's precision. `packed` is on its device."""
        states = functional.embedding(packed.token_ids, self._words)
        states = self._norm(states.add_(functional.embedding(packed.positions, self._places)))
        if self._projection is not None:
            states = self._projection(states)
        for layer in self._layers:
            attended = self.attend(layer.queries_keys_values(states), packed, self.heads)
            states = layer.attended_norm(layer.attended(attended).add_(states))
            states = layer.narrowed_norm(layer.narrowed(self._activate(layer.widened(states))).add_(states))
        return states


def can_fuse(encoder: Any) -> bool:
    """Whether `FusedEncoder` computes what this encoder computes: the BERT family, plain linear layers, an activation it knows."""
    inner = taken_apart(encoder)
    if inner is None or inner.config.hidden_act not in _ACTIVATIONS:
        return False
    linear = [getattr(inner, "embeddings_project", nn.Identity())]
    for layer in inner.encoder.layer:
        attention = layer.attention
        linear += [attention.self.query, attention.self.key, attention.self.value]
        linear += [attention.output.dense, layer.intermediate.dense, layer.output.dense]
    # An adapter that is not merged, or a layer in whole numbers, is another type.
    return all(type(module) in {nn.Linear, nn.Identity} for module in linear)


def attention_for(device: str, precision: torch.dtype, head: int) -> Attention:
    """The fastest attention that is there for a device, a precision and a head of this many numbers."""
    half = precision in {torch.float16, torch.bfloat16}
    if device == "cpu" or not half or head % 8 or head > _FLASH_HEAD or find_spec("torch.nn.attention.varlen") is None:
        return attend_by_run
    return attend_at_once if torch.cuda.get_device_capability(device) >= _FLASH_CAPABILITY else attend_by_run


def attend_by_run(mixed: Tensor, packed: Packed, heads: int) -> Tensor:
    """Attention within each row, rows of one length together, so that nothing is masked."""
    hidden = mixed.shape[1] // 3
    attended = mixed.new_empty((mixed.shape[0], hidden))
    start = 0
    for rows, length in packed.runs:
        until = start + rows * length
        query, key, value = mixed[start:until].view(rows, length, 3, heads, hidden // heads).permute(2, 0, 3, 1, 4)
        found = functional.scaled_dot_product_attention(query, key, value)
        attended[start:until].view(rows, length, heads, hidden // heads).copy_(found.transpose(1, 2))
        start = until
    return attended


def attend_at_once(mixed: Tensor, packed: Packed, heads: int) -> Tensor:
    """Attention within each row, all rows in one kernel of FlashAttention (Dao, arXiv:2307.08691): CUDA, half precision."""
    from torch.nn.attention.varlen import varlen_attn

    tokens, longest = mixed.shape[0], packed.runs[0][1]
    query, key, value = mixed.view(tokens, 3, heads, -1).unbind(1)
    found = varlen_attn(query, key, value, packed.starts, packed.starts, longest, longest)
    assert isinstance(found, Tensor)
    return found.reshape(tokens, -1)
