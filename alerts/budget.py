"""A number of false alarms a day to the significance that each series may use in each window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from alerts.tails import Floats
from monitor.types import DAY_MS


def significances(weights: Floats, windows_ms: Sequence[int], alarms_a_day: float, inflation: float) -> Floats:
    """The level that the probability of a window must stay below to be an alarm, as an array (series, windows).

    `alarms_a_day` false alarms are expected over all series together. They are shared by weight among the series, equally among
    the windows, and within a window among its tumbling turns a day: a Bonferroni bound over a day, valid whatever depends on what.
    `inflation` is by how much looking every minute, instead of once per turn, multiplies the alarms.
    """
    turns = np.array([DAY_MS / window_ms for window_ms in windows_ms])
    share = weights / max(weights.mean(), 1e-9)  # nothing watched: no series has a share
    return np.asarray(alarms_a_day * share[:, None] / (len(weights) * len(windows_ms) * inflation * turns[None, :]))
