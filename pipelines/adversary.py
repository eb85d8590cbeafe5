"""A model and a batch in, the gradients of a batch that is harder for it added to the gradients it has.

FGM and PGD push the word embeddings of the batch in the direction in which the loss grows, each token by a step of its own length;
what the text says stays, what the encoder reads is worse. AWP pushes the weights themselves. Afterwards everything is as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from pipelines.recipe import Recipe

TINY: Final = 1e-12


def push(model: Any, loss_of: Callable[[], Any], accelerator: Any, recipe: Recipe) -> None:
    """Adds the gradients of the pushed batch to those of the learning weights. No weight changes.

    `loss_of` runs the model on the batch. All passes have the same dropout, so that the push meets the network it was made for.
    AWP needs the gradients of the batch as it is to be there already.
    """
    if recipe.adversary == "awp":
        with pushed_weights(accelerator.unwrap_model(model), recipe.adversary_size):
            _learn(loss_of, accelerator)
        return
    embeddings = accelerator.unwrap_model(model).encoder.get_input_embeddings()
    shift = None
    # FGM is one step of the full length, PGD several shorter ones that lead further than the limit and are cut back to it.
    steps = 1 if recipe.adversary == "fgm" else recipe.adversary_steps
    length = recipe.adversary_size if steps == 1 else 2.5 * recipe.adversary_size / steps
    for _ in range(steps):
        with same_random(accelerator.device), accelerator.no_sync(model):
            shift = _further(shift, loss_of, embeddings, accelerator, length)
        shift = _within(shift, recipe.adversary_size)
    with shifted(embeddings, shift):
        _learn(loss_of, accelerator)


def _learn(loss_of: Callable[[], Any], accelerator: Any) -> None:
    with accelerator.autocast():
        loss = loss_of()
    accelerator.backward(loss)


def _further(shift: Any | None, loss_of: Callable[[], Any], embeddings: Any, accelerator: Any, length: float) -> Any:
    """The shift (tokens, hidden) after a step uphill: each token goes `length` along its own gradient.

    FGM: Miyato et al. 2017, arXiv:1605.07725. PGD: Madry et al. 2018, arXiv:1706.06083.
    """
    import torch

    with watched(embeddings, shift) as seen, accelerator.autocast():
        loss = loss_of()
    if accelerator.scaler is not None:
        loss = accelerator.scaler.scale(loss)
    # A consistency loss runs the model twice: the same tokens are embedded twice, and pushed as one.
    uphill = torch.stack(torch.autograd.grad(loss, seen)).sum(dim=0).float()
    uphill = torch.nan_to_num(uphill, nan=0.0, posinf=0.0, neginf=0.0)
    step = length * uphill / uphill.norm(dim=-1, keepdim=True).clamp(min=TINY)
    return step if shift is None else shift + step


def _within(shift: Any, size: float) -> Any:
    """The shift with every token's part cut to `size`."""
    return shift * (size / shift.norm(dim=-1, keepdim=True).clamp(min=TINY)).clamp(max=1.0)


@contextmanager
def watched(embeddings: Any, shift: Any | None) -> Iterator[list[Any]]:
    """Within it the embeddings give leaves of a graph of their own, shifted; the list has them, to ask for their gradients."""
    seen: list[Any] = []

    def hook(_: Any, __: Any, states: Any) -> Any:
        leaf = (states.detach() if shift is None else states.detach() + shift.to(states.dtype)).requires_grad_()
        seen.append(leaf)
        return leaf

    handle = embeddings.register_forward_hook(hook)
    try:
        yield seen
    finally:
        handle.remove()


@contextmanager
def shifted(embeddings: Any, shift: Any) -> Iterator[None]:
    """Within it the embeddings give what they give, plus the shift."""
    handle = embeddings.register_forward_hook(lambda _, __, states: states + shift.to(states.dtype))
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def pushed_weights(model: Any, size: float) -> Iterator[None]:
    """Within it every learning matrix lies `size` of its own norm further along its gradient (Wu et al. 2020, arXiv:2004.05884).

    What has no gradient, or is all zeros, stays. Afterwards the weights are what they were, to the bit.
    """
    import torch

    kept: list[tuple[Any, Any]] = []
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad and parameter.grad is not None and parameter.ndim > 1:
                steepness = parameter.grad.norm()
                if bool(torch.isfinite(steepness)) and float(steepness) > 0:
                    kept.append((parameter, parameter.detach().clone()))
                    parameter.add_(parameter.grad * (size * parameter.norm() / steepness))
    try:
        yield
    finally:
        with torch.no_grad():
            for parameter, before in kept:
                parameter.copy_(before)


@contextmanager
def same_random(device: Any) -> Iterator[None]:
    """What is drawn within it will be drawn again behind it."""
    import torch

    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield
