"""Simulated news in which nothing happens, and surges of known size: false alarms a day against the budget, and how much is found.

`python -m tests.benchmarks.surge_noise [--series N] [--rate N] [--days N] [--copies N] [--budget B ...] [--parts P ...]`

Noise: every series has a gamma-distributed rate, its own share of negative stories and the week of a newsroom; four weeks are the
baseline, and each minute of the days after is judged on sliding windows, as the daemon does, with a baseline estimated anew every
hour. Each story comes in `--copies` documents, hours apart, and is counted through buckets, as the daemon counts. Copies counted as
stories show what that spares. Power: the volume of a series is four times and its negative share 0.7 instead of 0.3, for two hours.
First day: the log begins, a day like any other; and a name that was never heard has thirty negative stories in an hour.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from alerts.baseline import WINDOWS_MS, Roster, estimate, first_hour
from alerts.surge import Counted, SurgeKind, SurgeSettings, SurgeTest, feed_factors
from monitor.history import History
from monitor.types import ALL_SERIES, HOUR_MS, MINUTE_MS, Bucket, Count, Partition, Series, SeriesKind

WIRE = Partition("news", 0)
HOUR, DAY = 60, 1_440
BEGIN = 20_000 * DAY  # a minute, at the beginning of a day
WEEKS_MINUTES = 29 * DAY
KEEP_FIRING = 30
LONGEST = WINDOWS_MS[-1] // MINUTE_MS


@dataclass(frozen=True)
class News:
    """Documents in the order of time: the minute, the series, whether it is negative, whether it is a copy."""

    minute: np.ndarray
    series: np.ndarray
    negative: np.ndarray
    copy: np.ndarray

    def between(self, first: int, until: int) -> News:
        span = slice(*np.searchsorted(self.minute, [first, until]))
        return News(self.minute[span], self.series[span], self.negative[span], self.copy[span])

    def joined(self, other: News) -> News:
        minute = np.concatenate((self.minute, other.minute))
        order = np.argsort(minute, kind="stable")
        columns = ((self.series, other.series), (self.negative, other.negative), (self.copy, other.copy))
        return News(minute[order], *(np.concatenate(both)[order] for both in columns))


@dataclass(frozen=True)
class World:
    """Who is watched: entities, each of one topic; their rates of stories a day and their negative shares."""

    entities: tuple[Series, ...]
    topics: tuple[Series, ...]
    topic_of: np.ndarray
    rate: np.ndarray
    share: np.ndarray

    @property
    def roster(self) -> Roster:
        return Roster([ALL_SERIES, *self.topics, *self.entities])


def world(series: int, topics: int, rate: float, random: np.random.Generator) -> World:
    return World(
        entities=tuple(Series(SeriesKind.ENTITY, f"name-{number:05d}") for number in range(series)),
        topics=tuple(Series(SeriesKind.TOPIC, f"topic-{number:02d}") for number in range(topics)),
        topic_of=np.arange(series) % topics,
        rate=random.gamma(0.5, 2 * rate, size=series),
        share=random.beta(6.0, 14.0, size=series),
    )


def week() -> np.ndarray:
    """How busy the 168 hours of a newsroom's week are, with mean 1."""
    hours = np.arange(168)
    day = 1.0 + 0.8 * np.sin((hours % 24 - 8) / 24 * 2 * np.pi)
    return day * np.where(hours // 24 % 7 >= 5, 0.35, 1.0) / (day * np.where(hours // 24 % 7 >= 5, 0.35, 1.0)).mean()


def news(of: World, first: int, minutes: int, copies: float, random: np.random.Generator) -> News:
    """Independent stories, and of each a geometric number of further copies that come hours after it."""
    hours = np.arange(first // HOUR, (first + minutes) // HOUR)
    totals = random.poisson(of.rate.sum() / 24 * week()[hours % 168])
    series = random.choice(len(of.rate), size=totals.sum(), p=of.rate / of.rate.sum())
    minute = np.repeat(hours * HOUR, totals) + random.integers(0, HOUR, size=totals.sum())
    negative = random.random(len(series)) < of.share[series]
    further = random.geometric(1.0 / copies, size=len(series)) - 1
    delay = random.exponential(2 * HOUR, size=further.sum()).astype(np.int64)
    first_ones = News(minute, series, negative, np.zeros(len(series), dtype=bool))
    copied = (
        np.repeat(minute, further) + delay,
        np.repeat(series, further),
        np.repeat(negative, further),
        np.ones(further.sum(), bool),
    )
    return first_ones.joined(News(*copied))


def buckets(of: World, documents: News, length: int, *, copies_count: bool) -> Iterator[Bucket]:
    """The buckets of each span of `length` minutes, series, topics and everything, as the daemon folds them."""
    for names, place in (
        (of.entities, documents.series),
        (of.topics, of.topic_of[documents.series]),
        ((ALL_SERIES,), np.zeros_like(documents.series)),
    ):
        kind = 2 * (documents.copy & (not copies_count)) + documents.negative
        keys = ((documents.minute // length) * len(names) + place) * 4 + kind
        cells: dict[int, list[int]] = {}
        for key, number in zip(*(found.tolist() for found in np.unique(keys, return_counts=True)), strict=True):
            cells.setdefault(key // 4, [0, 0, 0, 0])[key % 4] = number
        for cell, (neutral, negative, neutral_copies, negative_copies) in cells.items():
            span, series = divmod(cell, len(names))
            count = Count((negative, neutral, 0, 0), (negative_copies, neutral_copies, 0, 0))
            yield Bucket(WIRE, span * length * MINUTE_MS, names[series], count)


@dataclass
class Sliding:
    """The counts of every series in the sliding windows of a minute, from its buckets."""

    roster: Roster
    ring: np.ndarray = field(init=False)
    sums: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.roster.series)
        self.ring = np.zeros((LONGEST, 2, size), dtype=np.int64)
        self.sums = np.zeros((len(WINDOWS_MS), 2, size), dtype=np.int64)

    def add(self, minute: int, found: list[Bucket]) -> None:
        for place, window_ms in enumerate(WINDOWS_MS):
            self.sums[place] -= self.ring[(minute - window_ms // MINUTE_MS) % LONGEST]
        now = np.zeros_like(self.ring[0])
        for bucket in found:
            row = self.roster.rows[bucket.series]
            now[0, row] += sum(bucket.count.stories)
            now[1, row] += bucket.count.stories[0]
        self.ring[minute % LONGEST] = now
        self.sums += now

    def read(self) -> Counted:
        return Counted(np.arange(len(self.roster.series)), self.sums[:, 0].T, self.sums[:, 1].T)


@dataclass
class Alarms:
    """The incidents of one rule: opened at the first alarm, over once it has been over for half an hour."""

    settings: SurgeSettings
    opened: Counter[tuple[str, int]] = field(default_factory=Counter)
    first: dict[Series, int] = field(default_factory=dict)
    firing: dict[Series, tuple[int, int]] = field(default_factory=dict)

    def judge_minute(self, test: SurgeTest, minute: int, counted: Counted, feed: np.ndarray) -> None:
        at_ms = minute * MINUTE_MS
        for finding in test.alarms(at_ms, counted, feed, lambda _series, _window_ms: 2):
            if finding.series not in self.firing:
                self.opened[str(finding.series.kind), finding.evidence.window_ms // MINUTE_MS] += 1
                self.first.setdefault(finding.series, minute)
                self.firing[finding.series] = finding.evidence.window_ms, minute
        for series, (window_ms, held) in list(self.firing.items()):
            row = test.baseline.roster.rows[series]
            one = Counted(np.array([row]), counted.stories[[row]], counted.negative[[row]])
            if not test.is_over(at_ms, window_ms, one, feed)[0]:
                self.firing[series] = window_ms, minute
            elif minute - held >= KEEP_FIRING:
                del self.firing[series]


def judge(
    of: World, told: News, *, first: int, minutes: int, rules: list[Alarms], tick: Callable[[], None], copies_count: bool = False
) -> dict[str, float]:
    """Judges `minutes` minutes from `first` on; what came before is the baseline. Seconds that it took, by what."""
    roster, history = of.roster, History()
    spent: Counter[str] = Counter()
    history.add(buckets(of, told.between(0, first), HOUR, copies_count=copies_count))
    sliding = Sliding(roster)
    tests: list[SurgeTest] = []
    for minute in range(first - LONGEST, first + minutes):
        found = list(buckets(of, told.between(minute, minute + 1), 1, copies_count=copies_count))
        sliding.add(minute, found)
        if minute < first:
            continue
        history.add(found)
        now = minute + 1
        if now % HOUR == 0 or not tests:
            began = time.process_time()
            hour_ms = now * MINUTE_MS - now * MINUTE_MS % HOUR_MS
            hours = history.hours(roster.series, first_hour(hour_ms), hour_ms // HOUR_MS)
            spent["history"] += time.process_time() - began
            baseline = estimate(roster, *hours, hour_ms, {})
            tests = [SurgeTest(rule.settings, baseline) for rule in rules]
            spent["baseline"] += time.process_time() - began
            spent["hours"] += 1
        counted = sliding.read()
        feed = feed_factors(tests[0].baseline, now * MINUTE_MS, counted.stories[roster.rows[ALL_SERIES]])
        began = time.process_time()
        for rule, test in zip(rules, tests, strict=True):
            rule.judge_minute(test, now, counted, feed)
        spent["judging"] += time.process_time() - began
        spent["minutes"] += len(rules)
        tick()
    return {
        "history_and_baseline_ms_an_hour": 1e3 * spent["baseline"] / spent["hours"],
        "history_ms_an_hour": 1e3 * spent["history"] / spent["hours"],
        "judging_us_a_minute": 1e6 * spent["judging"] / spent["minutes"],
    }


def noise(
    of: World, random: np.random.Generator, *, days: int, copies: float, budgets: list[float], tick: Callable[[], None]
) -> dict[str, Any]:
    """Alarms a day on news in which nothing happens, with copies counted as copies and, where there are any, as stories."""
    first = BEGIN + WEEKS_MINUTES
    told = news(of, BEGIN, WEEKS_MINUTES + days * DAY, copies, random)
    answer: dict[str, Any] = {"copies_a_story": copies, "stories_a_day": float(of.rate.sum())}
    for copies_count in (False, True) if copies > 1 else (False,):
        rules = [
            Alarms(SurgeSettings(kind=kind, alarms_a_day=budget, minimum_stories=least))
            for kind, least in ((SurgeKind.NEGATIVE, 3), (SurgeKind.VOLUME, 5), (SurgeKind.SHARE, 8))
            for budget in budgets
        ]
        cost = judge(of, told, first=first, minutes=days * DAY, rules=rules, tick=tick, copies_count=copies_count)
        answer["copies_counted_as_stories" if copies_count else "stories"] = {
            "cost": cost,
            "alarms": [
                {
                    "kind": str(rule.settings.kind),
                    "budget_a_day": rule.settings.alarms_a_day,
                    "alarms_a_day": sum(rule.opened.values()) / days,
                    "standard_error": sum(rule.opened.values()) ** 0.5 / days,
                    "by_series_and_window": {
                        f"{kind} {window} min": number for (kind, window), number in sorted(rule.opened.items())
                    },
                }
                for rule in rules
            ],
        }
    return answer


def first_days(of: World, days: int, random: np.random.Generator, tick: Callable[[], None]) -> dict[str, Any]:
    """A log that begins in the night: its false alarms by day, and when three names that were quiet alarm that have thirty negative
    stories in one hour of the first day.
    """
    told = news(of, BEGIN, days * DAY, 1.0, random)
    names = np.argsort(of.rate)[:3].tolist()
    begins = [BEGIN + hour * HOUR for hour in (6, 12, 20)]
    for name, begin in zip(names, begins, strict=True):
        minutes = np.sort(random.integers(begin, begin + HOUR, 30))
        told = told.joined(News(minutes, np.full(30, name), np.ones(30, dtype=bool), np.zeros(30, dtype=bool)))
    rule = Alarms(SurgeSettings(alarms_a_day=1.0))
    judge(of, told, first=BEGIN, minutes=days * DAY, rules=[rule], tick=tick)
    delays = {}
    for name, begin in zip(names, begins, strict=True):
        found = rule.first.pop(of.entities[name], None)
        delays[(begin - BEGIN) // HOUR] = None if found is None else found - begin
    by_day = Counter((minute - BEGIN) // DAY for minute in rule.first.values())
    return {
        "budget_a_day": 1.0,
        "alarms_by_day": [by_day[day] for day in range(days)],
        "minutes_to_alarm_of_thirty_in_an_hour_by_hour_of_the_first_day": delays,
    }


def power(names: int, repeats: int, random: np.random.Generator) -> list[dict[str, Any]]:
    """How often the rule finds four times the volume with a negative share of 0.7 instead of 0.3 within two hours, and how fast.

    The budget is one alarm a day, shared by `names` names.
    """
    rates = (0.02, 0.05, 0.2, 0.5, 1.0, 5.0)
    roster = Roster([ALL_SERIES, *(Series(SeriesKind.ENTITY, f"name-{number:05d}") for number in range(repeats * len(rates)))])
    rate = np.concatenate(([0.0], np.repeat(rates, repeats)))
    hours = random.poisson(rate[:, None] * 4, size=(len(rate), 29 * 24)).astype(np.int32)
    negative = random.binomial(hours, 0.3).astype(np.int32)
    hours[0], negative[0] = hours[1:].sum(axis=0), negative[1:].sum(axis=0)
    begin_ms = (BEGIN + WEEKS_MINUTES) * MINUTE_MS
    baseline = estimate(roster, hours, negative, begin_ms, {})
    shared = SurgeSettings(alarms_a_day=len(roster.series) / names)
    test = SurgeTest(shared, baseline)
    before, during = LONGEST, 2 * HOUR
    volume = np.concatenate((np.full(before, 1.0), np.full(during, 4.0))) / 15
    share = np.concatenate((np.full(before, 0.3), np.full(during, 0.7)))
    stories = random.poisson(rate[:, None] * volume)
    bad = random.binomial(stories, share)
    since = [np.concatenate((np.zeros((len(rate), 1), dtype=np.int64), counts.cumsum(axis=1)), axis=1) for counts in (stories, bad)]
    found: dict[Series, int] = {}
    for minute in range(1, during + 1):
        now = before + minute
        counted = Counted(
            np.arange(len(roster.series)),
            *(np.stack([total[:, now] - total[:, now - window // MINUTE_MS] for window in WINDOWS_MS], axis=1) for total in since),
        )
        for alarm in test.alarms(begin_ms + minute * MINUTE_MS, counted, np.ones(len(WINDOWS_MS)), lambda _series, _window_ms: 2):
            found.setdefault(alarm.series, minute)
    answer = []
    for place, each in enumerate(rates):
        delays = [found[series] for series in roster.series[1 + place * repeats : 1 + (place + 1) * repeats] if series in found]
        answer.append(
            {
                "stories_a_quarter": each,
                "names": names,
                "found": len(delays) / repeats,
                "median_minutes": float(np.median(delays)) if delays else None,
            }
        )
    return answer


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--series", type=int, default=10_000, help="simulated names")
    parser.add_argument("--topics", type=int, default=20)
    parser.add_argument("--rate", type=float, default=8.0, help="stories a day of a name, on average")
    parser.add_argument("--days", type=int, default=7, help="days of the test; four weeks come before")
    parser.add_argument("--copies", type=float, default=3.0, help="documents a story, on average, in the second run")
    parser.add_argument("--budget", type=float, nargs="+", default=[1.0, 10.0, 50.0], help="false alarms a day")
    parser.add_argument("--parts", nargs="+", default=["independent", "copies", "first-days", "power"])
    parser.add_argument("--seed", type=int, default=20140101)
    parser.add_argument("--json", type=Path, help="where the figures go; else to standard output")
    chosen = parser.parse_args(arguments)
    random = np.random.default_rng(chosen.seed)
    of = world(chosen.series, chosen.topics, chosen.rate, random)
    answer: dict[str, Any] = {"series": chosen.series, "rate": chosen.rate, "days": chosen.days, "seed": chosen.seed}
    with Progress(console=Console(stderr=True)) as progress:
        if "independent" in chosen.parts:
            tick = ticking(progress, "independent stories", chosen.days)
            answer["independent"] = noise(of, random, days=chosen.days, copies=1.0, budgets=chosen.budget, tick=tick)
        if "copies" in chosen.parts:
            tick = ticking(progress, f"{chosen.copies:g} copies a story", 2 * chosen.days)
            answer["copies"] = noise(of, random, days=chosen.days, copies=chosen.copies, budgets=chosen.budget, tick=tick)
        if "first-days" in chosen.parts:
            answer["first_days"] = first_days(of, 8, random, ticking(progress, "a log's first days", 8))
        if "power" in chosen.parts:
            answer["power"] = [row for names in (60, 10_000) for row in power(names, 400, random)]
    text = json.dumps(answer, indent=2)
    if chosen.json:
        chosen.json.write_text(text + "\n", encoding="utf-8")
    else:
        print(text)


def ticking(progress: Progress, name: str, days: int) -> Callable[[], None]:
    task = progress.add_task(name, total=days * DAY)
    return lambda: progress.advance(task)


if __name__ == "__main__":
    main(sys.argv[1:])
