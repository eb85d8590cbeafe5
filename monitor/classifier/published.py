"""A published sequence-classification checkpoint to its folder and what its answers stand for, without reading its weights."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from monitor.classifier.base_encoder import sha256_of
from monitor.classifier.hub import snapshot
from monitor.classifier.text import NORMALISATION
from monitor.config import RoleSettings, SentimentSettings, TopicSettings
from monitor.errors import ModelError
from monitor.types import SENTIMENTS

Role = Literal["topic", "sentiment"]

_CONFIG: Final = "config.json"
_WEIGHTS: Final = "model.safetensors"
_INDEX: Final = "model.safetensors.index.json"
_ADAPTER: Final = "adapter_config.json"
_VOCABULARIES: Final = ("tokenizer.json", "vocab.txt", "vocab.json", "*.model")
_FILES: Final = (
    _CONFIG,
    _WEIGHTS,
    _INDEX,
    "model-*.safetensors",
    *_VOCABULARIES,
    "tokenizer_config.json",
    "merges.txt",
    "special_tokens_map.json",
    "added_tokens.json",
)
"""What is read of a checkpoint: data, and never a file that can hold code."""

_UNNAMED: Final = re.compile(r"LABEL_\d+")


@dataclass(frozen=True, slots=True)
class Labelling:
    """What the outputs of a checkpoint stand for.

    `labels` are ours, in the order of the probabilities that we give. `places` has one entry per output: the place in `labels` of
    what it stands for, or None for an output that is not listened to. Several outputs may stand for one label.
    """

    labels: tuple[str, ...]
    places: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Published:
    """A published checkpoint on this machine that may take a role: where it lies, what it answers, what was configured."""

    role: Role
    folder: Path
    labelling: Labelling
    settings: RoleSettings

    @property
    def pinned(self) -> bool:
        """Whether the same configuration will find the same checkpoint tomorrow: it is a folder, or has a revision."""
        return isinstance(self.settings.checkpoint, Path) or self.settings.revision is not None

    @property
    def version(self) -> str:
        """A short hash of every file that is read and of every setting that decides an answer. Raises ModelError."""
        read = sorted({path for pattern in _FILES for path in self.folder.glob(pattern) if path.is_file()})
        decides = {
            "files": {path.name: sha256_of(path) for path in read},
            "role": self.role,
            "labels": self.labelling.labels,
            "places": self.labelling.places,
            "normalisation": NORMALISATION,
            "max_tokens": self.settings.max_tokens,
            "temperature": self.settings.temperature,
            "uncertain_below": self.settings.uncertain_below,
        }
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:12]


def find_published(role: Role, settings: TopicSettings | SentimentSettings, *, fetch: bool) -> Published | None:
    """The checkpoint that takes a role; None when none is configured.

    One on the hub is fetched into its cache when `fetch` says so, else it must be there. Raises ModelError that lists every fault
    that can be seen without reading weights, and what the checkpoint offers.
    """
    if settings.checkpoint is None:
        return None
    folder = settings.checkpoint if isinstance(settings.checkpoint, Path) else _in_cache(role, settings, fetch=fetch)
    config = _read_config(role, folder)
    offered = _offered(config)
    labelling, faults = _topics(offered, settings) if isinstance(settings, TopicSettings) else _sentiments(offered, settings)
    faults = [*_file_faults(folder), *_kind_faults(config, offered), *faults]
    if faults:
        answers = f"; its answers are {', '.join(offered)}" if offered else ""
        raise ModelError(f"model.{role}: {folder} cannot be used: {'; '.join(faults)}{answers}")
    return Published(role, folder, labelling, settings)


def _in_cache(role: Role, settings: RoleSettings, *, fetch: bool) -> Path:
    name, revision = str(settings.checkpoint), settings.revision
    try:
        return snapshot(name, _FILES, revision, fetch=fetch)
    except ModelError as error:
        command = f"hf download {name}" + ("" if revision is None else f" --revision {revision}")
        raise ModelError(f"model.{role}: {error}: fetch it with `{command}`, or give the folder where it lies") from error


def _read_config(role: Role, folder: Path) -> Mapping[str, Any]:
    path = folder / _CONFIG
    try:
        config = json.loads(path.read_bytes())
    except OSError as error:
        raise ModelError(f"model.{role}: {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ModelError(f"model.{role}: {path} is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise ModelError(f"model.{role}: {path} is no configuration of a checkpoint")
    return config


def _offered(config: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of the outputs, in their order; none where the configuration numbers them with gaps.

    A configuration that says nothing has transformers' default: two outputs that have no names.
    """
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    if not isinstance(names, dict) or set(names) != set(map(str, range(len(names)))):
        return ()
    return tuple(str(names[str(place)]) for place in range(len(names)))


def _file_faults(folder: Path) -> Iterator[str]:
    if (folder / _ADAPTER).is_file():
        yield f"it holds an adapter ({_ADAPTER}): merge it into its model, and save that"
    if not (folder / _WEIGHTS).is_file() and not (folder / _INDEX).is_file():
        yield (
            f"it has no {_WEIGHTS}, and no other form of weights is read, because pickled ones can run code: "
            "name a revision that has it (on the hub often refs/pr/N), or convert the checkpoint once, as README.md says"
        )
    if not any(path.is_file() for pattern in _VOCABULARIES for path in folder.glob(pattern)):
        # transformers would make a tokenizer that knows no word, and say nothing.
        yield f"it has no tokenizer ({', '.join(_VOCABULARIES)})"


def _kind_faults(config: Mapping[str, Any], offered: tuple[str, ...]) -> Iterator[str]:
    architectures = [str(name) for name in config.get("architectures") or ()]
    if architectures and not any(name.endswith("ForSequenceClassification") for name in architectures):
        yield f"it is a {', '.join(architectures)} and classifies no texts"
    problem = config.get("problem_type")
    if problem not in {None, "single_label_classification"}:
        yield f"its problem_type is {problem}: an answer must be one of several labels"
    if not offered:
        yield "its id2label does not name the outputs 0, 1, 2 ..."
    elif len(offered) < 2:
        yield "it has a single output"


def _unknown(offered: tuple[str, ...], labels: Mapping[str, Any]) -> Iterator[str]:
    for name in labels:
        if name not in offered:
            yield f"labels names {name}, which it does not have"


def _topics(offered: tuple[str, ...], settings: TopicSettings) -> tuple[Labelling, list[str]]:
    """Our topics in the order of the outputs that stand for them first."""
    given = [settings.labels.get(name, name) for name in offered]
    topics = tuple(dict.fromkeys(name for name in given if name is not None))
    faults = list(_unknown(offered, settings.labels))
    faults += [
        f"{name} says nothing: write in labels what it stands for"
        for name in offered
        if _UNNAMED.fullmatch(name) and name not in settings.labels
    ]
    if offered and len(topics) < 2:
        faults.append("labels leaves fewer than two topics")
    return Labelling(topics, tuple(None if name is None else topics.index(name) for name in given)), faults


def _sentiments(offered: tuple[str, ...], settings: SentimentSettings) -> tuple[Labelling, list[str]]:
    """The three sentiments. One that no output stands for has probability 0; that may be neutral alone."""
    faults = list(_unknown(offered, settings.labels))
    places: list[int | None] = []
    for name in offered:
        meant: str | None = settings.labels.get(name, name.casefold())
        if meant is not None and meant not in SENTIMENTS:
            faults.append(f"{name} is none of {', '.join(SENTIMENTS)}: write in labels what it stands for, or null")
        places.append(SENTIMENTS.index(meant) if meant in SENTIMENTS else None)
    missing = [label for place, label in enumerate(SENTIMENTS) if place not in places]
    if missing == ["neutral"] and not faults:
        # Of two answers the likelier has at least 0.5: without a higher limit every dull text would be negative or positive.
        if settings.uncertain_below <= 0.5:
            faults.append(
                "no answer stands for neutral: set uncertain_below above 0.5, so that a text of which it is not sure "
                "counts as uncertain"
            )
    elif missing and offered and not faults:
        faults.append(f"no answer stands for {', '.join(missing)}")
    return Labelling(SENTIMENTS, tuple(places)), faults
