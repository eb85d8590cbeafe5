"""What the daemon knows about itself, as Prometheus metrics: every label value comes from configuration or a fixed vocabulary."""

from __future__ import annotations

import threading
import time
from collections import Counter as Counts
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as MetricFamily
from prometheus_client.registry import Collector

from alerts.types import AttemptResult, ChangeKind, Severity
from monitor.classifier.protocol import Effort, Engine
from monitor.stories import Standing
from monitor.types import TONES, Partition, Reading, RejectReason, SeriesKind

MAX_ENTITIES: Final = 300
"""Entities with series of their own at once; the quietest beyond it are summed as `other`."""

STAGES: Final = ("poll", "decode", "prepare", "classify", "score", "save", "place", "settle", "judge")
"""What the loop spends its time on."""


@dataclass(frozen=True, slots=True)
class Balance:
    """What became of the records since the process started.

    `consumed` and `rejected` are those that this instance read: the others wait for their turn. The rest is what it placed when it
    led. Over all instances `consumed = stories + copies + stale + duplicate + rejected` once nothing waits. The whole value is
    replaced at each commit, so that a scrape between two commits sees one of them, never a mixture.
    """

    consumed: int = 0
    stories: int = 0
    copies: int = 0
    stale: int = 0
    duplicate: int = 0
    rejected: Mapping[RejectReason, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class View:
    """How the windows stood at one moment of stream time, for the metrics and the console."""

    at_ms: int | None = None
    readings: tuple[Reading, ...] = ()
    firing: Mapping[tuple[str, Severity], int] = field(default_factory=dict)
    blind: bool = False
    unknown: int = 0


class _BalanceCollector(Collector):
    """Exports the balance and the view as they are at the moment of the scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[MetricFamily]:
        yield from _balance_families(self._metrics.balance)
        yield from _view_families(self._metrics.view, self._metrics.rules)


def _balance_families(balance: Balance) -> Iterator[MetricFamily]:
    consumed = CounterMetricFamily("bellwether_records_consumed", "Records read and saved, whatever became of them.")
    consumed.add_metric([], balance.consumed)
    yield consumed
    outcome = CounterMetricFamily(
        "bellwether_records",
        "Records by what became of them; over all instances they add up to what was consumed and waits no longer.",
        labels=["outcome"],
    )
    rejected = sum(balance.rejected.values())
    outcomes = {
        "counted": balance.stories + balance.copies,
        "stale": balance.stale,
        "duplicate": balance.duplicate,
        "rejected": rejected,
    }
    for name, number in outcomes.items():
        outcome.add_metric([name], number)
    yield outcome
    counted = CounterMetricFamily(
        "bellwether_documents_counted", "Counted documents: first of their story, or copy.", labels=["as"]
    )
    counted.add_metric(["story"], balance.stories)
    counted.add_metric(["copy"], balance.copies)
    yield counted
    reasons = CounterMetricFamily("bellwether_records_rejected", "Dead letters by reason.", labels=["reason"])
    for reason in RejectReason:
        reasons.add_metric([reason], balance.rejected.get(reason, 0))
    yield reasons


def _view_families(view: View, rules: Sequence[tuple[str, Severity]]) -> Iterator[MetricFamily]:
    labels = ["kind", "series", "tone"]
    stories = GaugeMetricFamily("bellwether_window_stories", "Distinct stories of the last hour of stream time.", labels=labels)
    copies = GaugeMetricFamily("bellwether_window_copies", "Copies of the last hour of stream time.", labels=labels)
    for kind, name, reading_stories, reading_copies in _exported(view.readings):
        for tone, number, reach in zip(TONES, reading_stories, reading_copies, strict=True):
            stories.add_metric([kind, name, tone], number)
            copies.add_metric([kind, name, tone], reach)
    yield stories
    yield copies
    firing = GaugeMetricFamily("bellwether_incidents_firing", "Open incidents.", labels=["rule", "severity"])
    for rule, severity in rules:
        firing.add_metric([rule, severity], view.firing.get((rule, severity), 0))
    yield firing
    unknown = GaugeMetricFamily("bellwether_alerts_unknown", "Alert states that are frozen because the feed is blind.")
    unknown.add_metric([], view.unknown)
    yield unknown
    blind = GaugeMetricFamily("bellwether_feed_blind", "1 while no document was counted for `time.blind_after` of stream time.")
    blind.add_metric([], int(view.blind))
    yield blind


def _exported(readings: Iterable[Reading]) -> Iterator[tuple[str, str, tuple[int, ...], tuple[int, ...]]]:
    """Readings as (kind, name, stories, copies); entities beyond the cap, the quietest, are summed as one `other`."""
    entities = sorted(
        (reading for reading in readings if reading.series.kind is SeriesKind.ENTITY), key=lambda reading: -reading.stories
    )
    for reading in readings:
        if reading.series.kind is not SeriesKind.ENTITY:
            yield reading.series.kind, reading.series.name, reading.count.stories, reading.count.copies
    for reading in entities[:MAX_ENTITIES]:
        yield SeriesKind.ENTITY, reading.series.name, reading.count.stories, reading.count.copies
    if entities[MAX_ENTITIES:]:
        rest = [reading.count for reading in entities[MAX_ENTITIES:]]
        total = sum(rest[1:], start=rest[0])
        yield SeriesKind.ENTITY, "other", total.stories, total.copies


class Metrics:
    """Every metric of the daemon, on a registry that is passed in."""

    def __init__(self, registry: CollectorRegistry, rules: Sequence[tuple[str, Severity]], receivers: Sequence[str]) -> None:
        self.registry = registry
        self.rules = tuple(rules)
        self.balance = Balance()
        self.view = View()
        registry.register(_BalanceCollector(self))
        self.build = Info("bellwether_build", "Version of the program and of the model.", registry=registry)
        self.stage_seconds = Counter(
            "bellwether_stage_seconds", "Time the loop spent, by stage; classify: waiting for it.", ["stage"], registry=registry
        )
        self.batch_documents = Histogram(
            "bellwether_batch_documents", "Documents a batch.", buckets=(1, 4, 16, 64, 128, 256, 512, 1024), registry=registry
        )
        self.batch_tokens = Histogram(
            "bellwether_batch_tokens", "Tokens a batch.", buckets=(64, 256, 1024, 2048, 4096, 8192, 16384), registry=registry
        )
        self.encoder = Info("bellwether_encoder", "Where, in which precision and how the encoder computes.", registry=registry)
        self.pass_tokens = Histogram(
            "bellwether_pass_tokens",
            "Tokens a forward pass of the encoder, without padding; their sum is all that it read.",
            buckets=(64, 256, 512, 1024, 1536, 4096, 16384, 65536),
            registry=registry,
        )
        self.padding_tokens = Counter(
            "bellwether_padding_tokens", "Padding that the encoder read; a packed encoder reads none.", registry=registry
        )
        self.undefined = Counter(
            "bellwether_documents_undefined", "Documents that the model gave no number for; uncertain.", registry=registry
        )
        self.halvings = Counter(
            "bellwether_pass_halvings", "Forward passes cut in two because memory did not suffice.", registry=registry
        )
        self.truncated = Counter("bellwether_documents_truncated", "Documents cut to the model's limit.", registry=registry)
        self.clamped = Counter(
            "bellwether_documents_clamped", "Documents whose publication time lay in the future.", registry=registry
        )
        self.collection_delay_seconds = Histogram(
            "bellwether_collection_delay_seconds",
            "From publication to reception.",
            buckets=(1, 5, 15, 60, 300, 900, 3600, 21600, 86400),
            registry=registry,
        )
        self.watermark_seconds = Gauge(
            "bellwether_watermark_timestamp_seconds", "Stream time up to which rules were judged.", registry=registry
        )
        self.leader = Gauge(
            "bellwether_leader", "1 while this instance leads: it places documents and judges minutes.", registry=registry
        )
        self.last_commit_seconds = Gauge(
            "bellwether_last_commit_timestamp_seconds", "Wall-clock time of the last saved batch.", registry=registry
        )
        self.lag_records = Gauge(
            "bellwether_source_lag",
            "End of the log minus the saved position: records in Kafka, bytes in a file.",
            ["topic", "partition"],
            registry=registry,
        )
        self.late = Counter(
            "bellwether_records_late", "Records counted in a minute that had been judged already.", registry=registry
        )
        self.incidents = Counter("bellwether_incidents", "Changes of incidents.", ["rule", "change"], registry=registry)
        self.evaluations = Counter("bellwether_evaluations", "Minutes of stream time judged.", registry=registry)
        self.fenced = Counter(
            "bellwether_fenced", "Writes refused because another instance had taken the partition over.", registry=registry
        )
        self.store_retries = Counter(
            "bellwether_store_retries", "Saves tried again because the database did not answer.", registry=registry
        )
        self.source_restarts = Counter(
            "bellwether_source_restarts", "Times the source was closed and opened again.", registry=registry
        )
        self.interruptions = Counter(
            "bellwether_source_interruptions",
            "Breaks in the log: rotated, truncated, replaced, expired.",
            ["kind"],
            registry=registry,
        )
        self.delivery_attempts = Counter(
            "bellwether_delivery_attempts", "Attempts to deliver, by outcome.", ["receiver", "result"], registry=registry
        )
        self.delivery_seconds = Histogram(
            "bellwether_delivery_seconds",
            "Time an attempt took.",
            ["receiver"],
            buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 15),
            registry=registry,
        )
        self.outbox_waiting = Gauge("bellwether_outbox_waiting", "Deliveries that are not finished.", registry=registry)
        self.output_published = Counter(
            "bellwether_output_published", "Documents that the topic of scored documents took.", registry=registry
        )
        self.output_lost = Counter(
            "bellwether_output_lost", "Documents that were pruned before they could be published.", registry=registry
        )
        self.output_failures = Counter(
            "bellwether_output_failures", "Attempts to publish scored documents that the broker did not confirm.", registry=registry
        )
        self.output_waiting = Gauge(
            "bellwether_output_waiting",
            "Placed documents that are not published, as the instance that publishes sees them.",
            registry=registry,
        )
        self.output_age_seconds = Gauge(
            "bellwether_output_age_seconds",
            "How long ago the document was received that this instance is to publish next; 0: none waits.",
            registry=registry,
        )
        self._create_at_zero(receivers)

    def _create_at_zero(self, receivers: Sequence[str]) -> None:
        """Every label combination exists from the start: a rate over a counter that appears at 1 misses the first event."""
        for stage in STAGES:
            self.stage_seconds.labels(stage)
        for rule, _ in self.rules:
            for change in ChangeKind:
                self.incidents.labels(rule, change)
        for receiver in receivers:
            self.delivery_seconds.labels(receiver)
            for result in AttemptResult:
                self.delivery_attempts.labels(receiver, result)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Counts the time that the context lasts to a stage."""
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(stage).inc(time.perf_counter() - began_s)

    def count_placed(self, standings: Iterable[Standing]) -> None:
        """What became of documents whose turn had come."""
        found = Counts(standings)
        before = self.balance
        self.balance = replace(
            before,
            stories=before.stories + found[Standing.STORY],
            copies=before.copies + found[Standing.COPY],
            stale=before.stale + found[Standing.STALE],
            duplicate=before.duplicate + found[Standing.DUPLICATE],
        )

    def count_consumed(self, consumed: int, rejected: Iterable[RejectReason]) -> None:
        """How many records were read and saved, and why some of them are dead letters."""
        before = self.balance
        reasons = Counts(before.rejected)
        reasons.update(rejected)
        self.balance = replace(before, consumed=before.consumed + consumed, rejected=reasons)

    def set_engine(self, engine: Engine) -> None:
        """How the classifier computes."""
        self.encoder.info({"device": engine.device, "precision": engine.precision, "encoder": engine.encoder})

    def count_effort(self, effort: Effort) -> None:
        """What the classifier did for a batch."""
        for tokens in effort.pass_tokens:
            self.pass_tokens.observe(tokens)
        self.padding_tokens.inc(effort.padding_tokens)
        self.undefined.inc(effort.undefined)
        self.halvings.inc(effort.halvings)

    def set_lag(self, partition: Partition, records: int) -> None:
        """How far the saved position is behind the end of the log."""
        self.lag_records.labels(partition.topic, str(partition.number)).set(records)


class RenderedMetrics:
    """The text of /metrics, rendered at most once per `refresh_s` however many scrape it."""

    def __init__(self, registry: CollectorRegistry, refresh_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._refresh_s = refresh_s
        self._clock = clock
        self._lock = threading.Lock()
        self._rendered: dict[str, tuple[float, bytes]] = {}

    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type, in the format that `accept` prefers; at most `refresh_s` old."""
        encoder, content_type = choose_encoder(accept)
        with self._lock:
            rendered_s, body = self._rendered.get(content_type, (float("-inf"), b""))
            if self._clock() - rendered_s >= self._refresh_s:
                body = encoder(self._registry)
                self._rendered[content_type] = (self._clock(), body)
        return body, content_type
