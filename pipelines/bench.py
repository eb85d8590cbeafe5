"""A classifier and invented texts of mixed lengths in, how fast it answers on this machine out."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from rich.table import Table

from monitor.classifier.protocol import Accountable, Classifier
from monitor.types import Passage

_NAMES: Final = (
    "Halden Bank",
    "Corvantis Software",
    "Ferrolith Steel",
    "Norvane Energy",
    "Marlune Foods",
    "Tessarion",
    "Lantern Bank",
)
_SENTENCES: Final = (
    "{name} raised its outlook for the year after sales grew {number}% in the third quarter",
    "Shares of {name} slipped {number}% in early trading as investors weighed a cautious forecast from its largest customer",
    "{name} to cut {number}00 jobs",
    "Regulators opened an inquiry into how {name} sold {number} structured notes to pension savers between 2019 and 2023",
    "The board of {name} named a new finance chief, who joins from {other} in the spring",
    "{name} agreed to buy the logistics arm of {other} for ${number}.4 billion in cash and stock",
    "Analysts at {other} kept a hold rating on {name} and set a target of ${number}",
    "Bond spreads widened by {number} basis points after the central bank signalled that rates would stay where they are",
    "{name} said that a fire at its plant was put out, that nobody was hurt, and that deliveries would resume in {number} days",
    "Oil settled {number}% lower on signs of weaker demand",
    "{name} declares a dividend of {number} cents a share",
    "A person familiar with the talks said that {name} and {other} remain far apart on price, and that no agreement is near",
)
_LENGTHS: Final = ((75, (1, 1)), (15, (2, 4)), (10, (6, 10)))
"""Of a hundred texts so many have from so many to so many sentences: headlines, briefs, articles."""


@dataclass(frozen=True, slots=True)
class Latency:
    """How long a text takes that is alone in its batch, prepared and classified.

    `p50_ms`, `p95_ms` and `p99_ms` are percentiles by the clock over `texts` calls, `cpu_ms` the mean of what all threads spent.
    """

    texts: int
    p50_ms: float
    p95_ms: float
    p99_ms: float
    cpu_ms: float


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast texts are prepared and classified when `batch` of them are given at a time, by the clock and by the CPU's time."""

    batch: int
    documents_per_second: float
    tokens_per_second: float
    documents_per_cpu_second: float
    tokens_per_cpu_second: float


@dataclass(frozen=True, slots=True)
class Speed:
    """What a classifier does on this machine. `tokens` are those that it reads of all `texts`, special ones included."""

    classifier: str
    device: str
    precision: str
    encoder: str
    threads: int
    texts: int
    tokens: int
    rounds: int
    latency: Latency
    paces: tuple[Pace, ...]


def mixed_texts(number: int, seed: int = 1) -> list[Passage]:
    """Invented news of mixed lengths, about 43 tokens in the mean; each text names a company that it is asked about."""
    order = random.Random(seed)  # noqa: S311 (texts)
    weights = [weight for weight, _ in _LENGTHS]
    passages = []
    for _ in range(number):
        least, most = order.choices([span for _, span in _LENGTHS], weights)[0]
        name, other = order.sample(_NAMES, 2)
        text = ". ".join(
            sentence.format(name=name, other=other, number=order.randint(2, 98))
            for sentence in order.sample(_SENTENCES, order.randint(least, most))
        )
        passages.append(mentioning(text, {"it": name}))
    return passages


def mentioning(text: str, names: dict[str, str]) -> Passage:
    """The text with the first place of each name (by its id) as a mention; a name that is not there is none."""
    from monitor.types import Mention

    found = ((text.find(name), name, entity) for entity, name in names.items())
    return Passage(text, tuple(sorted(Mention(start, start + len(name), entity) for start, name, entity in found if start >= 0)))


def measure_latency(classifier: Classifier, passages: Sequence[Passage]) -> Latency:
    """Each text prepared and classified alone, once; two calls before that are not counted."""
    import numpy as np

    for passage in passages[:2]:
        classifier.classify(classifier.prepare([passage]))
    walls, cpu_before = [], time.process_time()
    for passage in passages:
        before = time.perf_counter()
        classifier.classify(classifier.prepare([passage]))
        walls.append(time.perf_counter() - before)
    cpu = time.process_time() - cpu_before
    p50, p95, p99 = (round(float(part) * 1_000, 3) for part in np.percentile(walls, (50, 95, 99)))
    return Latency(len(passages), p50, p95, p99, round(cpu * 1_000 / len(passages), 3))


def measure_paces(
    classifier: Classifier,
    passages: Sequence[Passage],
    batches: Sequence[int],
    rounds: int,
    tick: Callable[[], None] = lambda: None,
) -> tuple[Pace, ...]:
    """The pace at each size of batch, medians over `rounds`. The sizes take turns, so that a busy machine slows all of them."""
    tokens = sum(one.tokens for one in classifier.prepare(passages))
    walls: dict[int, list[float]] = {batch: [] for batch in batches}
    cpus: dict[int, list[float]] = {batch: [] for batch in batches}
    classifier.classify(classifier.prepare(passages[: max(batches)]))
    for _ in range(rounds):
        for batch in batches:
            wall, cpu = time.perf_counter(), time.process_time()
            for start in range(0, len(passages), batch):
                classifier.classify(classifier.prepare(passages[start : start + batch]))
            walls[batch].append(time.perf_counter() - wall)
            cpus[batch].append(max(time.process_time() - cpu, 1e-9))
            tick()
    return tuple(
        Pace(
            batch,
            round(len(passages) / median(walls[batch]), 1),
            round(tokens / median(walls[batch])),
            round(len(passages) / median(cpus[batch]), 1),
            round(tokens / median(cpus[batch])),
        )
        for batch in batches
    )


def bench(
    classifier: Classifier,
    *,
    texts: int = 512,
    batches: Sequence[int] = (1, 8, 32, 128, 512),
    rounds: int = 3,
    tick: Callable[[], None] = lambda: None,
) -> Speed:
    """How fast the classifier is on invented texts; `tick` is called after each round of each size of batch."""
    import torch

    passages = mixed_texts(texts)
    precision, encoder = "", ""
    if isinstance(classifier, Accountable):
        precision, encoder = classifier.engine.precision, classifier.engine.encoder
    return Speed(
        classifier=classifier.version,
        device=classifier.device,
        precision=precision,
        encoder=encoder,
        threads=torch.get_num_threads(),
        texts=texts,
        tokens=sum(one.tokens for one in classifier.prepare(passages)),
        rounds=rounds,
        latency=measure_latency(classifier, passages[:200]),
        paces=measure_paces(classifier, passages, batches, rounds, tick),
    )


def table_of(speed: Speed) -> Table:
    """The figures as a table to print."""
    alone = speed.latency
    table = Table(
        "batch",
        "documents/s",
        "tokens/s",
        "documents/CPU-s",
        "tokens/CPU-s",
        title=f"{speed.classifier} on {speed.device}, {speed.threads} threads, {speed.tokens / speed.texts:.0f} tokens a text",
        caption=f"alone: {alone.p50_ms:.1f} ms (median), {alone.p95_ms:.1f} ms (95 %), {alone.p99_ms:.1f} ms (99 %), "
        f"{alone.cpu_ms:.1f} ms of CPU",
    )
    for pace in speed.paces:
        table.add_row(
            str(pace.batch),
            f"{pace.documents_per_second:,.1f}",
            f"{pace.tokens_per_second:,.0f}",
            f"{pace.documents_per_cpu_second:,.1f}",
            f"{pace.tokens_per_cpu_second:,.0f}",
        )
    return table
