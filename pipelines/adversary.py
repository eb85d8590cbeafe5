"""A model and a batch in, the gradients of a batch that is harder for it added to the gradients it has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from monitor.errors import PipelineError
from pipelines.recipe import Recipe


def push(model: Any, loss_of: Callable[[], Any], accelerator: Any, recipe: Recipe) -> None:
    """Adds the gradients of the pushed batch."""
    raise PipelineError(f"{recipe.adversary} is not built yet")
