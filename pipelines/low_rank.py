"""Linear layers with a low-rank adapter in, the same layers out that make their sums in fewer passes over memory.

On a CPU the small products of an adapter cost little, but adding them to the large result of the layer, scaled, reads and writes
that result again and again, on the way there and on the way back. Here they are added by the product itself.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class LowRankLinear(torch.autograd.Function):
    """x W' + b + s (x A') B', with the gradients of x, A and B; W and b do not learn."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scaling: float) -> Tensor:  # noqa: PLR0917 (autograd passes them so)
        """For x (tokens, in), W (out, in), b (out), A (rank, in), B (out, rank): (tokens, out)."""
        inner = x @ down.T
        result = functional.linear(x, weight, bias)
        result.addmm_(inner, up.T, alpha=scaling)
        ctx.save_for_backward(x, weight, down, up, inner)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        """The gradients, in the order of what `forward` takes."""
        (grad,) = grads
        x, weight, down, up, inner = ctx.saved_tensors
        through = (grad @ up).mul_(ctx.scaling)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight
            grad_x.addmm_(through, down)
        return grad_x, None, None, through.T @ x, (grad.T @ inner).mul_(ctx.scaling), None


def fuse(model: Any) -> int:
    """Lets every plain low-rank layer of a model compute through `LowRankLinear`; how many there are.

    Weights, their names and what peft does with them stay as they are. Left alone are layers with dropout of their own or of
    another kind (DoRA), and layers whose base learns.
    """
    from peft.tuners.lora import Linear

    fused = 0
    module: Any
    for module in model.modules():
        if type(module) is not Linear or len(module.active_adapters) != 1:
            continue
        (name,) = module.active_adapters
        learns = any(parameter.requires_grad for parameter in module.get_base_layer().parameters())
        plain = type(module.get_base_layer()) is torch.nn.Linear and isinstance(module.lora_dropout[name], torch.nn.Identity)
        if plain and not learns and name not in module.lora_variant and not module.lora_bias[name]:
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]
            fused += 1
    return fused


def _forward(self: Any, x: Tensor) -> Tensor:
    layer, (name,) = self.get_base_layer(), self.active_adapters
    if self.merged or self.disable_adapters:
        return type(self).forward(self, x)  # type: ignore[no-any-return]
    down, up = self.lora_A[name].weight, self.lora_B[name].weight
    return LowRankLinear.apply(x, layer.weight, layer.bias, down, up, self.scaling[name])  # type: ignore[no-any-return, no-untyped-call]
