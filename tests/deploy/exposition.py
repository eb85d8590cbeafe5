"""A daemon's metrics with something in each of them: what rules and dashboards may ask for."""

from collections import defaultdict
from collections.abc import Mapping
from functools import cache

from prometheus_client import CollectorRegistry, ProcessCollector

from alerts.types import Severity
from monitor.metrics import Metrics, View
from monitor.sources.protocol import InterruptionKind
from monitor.types import ALL_SERIES, MINUTE_MS, Count, Partition, Reading, Series, SeriesKind

RULE, RECEIVER = "entity-tone", "risk-desk"
# What Prometheus itself adds to every series, and makes of its own.
TARGET_LABELS = frozenset({"job", "instance"})
OWN_SERIES = {
    "up": {},
    "ALERTS": {"alertname": set(), "alertstate": {"firing", "pending"}, "severity": set(), "receiver": set(), "kind": set()},
}


def filled() -> Metrics:
    """The metrics of a daemon that has seen everything once."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    metrics = Metrics(registry, [(RULE, Severity.WARNING)], [RECEIVER])
    metrics.build.info({"version": "0", "model": "tiny", "device": "cpu"})
    metrics.encoder.info({"device": "cpu", "precision": "fp32", "encoder": "packed"})
    metrics.set_lag(Partition("news.raw", 0), 5)
    for kind in InterruptionKind:
        metrics.interruptions.labels(kind).inc()
    series = [ALL_SERIES, Series(SeriesKind.TOPIC, "Financials"), Series(SeriesKind.ENTITY, "halden-bank")]
    count = Count(stories=(3, 2, 1, 1), copies=(9, 0, 0, 0))
    metrics.view = View(
        at_ms=60 * MINUTE_MS,
        readings=tuple(Reading(item, 0, 60 * MINUTE_MS, count) for item in series),
        firing={(RULE, Severity.WARNING): 1},
    )
    metrics.watermark_seconds.set_to_current_time()
    metrics.last_commit_seconds.set_to_current_time()
    return metrics


@cache
def vocabulary() -> Mapping[str, Mapping[str, set[str]]]:
    """Each series that can be asked for: its labels, each with the values that it has."""
    known: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for family in filled().registry.collect():
        for sample in family.samples:
            for label, value in sample.labels.items():
                known[sample.name][label].add(value)
            known[sample.name].update()
    return known | OWN_SERIES
