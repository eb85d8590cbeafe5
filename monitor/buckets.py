"""Placed documents in, minute counts per series out."""

from __future__ import annotations

from dataclasses import dataclass, field

from monitor.stories import Placed, Placement
from monitor.types import MINUTE_MS, TONES, Bucket, Count, Partition, Series, SeriesKind, Stance


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
    scored = placed.scored
    minute_ms = scored.received_ms - scored.received_ms % MINUTE_MS
    toward = dict(scored.toward)

    def counted_in(series: Series) -> Stance:
        """An entity's own series counts what is said of it, every other what the text says as a whole."""
        return toward[series.name] if series.kind is SeriesKind.ENTITY else scored.stance

    for series in placed.new_series:
        stance = counted_in(series)
        tally = tallies.setdefault((scored.partition, minute_ms, series), _Tally())
        tally.stories[TONES.index(stance.tone)] += 1
        tally.score_units += stance.score_units
    for series in placed.copy_series:
        tally = tallies.setdefault((scored.partition, minute_ms, series), _Tally())
        tally.copies[TONES.index(counted_in(series).tone)] += 1


def _order(key: tuple[Partition, int, Series]) -> tuple[str, int, int, str, str]:
    partition, minute_ms, series = key
    return partition.topic, partition.number, minute_ms, series.kind, series.name
