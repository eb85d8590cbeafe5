"""A seed in, a day of invented news out: ordinary business, a run on one bank, copies, noise, and lines that are no documents."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from typing import Final

from monitor.demo.phrases import CHINESE, NOISE, ORDINARY, OTHERS, OUTLETS, PEOPLE, PLACES, PRODUCTS, RESCUE, RUN, WATCHED

ORDINARY_DOCUMENTS: Final = 1_420
NOISE_DOCUMENTS: Final = 90
RUN_BEGINS: Final = time(13, 0)

# How busy each hour of the day is.
_RHYTHM: Final = (1, 1, 1, 1, 2, 3, 6, 9, 12, 12, 10, 9, 8, 9, 10, 11, 10, 8, 6, 4, 3, 2, 2, 1)
_EDITS: Final = ("UPDATE 1-{}", "RPT-{}", "{} - {outlet}", "{}")

_MALFORMED: Final = (
    b'{"uri": "demo:bad-1", "headline": "cut off in the mid',
    b'{"headline": "Who am I? I have no id"}',
    b'{"uri": "demo:bad-3", "headline": ["a", "list"]}',
    b'{"uri": "demo:bad-4", "headline": "not \xff UTF-8"}',
    b'{"uri": "demo:bad-5", "headline": "a zero \\u0000 inside"}',
    b'{"uri": "demo:bad-6", "headline": "   "}',
    b'{"uri": "demo:bad-7", "headline": "when?", "versioncreated": "yesterday, about tea time"}',
    b"[1, 2, 3]",
    b"not JSON at all",
    b'{"uri": null, "headline": "nobody"}',
)


class Kind(StrEnum):
    """What a line is there for."""

    ORDINARY = "ordinary"
    RUN = "run"
    RESCUE = "rescue"
    COPY = "copy"
    NOISE = "noise"
    MALFORMED = "malformed"
    STALE = "stale"
    FUTURE = "future"
    DUPLICATE = "duplicate"


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the day: when the collector saw it, its bytes without the line's end, what it is for."""

    at: datetime
    value: bytes
    kind: Kind


def sample_day(seed: int, day: date) -> list[Line]:
    """Some 2,000 lines in the order in which they were collected, the same for the same seed and day.

    The run on Halden Bank begins at 13:00 UTC and is over by the evening.
    """
    midnight = datetime.combine(day, time(0), tzinfo=UTC)
    writer = _Writer(random.Random(seed), midnight)  # noqa: S311 (invented news is no secret)
    lines = [*writer.ordinary(), *writer.noise(), *writer.run(), *writer.odd()]
    return sorted(lines, key=lambda line: (line.at, line.value))


class _Writer:
    def __init__(self, chance: random.Random, midnight: datetime) -> None:
        self._chance = chance
        self._midnight = midnight
        self._number = 0

    def ordinary(self) -> Iterator[Line]:
        """Business as usual; every seventh piece is taken up by another outlet, every fortieth is in Chinese."""
        topics = list(ORDINARY)
        weights = [len(ORDINARY[topic]) for topic in topics]
        for place in range(ORDINARY_DOCUMENTS):
            pairs = CHINESE if place % 40 == 7 else ORDINARY[self._chance.choices(topics, weights)[0]]
            headline, body = self._fill(self._chance.choice(pairs))
            language = "zh" if pairs is CHINESE else "en"
            at = self._moment()
            outlet = OUTLETS[-1] if language == "zh" else self._chance.choice(OUTLETS[:-1])
            yield self._line(Kind.ORDINARY, at, headline, body, outlet, language)
            if place % 7 == 3 and language == "en":
                yield from self._copies(at, headline, body, outlet, self._chance.randint(1, 2))

    def noise(self) -> Iterator[Line]:
        """What a business feed carries besides business."""
        for _ in range(NOISE_DOCUMENTS):
            headline, body = self._fill(self._chance.choice(NOISE))
            yield self._line(Kind.NOISE, self._moment(), headline, body, self._chance.choice(OUTLETS[:-1]))

    def run(self) -> Iterator[Line]:
        """The run on Halden Bank and its rescue, each piece reprinted by others within the half hour."""
        noon = datetime.combine(self._midnight.date(), RUN_BEGINS, tzinfo=UTC)
        for kind, pieces in ((Kind.RUN, RUN), (Kind.RESCUE, RESCUE)):
            for minutes, headline, body in pieces:
                at = noon + timedelta(minutes=minutes, seconds=self._chance.randint(0, 50))
                outlet = self._chance.choice(OUTLETS[:-1])
                yield self._line(kind, at, headline, body, outlet)
                yield from self._copies(at, headline, body, outlet, self._chance.randint(1, 4))

    def odd(self) -> Iterator[Line]:
        """Lines that are no documents, old news that comes again, clocks that run ahead, and the same document twice."""
        for place in range(20):
            yield Line(self._moment(), _MALFORMED[place % len(_MALFORMED)], Kind.MALFORMED)
        for kind, offset in ((Kind.STALE, timedelta(days=-3)), (Kind.FUTURE, timedelta(hours=9))):
            for _ in range(8):
                at = self._moment()
                headline, body = self._fill(self._chance.choice(ORDINARY["Earnings"]))
                yield self._line(kind, at, headline, body, self._chance.choice(OUTLETS[:-1]), published=at + offset)
        for _ in range(12):
            headline, body = self._fill(self._chance.choice(ORDINARY["M&A | Investments"]))
            first = self._line(Kind.ORDINARY, self._moment(), headline, body, self._chance.choice(OUTLETS[:-1]))
            yield first
            yield Line(first.at + timedelta(minutes=self._chance.randint(1, 30)), first.value, Kind.DUPLICATE)

    def _copies(self, at: datetime, headline: str, body: str, outlet: str, number: int) -> Iterator[Line]:
        others = [other for other in OUTLETS[:-1] if other != outlet]
        for other in self._chance.sample(others, number):
            edited = self._chance.choice(_EDITS).format(headline, outlet=other)
            later = at + timedelta(minutes=self._chance.randint(1, 28), seconds=self._chance.randint(0, 59))
            yield self._line(Kind.COPY, later, edited, body, other)

    def _line(  # noqa: PLR0917
        self,
        kind: Kind,
        at: datetime,
        headline: str,
        body: str,
        outlet: str,
        language: str = "en",
        published: datetime | None = None,
    ) -> Line:
        self._number += 1
        news = {
            "uri": f"demo:{self._number:05d}",
            "versioncreated": _text(published or at - timedelta(seconds=self._chance.randint(5, 240))),
            "headline": headline,
            "body_text": body,
            "language": language,
            "source": outlet,
            "pubstatus": "usable",
            "received_at": _text(at),
        }
        return Line(at, json.dumps(news, ensure_ascii=False).encode(), kind)

    def _moment(self) -> datetime:
        hour = self._chance.choices(range(24), _RHYTHM)[0]
        return self._midnight + timedelta(hours=hour, seconds=self._chance.randrange(3_600))

    def _fill(self, pair: tuple[str, str]) -> tuple[str, str]:
        company = self._chance.choice(WATCHED if self._chance.random() < 0.35 else OTHERS)
        facts = {
            "c": company,
            "d": self._chance.choice([other for other in OTHERS if other != company]),
            "n": self._chance.randint(2, 29),
            "m": self._chance.randint(31, 980),
            "p": self._chance.choice(PLACES),
            "w": self._chance.choice(PEOPLE),
            "x": self._chance.choice(PRODUCTS),
        }
        headline, body = pair
        return headline.format(**facts), body.format(**facts)


def _text(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")
