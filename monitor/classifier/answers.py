"""Logits to what they say: probabilities, opinions, whether there is a number at all; without torch, for training and serving."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from monitor.classifier.manifest import Calibration
from monitor.types import SENTIMENTS, Opinion

Array = NDArray[np.float64]
"""Logits or probabilities, (rows, labels)."""


def finite(logits: Array) -> NDArray[np.bool_]:
    """Which rows hold nothing but numbers."""
    return np.asarray(np.isfinite(logits).all(axis=1), dtype=np.bool_)


def probabilities(logits: Array, temperature: float = 1.0) -> Array:
    """Softmax of `logits / temperature` per row; equal probabilities in a row that holds a number that is not finite."""
    defined = finite(logits)
    scaled = np.where(defined[:, None], logits, 0.0) / temperature
    powers = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def opinions_of(logits: Array, calibration: Calibration) -> list[Opinion]:
    """One opinion per row of sentiment logits in the order of `SENTIMENTS`; "neutral" and uncertain where there is no number."""
    defined = finite(logits)
    given = probabilities(logits, calibration.temperature)
    certain: list[bool] = np.logical_and(
        defined, given.max(axis=1, initial=0.0) >= calibration.uncertain_below, dtype=np.bool_
    ).tolist()
    return [
        Opinion(SENTIMENTS[row.index(max(row))] if known else "neutral", (row[0], row[1], row[2]), uncertain=not sure)
        for row, known, sure in zip(given.tolist(), defined.tolist(), certain, strict=True)
    ]
