"""A base encoder and a recipe in, the two-head model out of which only what the recipe names learns."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from monitor.errors import PipelineError
from pipelines.recipe import Recipe

ORTHOGONALITY: Final = 0.5
"""Weight of AdaLoRA's wish that its matrices stay orthogonal, as its authors have it."""


def build_model(base: Path, topics: int, recipe: Recipe, steps: int) -> Any:
    """The model on the base encoder with fresh heads and, but for method "full", a fresh adapter.

    `steps` are the optimiser's steps in the whole run; AdaLoRA plans its ranks by them. Raises PipelineError when the recipe does
    not fit the base.
    """
    from monitor.classifier.model import TwoHeadModel, load_encoder

    encoder = load_encoder(base)
    for name, module in encoder.named_modules():
        if name.endswith("attention.self.dropout"):
            module.p = 0.0
        elif name.endswith("dropout"):
            module.p = recipe.layer_dropout
    if recipe.checkpoint_layers:
        encoder.gradient_checkpointing_enable()
    layers = int(getattr(encoder.config, "num_hidden_layers", 0))
    if recipe.frozen_layers >= max(layers, 1):
        raise PipelineError(f"frozen_layers is {recipe.frozen_layers}, the base has {layers} layers: leave one that learns")
    adapted = _all_layers(encoder, recipe) if recipe.method == "full" else _adapter(encoder, recipe, steps)
    return TwoHeadModel(adapted, topics, recipe.dropout)


def learning_weights(model: Any) -> int:
    """How many numbers learn."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


# --- full ----------------------------------------------------------------------------------------


def _all_layers(encoder: Any, recipe: Recipe) -> Any:
    """Everything above the embeddings learns: rare words keep what the base knows of them."""
    layers = getattr(getattr(encoder, "encoder", None), "layer", None)
    if layers is None or not hasattr(encoder, "embeddings"):
        raise PipelineError(f"method full knows encoders built as BERT is, not {type(encoder).__name__}: take an adapter")
    encoder.embeddings.requires_grad_(False)
    for layer in layers[: recipe.frozen_layers]:
        layer.requires_grad_(False)
    return encoder


def shippable(model: Any, base: Path, recipe: Recipe) -> Any:
    """The model in the form that a checkpoint holds: what was learned as an adapter on the base.

    An adapter stays as it is. Of a model whose layers all learned, the difference to the base becomes a low-rank adapter: per
    linear layer the best one of rank `recipe.rank` (a truncated singular value decomposition; Eckart and Young 1936), so what it
    answers is near to what the model answered, and the nearer the higher the rank. Biases and norms are kept whole.
    """
    return model if recipe.method != "full" else _as_adapter(model, base, recipe.rank)


def _as_adapter(model: Any, base: Path, rank: int) -> Any:
    import torch
    from peft import LoraConfig

    from monitor.classifier.model import TwoHeadModel, attach, linear_layers, load_encoder

    learned = model.encoder
    encoder = load_encoder(base).to(model.topic_head.weight.device)
    config = LoraConfig(
        r=rank,
        lora_alpha=rank,
        target_modules=linear_layers(encoder),
        modules_to_save=["LayerNorm"],
        bias="lora_only",
        task_type="FEATURE_EXTRACTION",
    )
    adapted = attach(encoder, config)
    module: Any
    with torch.no_grad():
        for name, module in adapted.get_base_model().named_modules():
            if hasattr(module, "lora_A"):
                own, base_layer = learned.get_submodule(name), module.get_base_layer()
                down, up = low_rank(own.weight - base_layer.weight, rank)
                module.lora_A["default"].weight.copy_(down)
                module.lora_B["default"].weight.copy_(up)
                if own.bias is not None:
                    base_layer.bias.copy_(own.bias)
            elif hasattr(module, "modules_to_save"):
                module.modules_to_save["default"].load_state_dict(learned.get_submodule(name).state_dict())
    shipped = TwoHeadModel(adapted, model.topic_head.out_features, model.dropout.p)
    shipped.topic_head, shipped.sentiment_head = model.topic_head, model.sentiment_head
    return shipped.train(model.training)


def low_rank(matrix: Any, rank: int) -> tuple[Any, Any]:
    """Two matrices (rank, columns) and (rows, rank) whose product `second @ first` is the nearest to `matrix` of this rank."""
    import torch

    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    kept = min(rank, len(values))
    root = values[:kept].sqrt()
    first = matrix.new_zeros((rank, matrix.shape[1]))
    second = matrix.new_zeros((matrix.shape[0], rank))
    first[:kept] = (root[:, None] * right[:kept]).to(matrix.dtype)
    second[:, :kept] = (left[:, :kept] * root).to(matrix.dtype)
    return first, second


# --- adapters ------------------------------------------------------------------------------------


def _adapter(encoder: Any, recipe: Recipe, steps: int) -> Any:
    from monitor.classifier.model import attach
    from pipelines.low_rank import fuse

    adapted = attach(encoder, _configuration(encoder, recipe, steps))
    if recipe.method == "lora" and recipe.precision == "no":
        fuse(adapted)
    return adapted


def _configuration(encoder: Any, recipe: Recipe, steps: int) -> Any:
    """The configuration, in the terms of peft, of the method on this encoder."""
    from peft import AdaLoraConfig, LoraConfig, PrefixTuningConfig

    from monitor.classifier.model import linear_layers

    kind = "FEATURE_EXTRACTION"
    names = linear_layers(encoder)
    match recipe.method:
        case "adalora":
            # The budget falls from half as much again to the recipe's rank: the first tenth of the steps with all of it, the last
            # fifth with what is left (Zhang et al. 2023, arXiv:2303.10512).
            return AdaLoraConfig(
                init_r=math.ceil(1.5 * recipe.rank) if recipe.rank > 1 else 2,
                target_r=recipe.rank,
                lora_alpha=int(recipe.alpha),
                tinit=steps // 10,
                tfinal=steps // 5,
                deltaT=max(1, steps // 100),
                total_step=max(1, steps),
                target_modules=names,
                task_type=kind,
            )
        case "ia3":
            return _scales(encoder, names)
        case "prefix":
            # Read before every layer by the encoder's own forward pass on padded rows: nothing of it can be packed or merged.
            return PrefixTuningConfig(num_virtual_tokens=recipe.rank, task_type=kind)
        case _:
            return LoraConfig(
                r=recipe.rank,
                lora_alpha=int(recipe.alpha),
                target_modules=[name for name in names if _layer_number(name) >= recipe.frozen_layers],
                use_dora=recipe.method == "dora",
                task_type=kind,
            )


def _layer_number(name: str) -> int:
    return next((int(part) for part in name.split(".") if part.isdecimal()), 0)


def _scales(encoder: Any, names: list[str]) -> Any:
    """IA³: keys, values and the inner states of feed-forward blocks are scaled (Liu et al. 2022, arXiv:2205.05638)."""
    from peft import IA3Config

    attention = [name for name in names if name.endswith(("attention.self.key", "attention.self.value"))]
    feed_forward = [name for name in names if name.endswith("output.dense") and not name.endswith("attention.output.dense")]
    if not attention or not feed_forward:
        raise PipelineError(f"ia3 knows encoders built as BERT is, not {type(encoder).__name__}: take lora")
    return IA3Config(target_modules=[*attention, *feed_forward], feedforward_modules=feed_forward, task_type="FEATURE_EXTRACTION")


# --- AdaLoRA's ranks -----------------------------------------------------------------------------


def share_out_ranks(model: Any) -> None:
    """Lets AdaLoRA take ranks from where they matter least; call it after each step of the optimiser, the gradients still there.

    Any other method has nothing to share out.
    """
    allocator = _allocator(model)
    if allocator is not None:
        # The steps are counted here and not by the caller: peft settles the ranks at one certain step, which must not be missed.
        allocator.steps = getattr(allocator, "steps", 0) + 1
        model.encoder.base_model.update_and_allocate(allocator.steps)


def orthogonality(model: Any) -> Any:
    """What AdaLoRA adds to the loss: how far its matrices are from orthogonal, the mean over all; 0 for any other method."""
    import torch

    if _allocator(model) is None:
        return 0.0
    gaps = []
    for name, parameter in model.encoder.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            products = parameter @ parameter.T if "lora_A" in name else parameter.T @ parameter
            gaps.append(torch.linalg.matrix_norm(products - torch.eye(len(products), device=products.device)))
    return ORTHOGONALITY * torch.stack(gaps).mean()


def ranks(model: Any) -> dict[str, Any]:
    """What AdaLoRA knows beside its weights: which ranks are left and how much each matters; empty for any other method."""
    allocator = _allocator(model)
    if allocator is None:
        return {}
    return {
        "steps": getattr(allocator, "steps", 0),
        "left": model.encoder.active_peft_config.rank_pattern,
        "matters": {name: dict(getattr(allocator, name)) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")},
    }


def put_ranks(model: Any, known: dict[str, Any]) -> None:
    """Sets what `ranks` gave."""
    allocator = _allocator(model)
    if allocator is None or not known:
        return
    model.encoder.active_peft_config.rank_pattern = known["left"]
    allocator.steps = known["steps"]
    for name, values in known["matters"].items():
        setattr(allocator, name, dict(values))


def _allocator(model: Any) -> Any | None:
    return getattr(getattr(model.encoder, "base_model", None), "rankallocator", None)
