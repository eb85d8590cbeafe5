"""Old headlines through a real Kafka, the daemon and its webhooks: which incidents opened, and when, against dated events.

`python -m tests.end_to_end.archive_replay --data FOLDER [--from DAY] [--until DAY] [--speed N] [--json FILE]`; the folder is laid
out as archive/reuters_headlines_YYYY.tsv.zst (ts_utc, slug, title) and archive/events.tsv.
"""

import argparse
import csv
import io
import json
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import zstandard

from monitor.config import KafkaSettings
from monitor.publish import Pace, publish
from tests.end_to_end.processes import Bellwether, until
from tests.kafka.server import start_local
from tests.receiver import receiving

# Forty names that a desk would have watched; the alias in exact case is the name as newsrooms write it.
NAMES = """Lehman Brothers=Lehman; AIG=American International Group; Merrill Lynch=Merrill; Goldman Sachs=Goldman;
Morgan Stanley; Bear Stearns; Washington Mutual=WaMu; Wachovia; Citigroup=Citi,Citibank; Bank of America=BofA,BoA;
JPMorgan=JP Morgan,JPM;
Wells Fargo; Fannie Mae; Freddie Mac; HBOS; Lloyds TSB=Lloyds; Barclays; RBS=Royal Bank of Scotland; HSBC; Northern Rock;
Bradford & Bingley=B&B; UBS; Credit Suisse; Deutsche Bank; Commerzbank; Hypo Real Estate; Fortis; Dexia; ING; BNP Paribas=BNP;
Societe Generale=SocGen; UniCredit; Santander; Nomura; Mitsubishi UFJ=MUFG; Mizuho; Macquarie; IndyMac; Countrywide; GE Capital"""

RULES: list[dict[str, Any]] = [
    {
        "name": "tone",
        "metric": "negative_share",
        "series": "entity",
        "window": "1h",
        "comparison": ">=",
        "level": 0.6,
        "clear_level": 0.4,
        "minimum_stories": 5,
        "for": "2m",
        "keep_firing": "30m",
        "severity": "warning",
    },
    {
        "name": "burst",
        "metric": "negative_stories",
        "series": "entity",
        "window": "1h",
        "comparison": ">=",
        "level": 6,
        "clear_level": 3,
        "keep_firing": "30m",
        "severity": "critical",
    },
    {
        "name": "day",
        "metric": "negative_stories",
        "series": "entity",
        "window": "12h",
        "comparison": ">=",
        "level": 12,
        "clear_level": 6,
        "keep_firing": "1h",
        "severity": "warning",
    },
]


def entities() -> list[dict[str, Any]]:
    found = []
    for item in NAMES.replace("\n", " ").split(";"):
        name, _, aliases = item.strip().partition("=")
        identity = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        found.append({"id": identity, "name": name, "aliases": [alias.strip() for alias in aliases.split(",") if alias.strip()]})
    return found


def headlines(path: Path, begin: str, until_day: str) -> Iterator[tuple[str, str]]:
    """(time, title) of every headline from the morning of `begin` to the end of `until_day`."""
    with path.open("rb") as file:
        text = io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(file), encoding="utf-8")
        for line in text:
            moment, _, title = line.rstrip("\n").split("\t")
            if begin <= moment[:10] <= until_day:
                yield moment, title


def documents(rows: Iterator[tuple[str, str]]) -> Iterator[bytes]:
    """The headlines as news.raw records; the wire has one source, so rules here ask for no second one."""
    for place, (moment, title) in enumerate(rows):
        whole = f"{moment[:16]}:00Z"
        news = {"uri": f"archive:{place}", "headline": title, "source": "wire", "received_at": whole, "versioncreated": whole}
        yield json.dumps(news).encode() + b"\n"


def moment(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, tz=UTC).strftime("%m-%d %H:%M")


def replay(data: Path, begin: str, until_day: str, speed: float) -> dict[str, Any]:
    """Runs everything; what was published, told and decided."""
    path = data / "archive" / f"reuters_headlines_{begin[:4]}.tsv.zst"
    lines = list(documents(headlines(path, begin, until_day)))
    with tempfile.TemporaryDirectory() as name, receiving() as receiver:
        folder = Path(name)
        kafka = start_local(folder / "kafka")
        try:
            topic = kafka.create_topic("news.raw", partitions=1, config={"retention.ms": "-1"})
            source = {"kind": "kafka", "kafka": {"bootstrap_servers": [kafka.bootstrap], "topics": [topic]}}
            sections = {
                "model": {"disabled": False},
                "time": {"blind_after": "6h", "idle_after": "5s"},
                "documents": {"max_age": "24h"},
            }
            daemon = Bellwether(folder / "daemon", source, RULES, entities(), receiver.url, sections)
            daemon.start()
            daemon.until_ready()
            begun = time.monotonic()
            sent = publish(iter(lines), KafkaSettings(bootstrap_servers=(kafka.bootstrap,)), topic, pace=Pace(speed=speed))
            published_s = time.monotonic() - begun
            consumed = "bellwether_records_consumed_total"
            until(lambda: daemon.metrics().get(consumed, 0) >= sent.sent, 1_800, "all consumed")
            consumed_s = time.monotonic() - begun
            time.sleep(8)
            metrics = daemon.metrics()
            assert daemon.terminate() == 0
        finally:
            kafka.stop()
        assert not receiver.unverified
        messages = receiver.first_of_each()
    span_s = (
        datetime.fromisoformat(f"{until_day}T23:59:59+00:00") - datetime.fromisoformat(f"{begin}T00:00:00+00:00")
    ).total_seconds()
    return {
        "headlines": len(lines),
        "published_s": round(published_s, 1),
        "consumed_s": round(consumed_s, 1),
        "times_life": round(span_s / consumed_s),
        "balance": {name: value for name, value in metrics.items() if name.startswith("bellwether_records_total")},
        "counted": {name: value for name, value in metrics.items() if name.startswith("bellwether_documents_counted")},
        "webhooks": len(messages),
        "incidents": [message["data"] | {"type": message["type"]} for message in messages],
    }


def report(result: dict[str, Any], data: Path, begin: str, until_day: str) -> None:
    """The table of events, then every incident by name."""
    opened = [item for item in result["incidents"] if item["type"] == "incident.opened"]
    resolved = {item["incident_id"]: item["resolved_at"] for item in result["incidents"] if item["type"] == "incident.resolved"}
    print({key: value for key, value in result.items() if key != "incidents"})
    with (data / "archive" / "events.tsv").open(encoding="utf-8") as file:
        events = [row for row in csv.DictReader(file, delimiter="\t") if begin <= row["first_neg_headline_utc"][:10] <= until_day]
    print("\n| event | first negative headline | rule | opened (stream time) | minutes after |")
    print("|---|---|---|---|---|")
    for event in events:
        first = datetime.fromisoformat(event["first_neg_headline_utc"])
        pattern = re.compile(event["entity_regex"])
        for rule in RULES:
            hits = [
                datetime.fromisoformat(item["opened_at"])
                for item in opened
                if item["rule"] == rule["name"] and pattern.search(item["series"]["display"])
            ]
            after = sorted(hit for hit in hits if hit >= first)
            text = f"{after[0]:%m-%d %H:%M} | {(after[0] - first).total_seconds() / 60:.0f}" if after else "not found |"
            print(f"| {event['event']} | {first:%m-%d %H:%M} | {rule['name']} | {text} |")
    print("\n| entity | rule | opened | resolved | summary |")
    print("|---|---|---|---|---|")
    for item in sorted(opened, key=lambda item: (item["series"]["display"], item["opened_at"])):
        end = resolved.get(item["incident_id"], "open")
        print(f"| {item['series']['display']} | {item['rule']} | {item['opened_at'][5:16]} | {end[5:16]} | {item['summary']} |")
    print("\nincidents by entity:", dict(Counter(item["series"]["display"] for item in opened).most_common()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--from", dest="begin", default="2008-09-08")
    parser.add_argument("--until", default="2008-09-19")
    parser.add_argument("--speed", type=float, default=5_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    result = replay(options.data, options.begin, options.until, options.speed)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1), encoding="utf-8")
    report(result, options.data, options.begin, options.until)


if __name__ == "__main__":
    sys.exit(main())
