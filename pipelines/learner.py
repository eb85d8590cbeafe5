"""A base encoder and a recipe in, the two-head model out of which only what the recipe names learns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monitor.errors import PipelineError
from pipelines.recipe import Recipe


def build_model(base: Path, topics: int, recipe: Recipe, steps: int) -> Any:
    """The model on the base encoder with fresh heads and, but for method "full", a fresh adapter. `steps` are those of the run.

    Raises PipelineError when the recipe does not fit the base.
    """
    from monitor.classifier.model import TwoHeadModel, load_encoder

    encoder = load_encoder(base)
    for name, module in encoder.named_modules():
        if name.endswith("attention.self.dropout"):
            module.p = 0.0
        elif name.endswith("dropout"):
            module.p = recipe.dropout
    if recipe.checkpoint_layers:
        encoder.gradient_checkpointing_enable()
    adapted = _all_layers(encoder, recipe) if recipe.method == "full" else _adapter(encoder, recipe, steps)
    return TwoHeadModel(adapted, topics, recipe.dropout)


def _all_layers(encoder: Any, recipe: Recipe) -> Any:
    """Everything above the embeddings learns: rare words keep what the base knows of them."""
    encoder.embeddings.requires_grad_(False)
    layers = encoder.encoder.layer
    if recipe.frozen_layers > len(layers):
        raise PipelineError(f"frozen_layers is {recipe.frozen_layers}, the base has {len(layers)} layers")
    for layer in layers[: recipe.frozen_layers]:
        layer.requires_grad_(False)
    return encoder


def _adapter(encoder: Any, recipe: Recipe, steps: int) -> Any:
    from peft import LoraConfig

    from monitor.classifier.model import attach, linear_layers

    del steps
    if recipe.method not in {"lora", "dora"}:
        raise PipelineError(f"{recipe.method} is not built yet")
    return attach(
        encoder,
        LoraConfig(
            r=recipe.rank,
            lora_alpha=int(recipe.alpha),
            target_modules=linear_layers(encoder),
            use_dora=recipe.method == "dora",
            task_type="FEATURE_EXTRACTION",
        ),
    )


def shippable(model: Any, base: Path, recipe: Recipe) -> Any:
    """The model in the form that a checkpoint holds: what was learned as an adapter on the base."""
    del base
    if recipe.method == "full":
        raise PipelineError("full is not built yet")
    return model
