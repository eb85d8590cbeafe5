"""Examples in, a trained model out: one loop over token-budget batches, the same on a CPU and on several GPUs.

Read from `train` downwards. A run that was stopped goes on after its last finished epoch and ends as if it had never stopped:
epoch and seed alone decide the order of the batches, the augmentation and the dropout. Several processes share the batches out.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from monitor.classifier.protocol import Prepared
from monitor.errors import PipelineError
from monitor.types import SENTIMENTS
from pipelines.corpus import Example, topic_weights
from pipelines.learner import orthogonality, put_ranks, ranks, share_out_ranks
from pipelines.recipe import Recipe

UNLABELLED: Final = -100
"""The label of an example that says nothing about a question."""

STATE_FILE: Final = "state.pt"

POOL_BATCHES: Final = 32
"""Texts are sorted by length within so many batches' worth of shuffled texts."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as the encoder reads it: numbers of its labels, one sentiment per target; `UNLABELLED` where it says nothing.

    `place` is where the example stood among those that were encoded; the entity of a target is its place in the example's `toward`.
    """

    prepared: Prepared
    topic: int
    sentiment: int
    toward: tuple[int, ...]
    place: int


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a packed batch: `topic` (rows), `sentiment` (rows), `toward` (targets), all in packed order."""

    topic: Any
    sentiment: Any
    toward: Any


@dataclass(frozen=True, slots=True)
class Epoch:
    """A finished epoch: its number from 1, the mean training loss, macro-F1 per held-out part and question, CPU time it took.

    The CPU time is that of learning in one process, without validation.
    """

    number: int
    loss: float
    macro_f1: dict[str, float]
    cpu_seconds: float = 0.0

    @property
    def mean(self) -> float:
        """What the best epoch is best in: the mean of the parts' macro-F1."""
        return sum(self.macro_f1.values()) / max(len(self.macro_f1), 1)


# --- data ----------------------------------------------------------------------------------------


def encode(examples: Sequence[Example], tokenizer: Any, topics: Sequence[str], max_tokens: int) -> list[Encoded]:
    """The examples as rows of token ids, cut to `max_tokens`, with the labels of what is left of them."""
    from monitor.classifier.tokens import prepare
    from monitor.types import Mention, Passage

    numbers = {topic: number for number, topic in enumerate(topics)}
    passages = [
        Passage(example.text, tuple(Mention(one.start, one.end, str(which)) for which, one in enumerate(example.toward)))
        for example in examples
    ]
    encoded = []
    for place, (example, prepared) in enumerate(zip(examples, prepare(passages, tokenizer, max_tokens), strict=True)):
        toward = tuple(SENTIMENTS.index(example.toward[int(target.entity)].sentiment) for target in prepared.targets)
        topic = UNLABELLED if example.topic is None else numbers[example.topic]
        sentiment = UNLABELLED if example.sentiment is None else SENTIMENTS.index(example.sentiment)
        encoded.append(Encoded(prepared, topic, sentiment, toward, place))
    return encoded


def batches(examples: Sequence[Encoded], batch_tokens: int, order: random.Random | None) -> list[list[Encoded]]:
    """The examples in batches of texts of about one length with at most `batch_tokens` tokens together, or one text.

    With `order` they are drawn anew: shuffled, sorted by length within pools, batched, shuffled. Without: the longest first.
    """
    rows = list(examples)
    pool = len(rows)
    if order is not None:
        order.shuffle(rows)
        mean = sum(row.prepared.tokens for row in rows) / max(len(rows), 1)
        pool = max(1, round(POOL_BATCHES * batch_tokens / max(mean, 1)))
    cuts: list[list[Encoded]] = []
    for start in range(0, len(rows), max(pool, 1)):
        tokens = batch_tokens + 1
        for row in sorted(rows[start : start + pool], key=lambda row: -row.prepared.tokens):
            if tokens + row.prepared.tokens > batch_tokens:
                cuts.append([])
                tokens = 0
            cuts[-1].append(row)
            tokens += row.prepared.tokens
    if order is not None:
        order.shuffle(cuts)
    return cuts


def labels_of(rows: Sequence[Encoded], packed: Any) -> Labels:
    """The labels of packed rows, in packed order."""
    import torch

    return Labels(
        topic=torch.tensor([rows[place].topic for place in packed.order]),
        sentiment=torch.tensor([rows[place].sentiment for place in packed.order]),
        toward=torch.tensor([rows[place].toward[which] for place, which in packed.target_order], dtype=torch.long),
    )


# --- loss ----------------------------------------------------------------------------------------


def masked_loss(logits: Any, labels: Labels, recipe: Recipe, weights_of_topics: Any | None = None) -> Any:
    """The cross-entropy per label given: a question that an example leaves open teaches nothing.

    Every label weighs the same, times the weight of its question and of its topic; zero when there is no label at all.
    """
    import torch
    from torch.nn import functional

    # No head is left out of the graph: processes that learn together wait for the gradients of every weight.
    total: Any = (logits.topic.sum() + logits.sentiment.sum() + logits.toward.sum()) * 0.0
    given: Any = 0.0
    for question, said, truth, weights in (
        ("topic", logits.topic, labels.topic, weights_of_topics),
        ("sentiment", logits.sentiment, labels.sentiment, None),
        ("toward", logits.toward, labels.toward, None),
    ):
        known = truth != UNLABELLED
        if bool(known.any()):
            weight = recipe.question_weights.get(question, 1.0)  # type: ignore[call-overload]
            losses = functional.cross_entropy(
                said[known].float(), truth[known], weight=weights, reduction="sum", label_smoothing=recipe.label_smoothing
            )
            total = total + weight * losses
            given = given + weight * known.sum()
    return total / torch.as_tensor(given).clamp(min=1.0)


def disagreement(one: Any, other: Any) -> Any:
    """How far two answers to one batch lie apart: the symmetric Kullback-Leibler divergence (R-Drop, arXiv:2106.14448)."""
    from torch.nn import functional

    parts = []
    for question in ("topic", "sentiment", "toward"):
        left, right = (functional.log_softmax(getattr(side, question).float(), dim=-1) for side in (one, other))
        if len(left):
            both = functional.kl_div(left, right, log_target=True, reduction="batchmean")
            parts.append((both + functional.kl_div(right, left, log_target=True, reduction="batchmean")) / 2)
    return sum(parts) / len(parts)


# --- learning rates ------------------------------------------------------------------------------


def rate_at(step: int, steps: int, recipe: Recipe) -> float:
    """The share of the peak learning rate at a step: a line up over the warm-up, then as the schedule says."""
    warm_up = max(1, round(steps * recipe.warm_up_share))
    if step < warm_up:
        return (step + 1) / warm_up
    left = max(0.0, (steps - step) / max(1, steps - warm_up))
    return {"linear": left, "cosine": 0.5 * (1 - math.cos(math.pi * left)), "constant": 1.0}[recipe.schedule]


def groups_of(model: Any, recipe: Recipe) -> list[dict[str, Any]]:
    """The learning parameters in groups with their peak rate: heads, adapter or layers; what is no matrix is not decayed."""
    layers = int(getattr(model.encoder.config, "num_hidden_layers", 0))
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = recipe.head_learning_rate
        if name.startswith("encoder."):
            found = next((int(part) for part in name.split(".") if part.isdecimal()), 0)
            rate = recipe.learning_rate * recipe.layer_decay ** max(0, layers - 1 - found)
        is_matrix = parameter.ndim > 1 and min(parameter.shape) > 1
        decay = recipe.weight_decay if is_matrix else 0.0
        groups.setdefault((rate, decay), []).append(parameter)
    return [{"params": parameters, "lr": rate, "peak": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]


def build_optimiser(model: Any, recipe: Recipe) -> Any:
    """The recipe's optimiser over the learning parameters."""
    if recipe.optimiser == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(  # type: ignore[no-untyped-call]
            groups_of(model, recipe), scale_parameter=False, relative_step=False, warmup_init=False
        )
    import torch

    return torch.optim.AdamW(groups_of(model, recipe), fused=True)


# --- the loop ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Progress:
    """One step done: the epoch and the step of so many in it, both from 0, the loss, the share of the peak learning rate."""

    epoch: int
    step: int
    steps: int
    loss: float
    rate: float


@dataclass(slots=True)
class Training:
    """What a run needs beside the model; `seed` and `recipe` decide everything that is drawn."""

    recipe: Recipe
    seed: int
    topics: Sequence[str]
    tokenizer: Any
    accelerator: Any
    teach: Callable[[Any, Sequence[Encoded], Any], Any] | None = None
    """The teachers' loss, of the logits, the rows and the packed batch of them, when there are teachers."""
    tick: Callable[[Progress], None] = lambda _: None


def train(
    model: Any,
    examples: Sequence[Example],
    *,
    training: Training,
    validate: Callable[[Any], Mapping[str, float]],
    folder: Path,
    inputs: Mapping[str, Any],
) -> list[tuple[Epoch, Path]]:
    """All epochs of the recipe, those of an earlier run included, each with the file that holds what it had learned.

    `validate` gives the macro-F1 of each held-out part. Raises PipelineError when there is nothing to learn from, or `folder` holds
    a run with other `inputs`.
    """
    import torch

    if not examples:
        raise PipelineError("the corpus has no example to learn from")
    recipe, accelerator = training.recipe, training.accelerator
    torch.manual_seed(training.seed)
    optimiser = build_optimiser(model, recipe)
    finished = load_epochs(folder, inputs)
    average = Average(model, recipe.average_decay) if recipe.average_decay else None
    prepared, optimiser = accelerator.prepare(model, optimiser)
    if finished:
        resume(folder / STATE_FILE, model, optimiser=optimiser, average=average, accelerator=accelerator)
    weights = torch.tensor(topic_weights(examples, training.topics, recipe.topic_weight_power), device=accelerator.device)
    below = Below(model, recipe, device_name(accelerator))
    for number in range(len(finished), recipe.epochs):
        if _is_enough([epoch for epoch, _ in finished], recipe.patience):
            break
        began = time.process_time()
        loss = train_epoch(
            prepared, optimiser, examples, training=training, number=number, weights=weights, average=average, below=below
        )
        spent = time.process_time() - began
        path = folder / f"epoch-{number + 1}.pt"
        with averaged(model, average):
            epoch = Epoch(number + 1, loss, dict(validate(model)), round(spent, 2))
            if accelerator.is_main_process:
                save_epoch(path, epoch, model, inputs)
        if accelerator.is_main_process:
            save_state(folder / STATE_FILE, epoch.number, model, optimiser=optimiser, average=average, accelerator=accelerator)
        accelerator.wait_for_everyone()
        finished.append((epoch, path))
    return finished


def _is_enough(epochs: Sequence[Epoch], patience: int) -> bool:
    if not patience or len(epochs) <= patience:
        return False
    best = max(range(len(epochs)), key=lambda place: epochs[place].mean)
    return len(epochs) - 1 - best >= patience


def train_epoch(
    model: Any,
    optimiser: Any,
    examples: Sequence[Example],
    *,
    training: Training,
    number: int,
    weights: Any,
    average: Average | None,
    below: Below,
) -> float:
    """One pass over the examples; the mean loss over all processes."""
    import torch

    from monitor.classifier.packing import pack
    from pipelines.adversary import push
    from pipelines.augmentation import augment

    recipe, accelerator = training.recipe, training.accelerator
    drawn = training.seed * 1_000 + number
    torch.manual_seed(drawn + 1_000_003 * accelerator.process_index)
    order = random.Random(drawn)  # noqa: S311 (a shuffle)
    encoded = encode(augment(examples, recipe, order), training.tokenizer, training.topics, recipe.train_max_tokens)
    mine = _shared(batches(encoded, recipe.batch_tokens, order), accelerator)
    steps = len(mine) * recipe.epochs
    bare = accelerator.unwrap_model(model)
    device = device_name(accelerator)
    losses = 0.0
    below.learn(encoded)
    model.train()
    for place, rows in enumerate(mine):
        share = rate_at(number * len(mine) + place, steps, recipe)
        for group in optimiser.param_groups:
            group["lr"] = group["peak"] * share
        packed = pack([row.prepared for row in rows])
        labels = labels_of(rows, packed)
        packed, labels = packed.to(device), Labels(*(part.to(device) for part in (labels.topic, labels.sentiment, labels.toward)))

        entering = below.entering(rows, packed)

        def loss_of(packed: Any = packed, labels: Labels = labels, rows: Sequence[Encoded] = rows, entering: Any = entering) -> Any:
            logits = model(packed, entering)
            loss = masked_loss(logits, labels, recipe, weights)
            if recipe.consistency:
                again = model(packed, entering)
                loss = (loss + masked_loss(again, labels, recipe, weights)) / 2
                loss = loss + recipe.consistency * disagreement(logits, again)
            if training.teach is not None:
                loss = (1 - recipe.teacher_weight) * loss + recipe.teacher_weight * training.teach(logits, rows, packed)
            return (loss + orthogonality(bare)) / recipe.accumulation

        # The last batches of an epoch make a step of their own, however few, so that an epoch leaves nothing behind.
        due = (place + 1) % recipe.accumulation == 0 or place + 1 == len(mine)
        with nullcontext() if due else accelerator.no_sync(model):
            with accelerator.autocast():
                loss = loss_of()
            accelerator.backward(loss)
            if recipe.adversary != "none" and number + 1 >= recipe.adversary_from_epoch:
                push(model, loss_of, accelerator, recipe)
        if due:
            accelerator.clip_grad_norm_(model.parameters(), recipe.gradient_norm)
            optimiser.step()
            share_out_ranks(bare)
            optimiser.zero_grad(set_to_none=True)
            if average is not None:
                average.update(bare)
        told = float(loss.detach()) * recipe.accumulation
        losses += told
        training.tick(Progress(number, place, len(mine), told, share))
    return float(accelerator.reduce(torch.tensor(losses / len(mine), device=accelerator.device), "mean"))


class Below:
    """What the layers that do not learn make of each row: computed once for the whole run, where nothing changes it.

    They are then as good as free: with half of the layers frozen an epoch costs half. The states of all rows stay in memory, on
    the CPU, at 4 bytes a number. Layers that do not learn and have dropout, or read what the run itself changes, are computed.
    """

    def __init__(self, model: Any, recipe: Recipe, device: str) -> None:
        from monitor.classifier.packed_encoder import taken_apart

        changed = (
            recipe.layer_dropout
            or recipe.synonyms
            or recipe.entity_swaps
            or recipe.number_changes
            or recipe.companions
            or recipe.paraphrases
        )
        usable = not changed and recipe.adversary in {"none", "awp"} and taken_apart(model.encoder) is not None
        self._layers = recipe.frozen_layers if usable else 0
        self._model = model
        self._device = device
        self._states: dict[tuple[int, ...], Any] = {}

    def learn(self, examples: Sequence[Encoded]) -> None:
        """Computes what is not known yet."""
        import torch

        from monitor.classifier.packed_encoder import entering
        from monitor.classifier.packing import pack

        unknown = [row for row in examples if row.prepared.token_ids not in self._states] if self._layers else []
        self._model.eval()
        with torch.no_grad():
            for rows in batches(unknown, 2_048, None):
                packed = pack([row.prepared for row in rows])
                states = entering(self._model.encoder, packed.to(self._device), self._layers).states.cpu()
                for place, own in zip(packed.order, torch.split(states, packed.lengths.tolist()), strict=True):
                    # A copy, because a part of a larger tensor would keep all of it.
                    self._states[rows[place].prepared.token_ids] = own.clone()

    def entering(self, rows: Sequence[Encoded], packed: Any) -> Any | None:
        """What enters the first layer that learns, for a packed batch of rows that are known; None: nothing is known."""
        import torch

        from monitor.classifier.packed_encoder import Entering

        if not self._layers:
            return None
        states = torch.cat([self._states[rows[place].prepared.token_ids] for place in packed.order])
        return Entering(states.to(self._device), self._layers)


def device_name(accelerator: Any) -> str:
    """Where this process computes; "cpu" also where processes number their share of one CPU."""
    return "cpu" if accelerator.device.type == "cpu" else str(accelerator.device)


def _shared(cuts: Sequence[list[Encoded]], accelerator: Any) -> list[list[Encoded]]:
    """This process's batches: all processes take as many, because they step together."""
    each = len(cuts) // accelerator.num_processes or 1
    return [
        cuts[place % len(cuts)]
        for place in range(accelerator.process_index, each * accelerator.num_processes, accelerator.num_processes)
    ]


# --- what an epoch leaves ------------------------------------------------------------------------


class Average:
    """A running average of the learning weights; what is kept is steadier than the last step."""

    def __init__(self, model: Any, decay: float) -> None:
        self._decay = decay
        self._steps = 0
        self.weights = learned(model)

    def update(self, model: Any) -> None:
        """Takes in the weights as they are now. The first steps count more, so that the beginning is forgotten."""
        import torch

        self._steps += 1
        decay = min(self._decay, (1 + self._steps) / (10 + self._steps))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.requires_grad:
                    self.weights[name].lerp_(parameter.detach(), 1 - decay)

    def state(self) -> dict[str, Any]:
        """What `resume` needs."""
        return {"steps": self._steps, "weights": self.weights}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Goes on from `state`."""
        self._steps = state["steps"]
        self.weights = dict(state["weights"])


class averaged:  # noqa: N801 (reads as what it does)
    """Within the context the model has the averaged weights; without an average, its own."""

    def __init__(self, model: Any, average: Average | None) -> None:
        self._model, self._average = model, average

    def __enter__(self) -> None:
        if self._average is not None:
            self._own = learned(self._model)
            put(self._model, self._average.weights)

    def __exit__(self, *_: object) -> None:
        if self._average is not None:
            put(self._model, self._own)


def learned(model: Any) -> dict[str, Any]:
    """The tensors that learn, by name, copied."""
    return {name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad}


def put(model: Any, weights: Mapping[str, Any]) -> None:
    """Sets the learning tensors."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                parameter.copy_(weights[name])


def save_epoch(path: Path, epoch: Epoch, model: Any, inputs: Mapping[str, Any]) -> None:
    """Writes what an epoch had learned, so that it is there as a whole or not at all."""
    _save(path, {"epoch": asdict(epoch), "inputs": dict(inputs), "learned": learned(model), "ranks": ranks(model)})


def save_state(path: Path, number: int, model: Any, *, optimiser: Any, average: Average | None, accelerator: Any) -> None:
    """Writes what the next epoch goes on from."""
    content = {
        "number": number,
        "learned": learned(model),
        "ranks": ranks(model),
        "optimiser": optimiser.state_dict(),
        "average": None if average is None else average.state(),
        "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
    }
    _save(path, content)


def _save(path: Path, content: Mapping[str, Any]) -> None:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".unfinished")
    torch.save(dict(content), unfinished)
    unfinished.replace(path)


def load_epochs(folder: Path, inputs: Mapping[str, Any]) -> list[tuple[Epoch, Path]]:
    """The epochs that an earlier run finished, in order. Raises PipelineError when it had another recipe, base or data."""
    import torch

    found = []
    for path in sorted(folder.glob("epoch-*.pt"), key=lambda path: int(path.stem.removeprefix("epoch-"))):
        saved = torch.load(path, weights_only=True, mmap=True)
        if saved["inputs"] != dict(inputs):
            raise PipelineError(
                f"{folder} holds a run with another recipe, seed, base or data: choose another folder, or delete it"
            )
        found.append((Epoch(**saved["epoch"]), path))
    state = folder / STATE_FILE
    if found and not state.is_file():
        return []
    reached = torch.load(state, weights_only=True, mmap=True)["number"] if found else 0
    return found[:reached]


def restore(path: Path, model: Any) -> None:
    """Puts what an epoch had learned into the model."""
    import torch

    saved = torch.load(path, weights_only=True)
    put(model, saved["learned"])
    put_ranks(model, saved["ranks"])


def resume(path: Path, model: Any, *, optimiser: Any, average: Average | None, accelerator: Any) -> None:
    """Sets what the next epoch goes on from."""
    import torch

    state = torch.load(path, weights_only=True)
    put(model, state["learned"])
    put_ranks(model, state["ranks"])
    optimiser.load_state_dict(state["optimiser"])
    if average is not None:
        average.resume(state["average"])
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])


# --- answers -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answers:
    """What a model says about the examples labelled for a question: `logits` (labels, choices) and the `truth` (labels)."""

    question: str
    logits: Any
    truth: Any


def answers(model: Any, examples: Sequence[Encoded], device: str = "cpu", batch_tokens: int = 2_048) -> dict[str, Answers]:
    """The model's answers to each question that the examples hold labels for, in the examples' order."""
    import numpy as np
    import torch

    from monitor.classifier.packing import pack

    places = {id(row): place for place, row in enumerate(examples)}
    found: dict[str, list[tuple[tuple[int, int], Any, int]]] = {"topic": [], "sentiment": [], "toward": []}
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for rows in batches(examples, batch_tokens, None):
            packed = pack([row.prepared for row in rows])
            logits = model(packed.to(device))
            parts = {name: getattr(logits, name).double().cpu().numpy() for name in found}
            for number, place in enumerate(packed.order):
                row = rows[place]
                for question, label in (("topic", row.topic), ("sentiment", row.sentiment)):
                    if label != UNLABELLED:
                        found[question].append(((places[id(row)], 0), parts[question][number], label))
            for number, (place, which) in enumerate(packed.target_order):
                row = rows[place]
                found["toward"].append(((places[id(row)], which), parts["toward"][number], row.toward[which]))
    model.train(was_training)
    return {
        question: Answers(
            question,
            np.stack([one[1] for one in sorted(given, key=_place)]),
            np.array([one[2] for one in sorted(given, key=_place)]),
        )
        for question, given in found.items()
        if given
    }


def _place(one: tuple[tuple[int, int], Any, int]) -> tuple[int, int]:
    return one[0]


def macro_f1(part: Answers) -> float:
    """The mean over the labels of the harmonic mean of precision and recall."""
    from sklearn.metrics import f1_score

    labels = range(part.logits.shape[1])
    return float(f1_score(part.truth, part.logits.argmax(axis=1), labels=labels, average="macro", zero_division=0))
