"""How many documents a second one process takes from Kafka into SQLite without a model, and where the time goes, as JSON.

`python -m tests.benchmarks.loop_throughput [--records N]`
"""

import argparse
import itertools
import json
import platform
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

from monitor.config import KafkaSettings
from monitor.publish import publish
from tests.end_to_end.processes import Bellwether, until
from tests.kafka.server import start_local

BEGIN = datetime(2026, 3, 2, tzinfo=UTC)
STAGES = ("poll", "decode", "prepare", "classify", "score", "save", "place", "settle", "judge")
SYLLABLES = [f"{consonant}{vowel}" for consonant in "bdfgklmnprstvz" for vowel in "aeiou"]
# Eight thousand words, the k-th as frequent as 1/k: about what English headlines are made of.
WORDS = [f"{first}{second}{third}" for first in SYLLABLES[:20] for second in SYLLABLES[::3] for third in SYLLABLES[::4]][:8_000]
FREQUENCIES = list(itertools.accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))


def documents(number: int, per_minute: int) -> list[bytes]:
    """Headlines of twelve words, a fifth of them copies of an earlier one, spread over the minutes of a busy feed."""
    chance = Random(11)
    titles: list[str] = []
    lines = []
    for place in range(number):
        fresh = not titles or chance.random() < 0.8
        title = " ".join(chance.choices(WORDS, cum_weights=FREQUENCIES, k=12)) if fresh else chance.choice(titles[-2_000:])
        if fresh:
            titles.append(title)
        moment = (BEGIN + timedelta(minutes=place / per_minute)).isoformat()
        news = {"uri": f"bench:{place}", "headline": title, "source": f"source-{chance.randrange(30)}", "received_at": moment}
        lines.append(json.dumps(news).encode() + b"\n")
    return lines


def measure(records: int, per_minute: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kafka = start_local(folder / "kafka")
        try:
            topic = kafka.create_topic("news.raw", partitions=1, config={"retention.ms": "-1"})
            publish(iter(documents(records, per_minute)), KafkaSettings(bootstrap_servers=(kafka.bootstrap,)), topic)
            source = {"kind": "kafka", "kafka": {"bootstrap_servers": [kafka.bootstrap], "topics": [topic]}}
            sections = {"batch": {"max_documents": 1000, "max_tokens": 100_000}}
            daemon = Bellwether(folder / "daemon", source, sections=sections)
            daemon.start()
            daemon.until_ready()
            consumed = "bellwether_records_consumed_total"
            until(lambda: daemon.metrics().get(consumed, 0) > 0, 60, "the first record")
            first_s, first = time.monotonic(), daemon.metrics()
            until(lambda: daemon.metrics()[consumed] >= records, 600, "the last record")
            last_s, last = time.monotonic(), daemon.metrics()
            cpu_s = (
                last["process_cpu_seconds_total"] - first["process_cpu_seconds_total"] if "process_cpu_seconds_total" in last else 0
            )
            daemon.terminate()
        finally:
            kafka.stop()
    stages = {stage: f'bellwether_stage_seconds_total{{stage="{stage}"}}' for stage in STAGES}
    spent = {stage: last[name] - first[name] for stage, name in stages.items()}
    number, wall_s = last[consumed] - first[consumed], last_s - first_s
    return {
        "machine": platform.processor() or platform.machine(),
        "records": int(number),
        "wall_s": round(wall_s, 2),
        "documents_per_s": round(number / wall_s),
        "cpu_s": round(cpu_s, 2),
        "stage_share": {stage: round(seconds / wall_s, 3) for stage, seconds in spent.items()},
        "stage_microseconds_a_document": {stage: round(seconds / number * 1e6, 1) for stage, seconds in spent.items()},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--per-minute", type=int, default=600)
    options = parser.parse_args()
    print(json.dumps(measure(options.records, options.per_minute), indent=1))
