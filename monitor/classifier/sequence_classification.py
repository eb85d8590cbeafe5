"""A published sequence-classification checkpoint to the probabilities of our labels, for one text or a thousand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import structlog
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.classifier.answers import Array, finite, probabilities
from monitor.classifier.model import copy_weights
from monitor.classifier.packed_encoder import first_position, taken_apart
from monitor.classifier.packing import Packed, pack
from monitor.classifier.passes import PRECISIONS, Passes, Precision, resolve_device, resolve_precision
from monitor.classifier.protocol import Effort, Engine, Prepared
from monitor.classifier.published import Published
from monitor.classifier.tokens import prepare
from monitor.classifier.two_head import encoder_on
from monitor.errors import ModelError
from monitor.types import Passage

log = structlog.get_logger(__name__)

_UNLIMITED: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What a checkpoint says of one text: `probabilities` in the order of its labels, summing to 1, and the likeliest of them.

    `uncertain` says that the likeliest is below the limit, or that the checkpoint gave no number; then all are equally likely.
    """

    label: str
    probabilities: tuple[float, ...]
    uncertain: bool


class FirstTokenModel:
    """A checkpoint of the BERT family, run packed: its head reads the first token of each row, through the pooling layer if any.

    The encoder computes in `precision`, the rest in fp32.
    """

    def __init__(self, model: Any, device: str, precision: Literal["fp32", "bf16", "fp16"]) -> None:
        pooler = getattr(model.base_model, "pooler", None)
        self._encode, _ = encoder_on(model.base_model, device, precision)
        self._pooler = None if pooler is None else pooler.to(device)
        self._head = model.classifier.to(device)

    def __call__(self, packed: Packed) -> Tensor:
        """The logits (rows, outputs) in packed order."""
        first = self._encode(packed)[packed.starts[:-1]].float()[:, None]
        return torch.as_tensor(self._head(first if self._pooler is None else self._pooler(first)))


class OwnForwardModel:
    """A checkpoint of any other kind, run by its own code, all of it in `precision`, on rows of one length at a time.

    Rows are not filled up to a common length, because not every architecture answers alike with filling and without.
    """

    def __init__(self, model: Any, device: str, precision: Literal["fp32", "bf16", "fp16"]) -> None:
        self._model = model.to(device, PRECISIONS[precision])

    def __call__(self, packed: Packed) -> Tensor:
        """The logits (rows, outputs) in packed order."""
        runs = torch.split(packed.token_ids, [rows * length for rows, length in packed.runs])
        logits = []
        for (rows, length), token_ids in zip(packed.runs, runs, strict=True):
            grid = token_ids.view(rows, length)
            logits.append(self._model(input_ids=grid, attention_mask=torch.ones_like(grid)).logits)
        return torch.cat(logits)


class SequenceClassifier:
    """Answers one question with a published checkpoint.

    The encoder computes in `precision`. `pass_tokens` is the size of a forward pass; None: what suits the device. Raises ModelError
    when the weights, the tokenizer or the device cannot be used.
    """

    def __init__(
        self, published: Published, device: str = "auto", pass_tokens: int | None = None, precision: Precision = "auto"
    ) -> None:
        self.version = published.version
        self.labels = published.labelling.labels
        self._settings = published.settings
        self._listened, self._grouping = _grouping(published)
        on = resolve_device(device)
        how = resolve_precision(precision, on)
        model = _load_model(published)
        packed = taken_apart(model.base_model) is not None
        build = FirstTokenModel if packed else OwnForwardModel
        self._tokenizer, limit = _load_tokenizer(published, model.get_input_embeddings().num_embeddings)
        self._max_tokens = min(published.settings.max_tokens, limit, _positions(model.config))
        self._try(published, build(model, "cpu", "fp32"))
        self._model = build(model, on, how)
        self._passes = Passes(on, pass_tokens)
        self._effort = Effort()
        self.engine = Engine(on, how, "packed" if packed else "padded")
        log.info(
            "model.role",
            role=published.role,
            version=self.version,
            architecture=type(model).__name__,
            forward="packed" if packed else "its own",
            max_tokens=self._max_tokens,
        )
        if not published.pinned:
            log.warning("model.unpinned", role=published.role, advice=f"set model.{published.role}.revision to a commit")

    def _try(self, published: Published, model: Callable[[Packed], Tensor]) -> None:
        """Raises ModelError unless two texts of the greatest length can be answered together.

        On the CPU: there a position that does not exist is an exception, on an accelerator it would be the end of the process.
        """
        where = f"model.{published.role}: {published.folder}"
        rows = self.prepare([Passage("a " * self._max_tokens)] * 2)
        try:
            with torch.inference_mode():
                outputs = model(pack(rows)).shape[1]
        except (RuntimeError, IndexError, ValueError, TypeError, AttributeError) as error:
            told = " ".join(str(error).split())[:300]
            raise ModelError(
                f"{where} cannot answer two texts of {rows[0].tokens} tokens: {told}; try a lower max_tokens"
            ) from error
        if outputs != len(published.labelling.places):
            raise ModelError(f"{where} has {outputs} outputs, and id2label names {len(published.labelling.places)}")

    def prepare(self, passages: Sequence[Passage]) -> list[Prepared]:
        """Tokenises; one result per passage, in order. Runs on the CPU and is safe beside `answer` in another thread."""
        return prepare(passages, self._tokenizer, self._max_tokens)

    def answer(self, rows: Sequence[Prepared]) -> list[Answer]:
        """One answer per row, in order. Raises `DeviceLost` when the accelerator is gone for good."""
        answers: dict[int, Answer] = {}
        halvings = self._passes.halvings
        tokens, undefined = [], 0
        for answered in self._passes.run(rows, self._forward):
            (logits,) = answered.tensors
            given = dict(zip(answered.packed.order, self._answers(logits), strict=True))
            answers.update((place, given[number]) for number, place in enumerate(answered.places))
            tokens.append(answered.packed.tokens)
            undefined += int(np.count_nonzero(~finite(logits)))
        self._effort = added(self._effort, Effort(tuple(tokens), 0, undefined, self._passes.halvings - halvings))
        return [answers[place] for place in range(len(rows))]

    def effort(self) -> Effort:
        """What was done since this was last asked."""
        done, self._effort = self._effort, Effort()
        return done

    def _forward(self, packed: Packed) -> tuple[Tensor]:
        return (self._model(packed)[:, self._listened],)

    def _answers(self, logits: Array) -> list[Answer]:
        defined = finite(logits)
        given = probabilities(logits, self._settings.temperature) @ self._grouping
        given[~defined] = 1 / len(self.labels)
        sure = np.logical_and(defined, given.max(axis=1) >= self._settings.uncertain_below)
        return [
            Answer(self.labels[row.index(max(row))], tuple(row), uncertain=not certain)
            for row, certain in zip(given.tolist(), sure.tolist(), strict=True)
        ]


def added(one: Effort, other: Effort) -> Effort:
    """The effort of both."""
    return Effort(
        one.pass_tokens + other.pass_tokens,
        one.padding_tokens + other.padding_tokens,
        one.undefined + other.undefined,
        one.halvings + other.halvings,
    )


def _grouping(published: Published) -> tuple[list[int], NDArray[np.float64]]:
    """The outputs that are listened to, and the matrix (those outputs, labels) that adds up what stands for one label."""
    heard = [(output, place) for output, place in enumerate(published.labelling.places) if place is not None]
    matrix = np.zeros((len(heard), len(published.labelling.labels)))
    for row, (_, place) in enumerate(heard):
        matrix[row, place] = 1.0
    return [output for output, _ in heard], matrix


def _load_model(published: Published) -> Any:
    """The model in fp32 on the CPU, from safetensors alone, running no code of the checkpoint's own. Raises ModelError."""
    from safetensors import SafetensorError
    from transformers import AutoModelForSequenceClassification
    from transformers.utils import logging

    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    where = f"model.{published.role}: {published.folder}"
    try:
        model, found = AutoModelForSequenceClassification.from_pretrained(
            published.folder,
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
        )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError, SafetensorError) as error:
        raise ModelError(f"{where} holds no classifier that can be loaded: {' '.join(str(error).split())[:300]}") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise ModelError(f"{where} lacks weights, so that it would answer by chance: {', '.join(missing[:5])}")
    broken = sorted(name for name, tensor in model.named_parameters() if not bool(tensor.isfinite().all()))
    if broken:
        raise ModelError(f"{where} holds numbers that are not finite, in {', '.join(broken[:5])}")
    copy_weights(model)
    return model.eval().requires_grad_(False)


def _load_tokenizer(published: Published, vocabulary: int) -> tuple[Any, int]:
    """The fast tokenizer without cutting and padding, and how many tokens it may make of a text.

    Raises ModelError when there is none, or when it makes ids beyond the `vocabulary` of the model.
    """
    from transformers import AutoTokenizer

    where = f"model.{published.role}: {published.folder}"
    try:
        tokenizer = AutoTokenizer.from_pretrained(published.folder, local_files_only=True, trust_remote_code=False, use_fast=True)
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"{where} holds no tokenizer that can be loaded: {' '.join(str(error).split())[:300]}") from error
    if not tokenizer.is_fast:
        raise ModelError(
            f"{where}: {type(tokenizer).__name__} cannot say which characters a token stands for; a fast one is needed"
        )
    if len(tokenizer) > vocabulary:
        raise ModelError(f"{where}: the tokenizer makes {len(tokenizer)} different tokens, the model knows {vocabulary}")
    backend = tokenizer.backend_tokenizer
    backend.no_padding()
    backend.no_truncation()
    return backend, int(tokenizer.model_max_length)


def _positions(config: Any) -> int:
    """How many tokens the encoder has positions for: where they count from behind the padding id, so many less."""
    positions = getattr(config, "max_position_embeddings", None) or -1  # -1 is how XLNet says that it has no limit
    return int(positions) - first_position(config) if positions > 0 else _UNLIMITED
