"""A small YAML file that says what differs from the usual way of training in, a complete recipe out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from monitor.config import Section, describe_faults
from monitor.errors import PipelineError

RECIPES: Final = Path(__file__).parent / "recipes"

Method = Literal["full", "lora", "dora", "adalora", "ia3", "prefix"]
Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0)]


class Recipe(Section):
    """Everything but the data and the seed that decides what comes out; saved with it. The defaults made the shipped checkpoint."""

    method: Method = "lora"
    """What learns beside the heads: every weight of the layers (full), or an adapter of peft."""
    rank: Annotated[int, Field(ge=1)] = 32
    """Rank of the adapter's matrices; for prefix the number of virtual tokens a layer."""
    alpha: Positive = 64
    """The adapter counts alpha / rank times."""
    frozen_layers: Annotated[int, Field(ge=0)] = 0
    """So many layers from below do not learn. Where nothing changes what enters them they are computed once for the whole run."""

    epochs: Annotated[int, Field(ge=1)] = 5
    batch_tokens: Annotated[int, Field(ge=32)] = 1_024
    """Most tokens a step; texts of about one length stand in a batch together."""
    accumulation: Annotated[int, Field(ge=1)] = 1
    """Batches whose gradients are added before a step."""
    precision: Literal["no", "bf16", "fp16"] = "no"
    checkpoint_layers: bool = False
    """Compute the layers again on the way back instead of remembering them: less memory, a third more time."""
    train_max_tokens: Annotated[int, Field(ge=8)] = 96
    max_tokens: Annotated[int, Field(ge=8)] = 128
    """Passages are cut here in use."""

    optimiser: Literal["adamw", "adafactor"] = "adamw"
    learning_rate: Positive = 7e-4
    """At its peak, for the adapter or the top layer."""
    head_learning_rate: Positive = 1e-3
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Each layer learns this much slower than the one above it (full only)."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warm_up_share: Share = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    gradient_norm: Positive = 1.0
    average_decay: Share = 0.0
    """What is kept is a running average of the weights with this decay a step; 0: the last weights."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Stop after so many epochs without a better one on the held-out parts; 0: never."""

    dropout: Share = 0.1
    """Of what the heads read."""
    layer_dropout: Share = 0.0
    """Between the parts of a layer. It costs a tenth of the time on a CPU."""
    label_smoothing: Share = 0.05
    topic_weight_power: Share = 0.5
    """A topic weighs its frequency to this power, inverted: 0 weighs none, 1 makes all topics weigh the same."""
    question_weights: Annotated[dict[Literal["topic", "sentiment", "toward"], Positive], Field(default_factory=dict)]
    """How much an answer to each question weighs; unset: 1."""
    consistency: Annotated[float, Field(ge=0)] = 0.0
    """Weight of the disagreement between two passes with different dropout (R-Drop); 0: one pass."""

    adversary: Literal["none", "fgm", "pgd", "awp"] = "none"
    adversary_size: Positive = 0.5
    """Length of the push: of a token's embedding (fgm, pgd), or relative to each weight (awp)."""
    adversary_steps: Annotated[int, Field(ge=1)] = 3
    """Steps that pgd takes."""
    adversary_from_epoch: Annotated[int, Field(ge=1)] = 1

    synonyms: Share = 0.0
    """Words of the finance lexicon that are replaced, of those that can be."""
    entity_swaps: Share = 0.0
    """Named entities that are replaced by a name from another text."""
    number_changes: Share = 0.0
    """Texts whose numbers are replaced by others of about their size, all by one factor."""
    companions: Share = 0.0
    """Texts that name an entity which are put before or behind another text, as a sentence of a longer one."""
    paraphrases: Share = 0.0
    """Texts that are said anew by the paraphraser."""
    paraphraser: Annotated[str, Field(pattern=r"^[\w.]+:\w+$")] | None = None
    """Where the paraphraser is, as "package.module:callable"; called without arguments it gives a `Paraphraser`."""

    teachers: tuple[str, ...] = ()
    """Folders of checkpoints whose mean answer is learned beside the labels (distillation)."""
    teacher_bases: Annotated[dict[str, str], Field(default_factory=dict)]
    """The folders of the teachers' bases by their published names, where they are neither installed nor the base of this run."""
    teacher_weight: Share = 0.5
    teacher_temperature: Positive = 2.0

    limit: Annotated[int, Field(ge=0)] = 0
    """Train on this many examples only; 0: on all."""

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        if self.frozen_layers and self.method not in {"full", "lora", "dora"}:
            raise ValueError("frozen_layers means something for full, lora and dora only")
        if self.layer_decay != 1.0 and self.method != "full":
            raise ValueError("layer_decay means something for method full only")
        if self.companions and self.teachers:
            raise ValueError("companions and teachers do not go together: a teacher was asked about one text, not two")
        if self.paraphrases and self.paraphraser is None:
            raise ValueError("paraphrases needs a paraphraser")
        return self


def read_recipe(name: str) -> Recipe:
    """The recipe of a file, or of one shipped under this name. Raises PipelineError that lists every fault."""
    path = RECIPES / f"{name}.yaml" if not name.endswith(".yaml") else Path(name)
    if not path.is_file():
        known = ", ".join(sorted(one.stem for one in RECIPES.glob("*.yaml")))
        raise PipelineError(f"{path} is no recipe: give a .yaml file or one of {known}")
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        return Recipe.model_validate(content)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PipelineError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        raise PipelineError("\n  ".join([f"{path} cannot be used:", *describe_faults(error)])) from error
