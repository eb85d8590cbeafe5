"""Counts per hour to the profile of a week: how much busier than the mean each of its 168 hours is."""

from __future__ import annotations

from typing import Final

import numpy as np

from alerts.tails import Floats

WEEK_HOURS: Final = 168
"""The hours of a week are numbered from the epoch's: 0 is midnight before Thursday, UTC."""
_DAY_HOURS: Final = 24
_STEP_STORIES: Final = 200.0
"""So many stories are as good a witness as what is believed without them."""


def profile(counted: Floats, expected: Floats) -> Floats:
    """The weekly profile, 168 numbers with mean 1, from what was counted in each hour of the week and what a flat week would give.

    Hours are believed to be alike until counted otherwise: first the hours of the day, then the days of the week, then each hour of
    the week departs from what is believed of it as far as its counts weigh against `_STEP_STORIES`. So four weeks suffice, and a
    log's first days say little. Neighbouring hours lend each other a quarter.
    """
    by_hour = np.tile(_departure(_lend(_by_hour(counted)), _lend(_by_hour(expected))), WEEK_HOURS // _DAY_HOURS)
    by_day = np.repeat(_departure(_by_day(counted), _by_day(expected * by_hour)), _DAY_HOURS)
    believed = by_hour * by_day
    each = believed * _departure(_lend(counted), _lend(expected * believed))
    return np.asarray(each / each.mean())


def _departure(counted: Floats, expected: Floats) -> Floats:
    return (counted + _STEP_STORIES) / (expected + _STEP_STORIES)


def _by_hour(week: Floats) -> Floats:
    return np.asarray(week.reshape(-1, _DAY_HOURS).sum(axis=0))


def _by_day(week: Floats) -> Floats:
    return np.asarray(week.reshape(-1, _DAY_HOURS).sum(axis=1))


def _lend(circle: Floats) -> Floats:
    return np.asarray(0.25 * np.roll(circle, 1) + 0.5 * circle + 0.25 * np.roll(circle, -1))
