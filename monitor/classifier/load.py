"""The model section of the configuration to a classifier that is ready."""

from __future__ import annotations

from monitor.classifier.checkpoint import checkpoint_folder, load_checkpoint, read_labels
from monitor.classifier.null import NullClassifier
from monitor.classifier.protocol import Classifier
from monitor.config import ModelSettings


def load_classifier(settings: ModelSettings) -> Classifier:
    """The configured classifier. Raises ModelError when the checkpoint, the base or the device cannot be used.

    A number of threads in `settings` holds for torch in the whole process.
    """
    if settings.disabled:
        return NullClassifier(read_labels(settings).topics)
    import torch

    from monitor.classifier.two_head import TwoHeadClassifier

    if settings.threads:
        torch.set_num_threads(settings.threads)
    return TwoHeadClassifier(load_checkpoint(checkpoint_folder(settings), settings.base), settings.device)
