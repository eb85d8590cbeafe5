"""Placed documents in, minute counts per series out."""

from __future__ import annotations

from dataclasses import dataclass, field

from monitor.stories import Placed, Placement
from monitor.types import MINUTE_MS, TONES, Bucket, Count, Opinion, Partition, Prediction, Series, SeriesKind


@dataclass(slots=True)
class _Tally:
    stories: list[int] = field(default_factory=lambda: [0] * len(TONES))
    copies: list[int] = field(default_factory=lambda: [0] * len(TONES))
    score_units: int = 0

    def count(self) -> Count:
        a, b, c, d = self.stories
        e, f, g, h = self.copies
        return Count((a, b, c, d), (e, f, g, h), self.score_units)


def fold(placement: Placement) -> tuple[Bucket, ...]:
    """One bucket per partition, minute of received time and series with at least one story or copy, sorted.

    The order of the documents does not matter, and the buckets of two parts of a placement add up to those of the whole.
    """
    tallies: dict[tuple[Partition, int, Series], _Tally] = {}
    for placed in placement.placed:
        _add(tallies, placed)
    return tuple(Bucket(*key, tallies[key].count()) for key in sorted(tallies, key=_order))


def _add(tallies: dict[tuple[Partition, int, Series], _Tally], placed: Placed) -> None:
    document, prediction = placed.scored.document, placed.scored.prediction
    minute_ms = document.received_ms - document.received_ms % MINUTE_MS
    for series in placed.new_series:
        opinion = _opinion(prediction, series)
        tally = tallies.setdefault((document.partition, minute_ms, series), _Tally())
        tally.stories[TONES.index(opinion.tone)] += 1
        tally.score_units += opinion.score_units
    for series in placed.copy_series:
        tally = tallies.setdefault((document.partition, minute_ms, series), _Tally())
        tally.copies[TONES.index(_opinion(prediction, series).tone)] += 1


def _opinion(prediction: Prediction, series: Series) -> Opinion:
    """What a series counts: an entity's own opinion in its own series, that of the whole text everywhere else."""
    return prediction.opinion(series.name) if series.kind is SeriesKind.ENTITY else prediction.document


def _order(key: tuple[Partition, int, Series]) -> tuple[str, int, int, str, str]:
    partition, minute_ms, series = key
    return partition.topic, partition.number, minute_ms, series.kind, series.name
