"""The model section of the configuration to a classifier that is ready, or to the topics that it will know."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.manifest import MANIFEST_FILE, read_manifest
from monitor.classifier.null import NullClassifier
from monitor.classifier.protocol import Classifier
from monitor.classifier.published import Published, Role, find_published
from monitor.config import ModelSettings, SentimentSettings, TopicSettings
from monitor.errors import ModelError


def checkpoint_folder(settings: ModelSettings) -> Path:
    """The configured checkpoint, else the shipped one."""
    return settings.checkpoint or Path(str(files("monitor") / "checkpoint"))


def check_model(settings: ModelSettings, *, fetch: bool = False) -> tuple[str, ...]:
    """The topics of the configured classifier, after every check that needs no weights.

    A checkpoint on the hub must be in its cache, unless `fetch` says that it may be fetched. The null classifier takes the topics
    of the checkpoint that it stands in for; where there is none it knows one topic, "any". Raises ModelError.
    """
    topic, sentiment = _find_roles(settings, fetch=fetch)
    if topic is not None and sentiment is not None:
        return topic.labelling.labels
    folder = checkpoint_folder(settings)
    if settings.disabled and not (folder / MANIFEST_FILE).is_file():
        return ("any",) if topic is None else topic.labelling.labels
    known = read_manifest(folder).topics
    return known if topic is None else topic.labelling.labels


def load_classifier(settings: ModelSettings) -> Classifier:
    """The configured classifier; what is on the hub and not in its cache is fetched.

    The Bellwether checkpoint is loaded unless checkpoints in both roles leave it nothing to answer. A number of threads in
    `settings` holds for torch in the whole process. Raises ModelError when a checkpoint, the base or the device cannot be used.
    """
    if settings.disabled:
        return NullClassifier(check_model(settings, fetch=True))
    import torch

    from monitor.classifier.roles import RolesClassifier
    from monitor.classifier.sequence_classification import SequenceClassifier
    from monitor.classifier.two_head import TwoHeadClassifier

    if settings.threads:
        torch.set_num_threads(settings.threads)
    topic, sentiment = (
        None if found is None else SequenceClassifier(found, settings.device, precision=settings.precision)
        for found in _find_roles(settings, fetch=True)
    )
    if topic is not None and sentiment is not None:
        return RolesClassifier(None, topic, sentiment)
    checkpoint = load_checkpoint(checkpoint_folder(settings), settings.base)
    own = TwoHeadClassifier(checkpoint, settings.device, precision=settings.precision)
    return own if topic is None and sentiment is None else RolesClassifier(own, topic, sentiment)


def _find_roles(settings: ModelSettings, *, fetch: bool) -> tuple[Published | None, Published | None]:
    """The checkpoints for the topic and for the sentiment. Raises ModelError with the faults of both."""
    faults = []

    def find(role: Role, wanted: TopicSettings | SentimentSettings) -> Published | None:
        try:
            return find_published(role, wanted, fetch=fetch)
        except ModelError as error:
            faults.append(str(error))
            return None

    found = find("topic", settings.topic), find("sentiment", settings.sentiment)
    if faults:
        raise ModelError("; ".join(faults))
    return found
