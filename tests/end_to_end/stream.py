"""An invented stream of news with a known truth: what must be counted, refused, told."""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

BEGIN = datetime(2026, 3, 2, 6, 0, tzinfo=UTC)
ENTITIES = [{"id": f"bank-{number}", "name": f"Bank{number} Holdings"} for number in range(6)]
IN_THE_NEWS = {
    "name": "in-the-news",
    "metric": "stories",
    "series": "entity",
    "window": "15m",
    "comparison": ">=",
    "level": 12,
    "clear_level": 4,
}
"""A rule that fires for a bank now and then."""
POISON = (
    b"{",
    b'{"uri": 7, "headline": "x"}',
    b'{"headline": "no id"}',
    b'{"uri": "a\\ud800", "headline": "x"}',
    b"[1, 2]",
    b"\xff\xfe",
)
_WORDS = [f"{head}{tail}" for head in "bakidofugelamenuposarituvowyza" for tail in ("rnel", "stom", "vix", "quod", "lint", "mbar")]


@dataclass(frozen=True)
class Line:
    """One record: its time, its bytes, and what must become of it."""

    time_ms: int
    value: bytes
    outcome: str


def stamp(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


def stream(number: int, seed: int = 7) -> Iterator[Line]:
    """`number` records over eight hours: news about six banks, every hundredth poison, every seventieth a repetition.

    In each hour one bank is in the news for a quarter: that is what rules find.
    """
    chance = random.Random(seed)
    previous = b""
    for place in range(number):
        moment = BEGIN + timedelta(hours=8) * place / number
        time_ms = int(moment.timestamp() * 1000)
        if place % 100 == 50:
            yield Line(time_ms, POISON[place // 100 % len(POISON)], "rejected")
            continue
        if place % 70 == 30 and previous:
            yield Line(time_ms, previous, "duplicate")
            continue
        hot = moment.minute < 15 and chance.random() < 0.5
        bank = f" Bank{moment.hour % len(ENTITIES)} Holdings" if hot else ""
        words = " ".join(chance.choices(_WORDS, k=12))
        news = {
            "uri": f"tag:example.org,2026:{place}",
            "headline": f"{words}{bank}",
            "source": f"source-{chance.randrange(5)}",
            "received_at": stamp(moment),
            "versioncreated": stamp(moment - timedelta(seconds=chance.randrange(120))),
        }
        previous = json.dumps(news).encode()
        yield Line(time_ms, previous, "counted")
