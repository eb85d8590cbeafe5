"""What a person wants to see of Bellwether, to the Grafana dashboards beside this file: `python deploy/grafana/dashboards.py`."""  # noqa: INP001 (deployment files are no package)

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

FOLDER: Final = Path(__file__).parent
SCHEMA_VERSION: Final = 41
COLUMNS: Final = 24

Kind = Literal["stat", "timeseries", "bargauge", "table"]

INSTANCES: Final = 'job=~"$job", instance=~"$instance"'
JOB: Final = 'job=~"$job"'
DATASOURCE: Final[Mapping[str, str]] = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN_TOPICS: Final = ', series=~"$topic"'
CHOSEN_ENTITIES: Final = ', series=~"$entity"'
NEGATIVE: Final = ', tone="negative"'
OWN_ALERTS: Final = 'ALERTS{alertname=~"Bellwether.*", alertstate="firing"}'
TONE_COLOURS: Final[Mapping[str, str]] = {"negative": "red", "neutral": "gray", "positive": "green", "uncertain": "yellow"}


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called. `instant`: only its value now."""

    expression: str
    legend: str = ""
    instant: bool = False


@dataclass(frozen=True, slots=True)
class Panel:
    """One picture: what it asks, in which unit, and how wide it is (of 24).

    `limits` are the values from which it turns orange and red. `colours` fixes the colour of a series by its name.
    """

    title: str
    description: str
    queries: Sequence[Query]
    unit: str = "short"
    kind: Kind = "timeseries"
    width: int = 8
    height: int = 8
    stacked: bool = False
    limits: tuple[float, float] | None = None
    maximum: float | None = None
    colours: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: Sequence[Panel]


@dataclass(frozen=True, slots=True)
class Variable:
    """A choice at the top of a dashboard, from the values that `label` has in `metric`."""

    name: str
    metric: str
    label: str
    many: bool = True


@dataclass(frozen=True, slots=True)
class Dashboard:
    """A page. `uid` is its address, and the name of its file."""

    uid: str
    title: str
    description: str
    variables: Sequence[Variable]
    rows: Sequence[Row]


JOB_VARIABLE: Final = Variable("job", "bellwether_build_info", "job", many=False)
INSTANCE_VARIABLE: Final = Variable("instance", f"bellwether_build_info{{{JOB}}}", "instance")


def per_second(metric: str, by: str, more: str = "") -> str:
    """The rate of a counter, summed over all but the labels `by`."""
    return f"sum by ({by}) (rate({metric}{{{INSTANCES}{more}}}[$__rate_interval]))"


def in_range(metric: str, by: str, labels: str = INSTANCES) -> str:
    """What a counter grew by within each step of the chart."""
    return f"sum by ({by}) (increase({metric}{{{labels}}}[$__rate_interval]))"


def quantiles(metric: str, by: str = "le") -> list[Query]:
    """Median and 95th percentile of a histogram."""
    name = "".join(f"{{{{{label}}}}} " for label in by.split(", ") if label != "le")
    return [
        Query(f"histogram_quantile({q}, sum by ({by}) (rate({metric}_bucket{{{INSTANCES}}}[$__rate_interval])))", name + said)
        for q, said in ((0.5, "median"), (0.95, "95 %"))
    ]


def tones(kind: str, more: str = "", by: str = "tone", metric: str = "bellwether_window_stories") -> str:
    """Stories of the last hour. An instance that does not judge shows none, so the largest answer is the answer."""
    return f'sum by ({by}) (max by (kind, series, tone) ({metric}{{{JOB}, kind="{kind}"{more}}}))'


def negative_share(kind: str, more: str = "") -> str:
    """Negative stories as a share of all, per series that has any."""
    negative = tones(kind, more + NEGATIVE, "series")
    return f"{negative} / ({tones(kind, more, 'series')} > 0)"


PIPELINE: Final = Dashboard(
    "bellwether-pipeline",
    "Bellwether: pipeline",
    "Whether news is read, counted and judged, and how fast.",
    (JOB_VARIABLE, INSTANCE_VARIABLE),
    (
        Row(
            "Now",
            (
                Panel("Instances", "Instances that answer.", [Query(f"sum(up{{{INSTANCES}}})")], kind="stat", width=4, height=4),
                Panel(
                    "Partitions",
                    "Partitions that somebody reads.",
                    [Query(f"count(max by (topic, partition) (bellwether_source_lag{{{INSTANCES}}}))")],
                    kind="stat",
                    width=4,
                    height=4,
                ),
                Panel(
                    "Lag",
                    "End of the log minus the saved position: records in Kafka, bytes in a file.",
                    [Query(f"sum(max by (topic, partition) (bellwether_source_lag{{{INSTANCES}}}))")],
                    kind="stat",
                    width=4,
                    height=4,
                    limits=(1_000, 10_000),
                ),
                Panel(
                    "Watermark",
                    "How long ago the last judged minute of stream time is.",
                    [Query(f"time() - max(bellwether_watermark_timestamp_seconds{{{JOB}}} > 0)")],
                    "s",
                    kind="stat",
                    width=4,
                    height=4,
                    limits=(120, 300),
                ),
                Panel(
                    "Last save",
                    "How long ago a batch was saved; long when no news arrives.",
                    [Query(f"time() - max(bellwether_last_commit_timestamp_seconds{{{INSTANCES}}} > 0)")],
                    "s",
                    kind="stat",
                    width=4,
                    height=4,
                    limits=(300, 1_800),
                ),
                Panel(
                    "Feed blind",
                    "1 while no document is counted: all alert states are frozen.",
                    [Query(f"max(bellwether_feed_blind{{{JOB}}})")],
                    kind="stat",
                    width=4,
                    height=4,
                    limits=(1, 1),
                ),
            ),
        ),
        Row(
            "Flow",
            (
                Panel(
                    "Records by outcome",
                    "Every record ends as exactly one of these; their sum is what was consumed.",
                    [Query(per_second("bellwether_records_total", "outcome"), "{{outcome}}")],
                    "reqps",
                    stacked=True,
                ),
                Panel(
                    "Counted documents",
                    "First of their story, or a copy of one.",
                    [Query(per_second("bellwether_documents_counted_total", "as"), "{{as}}")],
                    "reqps",
                    stacked=True,
                ),
                Panel(
                    "Dead letters by reason",
                    "Records that are no documents.",
                    [Query(per_second("bellwether_records_rejected_total", "reason"), "{{reason}}")],
                    "reqps",
                    stacked=True,
                ),
                Panel(
                    "Lag by partition",
                    "End of the log minus the saved position.",
                    [Query(f"max by (topic, partition) (bellwether_source_lag{{{INSTANCES}}})", "{{topic}} {{partition}}")],
                ),
                Panel(
                    "Watermark age",
                    "How far behind the clock the last judged minute is.",
                    [Query(f"time() - max by (job) (bellwether_watermark_timestamp_seconds{{{JOB}}} > 0)", "{{job}}")],
                    "s",
                ),
                Panel(
                    "Leader",
                    "Which instance places documents and judges; one at a time.",
                    [Query(f"bellwether_leader{{{INSTANCES}}}", "{{instance}}")],
                    "short",
                ),
                Panel(
                    "Collection delay",
                    "From publication to reception: how late the collectors are.",
                    quantiles("bellwether_collection_delay_seconds"),
                    "s",
                ),
            ),
        ),
        Row(
            "Where the time goes",
            (
                Panel(
                    "Loop by stage",
                    "Seconds of each second that the loops spend so; classify is waiting for the model.",
                    [Query(per_second("bellwether_stage_seconds_total", "stage"), "{{stage}}")],
                    "s",
                    stacked=True,
                ),
                Panel("Documents a batch", "How full batches are.", quantiles("bellwether_batch_documents")),
                Panel("Tokens a batch", "Against batch.max_tokens.", quantiles("bellwether_batch_tokens")),
                Panel(
                    "Tokens read",
                    "What the encoder read, and the padding among it; a packed encoder has none.",
                    [
                        Query(f"sum(rate(bellwether_pass_tokens_sum{{{INSTANCES}}}[$__rate_interval]))", "text"),
                        Query(f"sum(rate(bellwether_padding_tokens_total{{{INSTANCES}}}[$__rate_interval]))", "padding"),
                    ],
                ),
                Panel("Tokens a pass", "Size of a forward pass.", quantiles("bellwether_pass_tokens")),
                Panel(
                    "Documents out of the ordinary",
                    "Cut to the model's limit, dated in the future, counted late, or without an answer of the model.",
                    [
                        Query(in_range("bellwether_documents_truncated_total", "job"), "truncated"),
                        Query(in_range("bellwether_documents_clamped_total", "job"), "clamped"),
                        Query(in_range("bellwether_records_late_total", "job"), "late"),
                        Query(in_range("bellwether_documents_undefined_total", "job"), "undefined"),
                    ],
                ),
            ),
        ),
        Row(
            "Scored output",
            (
                Panel(
                    "Published",
                    "Documents that the topic took, and those that were pruned before that: they are lost to it.",
                    [
                        Query(f"sum(rate(bellwether_output_published_total{{{INSTANCES}}}[$__rate_interval]))", "published"),
                        Query(f"sum(rate(bellwether_output_lost_total{{{INSTANCES}}}[$__rate_interval]))", "lost"),
                    ],
                    "reqps",
                ),
                Panel(
                    "Not published",
                    "Placed documents that wait for the broker, and attempts that it did not confirm.",
                    [
                        Query(f"max by (job) (bellwether_output_waiting{{{JOB}}})", "waiting"),
                        Query(in_range("bellwether_output_failures_total", "job"), "failures"),
                    ],
                ),
                Panel(
                    "Age",
                    "How long ago the document was received that is to be published next.",
                    [Query(f"max by (job) (bellwether_output_age_seconds{{{JOB}}})", "{{job}}")],
                    "s",
                ),
            ),
        ),
        Row(
            "Trouble",
            (
                Panel(
                    "Tried again",
                    "Saves that the database did not answer, sources opened again, passes cut in two for want of memory.",
                    [
                        Query(in_range("bellwether_store_retries_total", "job"), "saves"),
                        Query(in_range("bellwether_source_restarts_total", "job"), "source"),
                        Query(in_range("bellwether_pass_halvings_total", "job"), "passes"),
                    ],
                ),
                Panel(
                    "Refused and broken",
                    "Writes refused because the partition was taken over; breaks in the log.",
                    [
                        Query(in_range("bellwether_fenced_total", "job"), "fenced"),
                        Query(in_range("bellwether_source_interruptions_total", "kind"), "{{kind}}"),
                    ],
                ),
                Panel(
                    "Processor",
                    "Cores in use.",
                    [Query(per_second("process_cpu_seconds_total", "instance"), "{{instance}}")],
                    width=4,
                ),
                Panel(
                    "Memory",
                    "Resident memory.",
                    [Query(f"sum by (instance) (process_resident_memory_bytes{{{INSTANCES}}})", "{{instance}}")],
                    "bytes",
                    width=4,
                ),
                Panel(
                    "Version",
                    "What runs where.",
                    [
                        Query(f"max by (instance, version, model, device) (bellwether_build_info{{{INSTANCES}}})", instant=True),
                        Query(f"max by (instance, precision, encoder) (bellwether_encoder_info{{{INSTANCES}}})", instant=True),
                    ],
                    kind="table",
                    width=COLUMNS,
                    height=6,
                ),
            ),
        ),
    ),
)

TONE: Final = Dashboard(
    "bellwether-tone",
    "Bellwether: tone of the news",
    "How the last hour of stream time speaks, of everything, of each topic and of whom is watched. Stories, not copies.",
    (
        JOB_VARIABLE,
        Variable("topic", f'bellwether_window_stories{{{JOB}, kind="topic"}}', "series"),
        Variable("entity", f'bellwether_window_stories{{{JOB}, kind="entity"}}', "series"),
    ),
    (
        Row(
            "Everything",
            (
                Panel(
                    "Stories by tone",
                    "Distinct stories of the last hour.",
                    [Query(tones("all"), "{{tone}}")],
                    stacked=True,
                    colours=TONE_COLOURS,
                ),
                Panel(
                    "Negative share",
                    "Negative stories as a share of all.",
                    [Query(negative_share("all"), "negative")],
                    "percentunit",
                    maximum=1,
                    colours=TONE_COLOURS,
                ),
                Panel(
                    "Copies by tone",
                    "How often stories were published again.",
                    [Query(tones("all", metric="bellwether_window_copies"), "{{tone}}")],
                    stacked=True,
                    colours=TONE_COLOURS,
                ),
            ),
        ),
        Row(
            "Topics",
            (
                Panel(
                    "Negative share by topic",
                    "Of topics with any story in the last hour.",
                    [Query(negative_share("topic", CHOSEN_TOPICS), "{{series}}")],
                    "percentunit",
                    width=12,
                    maximum=1,
                ),
                Panel(
                    "Stories by topic",
                    "The last hour.",
                    [Query(f"sort_desc({tones('topic', CHOSEN_TOPICS, 'series')})", "{{series}}", instant=True)],
                    kind="bargauge",
                    width=12,
                ),
            ),
        ),
        Row(
            "Who is watched",
            (
                Panel(
                    "Most negative stories",
                    "The ten with the most negative stories in the last hour.",
                    [
                        Query(
                            f"topk(10, {tones('entity', NEGATIVE, 'series')} > 0)",
                            "{{series}}",
                            instant=True,
                        )
                    ],
                    kind="bargauge",
                ),
                Panel(
                    "Stories by tone",
                    "Of those chosen above.",
                    [Query(tones("entity", CHOSEN_ENTITIES), "{{tone}}")],
                    stacked=True,
                    colours=TONE_COLOURS,
                ),
                Panel(
                    "Negative share",
                    "Of those chosen above, with any story in the last hour.",
                    [Query(negative_share("entity", CHOSEN_ENTITIES), "{{series}}")],
                    "percentunit",
                    maximum=1,
                ),
                Panel(
                    "Reach",
                    "Copies of their stories in the last hour: how far the news has spread.",
                    [
                        Query(
                            tones("entity", CHOSEN_ENTITIES, "series", "bellwether_window_copies"),
                            "{{series}}",
                        )
                    ],
                    width=COLUMNS,
                ),
            ),
        ),
    ),
)

INCIDENTS: Final = Dashboard(
    "bellwether-incidents",
    "Bellwether: incidents and deliveries",
    "What the rules found, and whether it reached anybody.",
    (JOB_VARIABLE, INSTANCE_VARIABLE, Variable("receiver", f"bellwether_delivery_attempts_total{{{JOB}}}", "receiver")),
    (
        Row(
            "Now",
            (
                Panel(
                    "Open incidents",
                    "All rules.",
                    [Query(f"sum(max by (rule, severity) (bellwether_incidents_firing{{{JOB}}}))")],
                    kind="stat",
                    width=4,
                    height=6,
                    limits=(1, 10),
                ),
                Panel(
                    "Frozen states",
                    "Alert states that are unknown because the feed is blind.",
                    [Query(f"max(bellwether_alerts_unknown{{{JOB}}})")],
                    kind="stat",
                    width=4,
                    height=6,
                    limits=(1, 1),
                ),
                Panel(
                    "Waiting",
                    "Deliveries that are not finished.",
                    [Query(f"max(bellwether_outbox_waiting{{{JOB}}})")],
                    kind="stat",
                    width=4,
                    height=6,
                    limits=(5, 20),
                ),
                Panel(
                    "Open incidents by rule",
                    "With the severity of the rule.",
                    [
                        Query(
                            f"max by (rule, severity) (bellwether_incidents_firing{{{JOB}}})",
                            "{{rule}} ({{severity}})",
                            instant=True,
                        )
                    ],
                    kind="bargauge",
                    width=12,
                    height=6,
                ),
            ),
        ),
        Row(
            "Incidents",
            (
                Panel(
                    "Opened and resolved",
                    "Changes of incidents by rule.",
                    [Query(in_range("bellwether_incidents_total", "rule, change"), "{{rule}} {{change}}")],
                    width=12,
                ),
                Panel(
                    "Open over time",
                    "By rule.",
                    [Query(f"max by (rule) (bellwether_incidents_firing{{{JOB}}})", "{{rule}}")],
                    width=6,
                    stacked=True,
                ),
                Panel(
                    "Minutes judged",
                    "Minutes of stream time judged each second: 1/60 when time goes on as the clock does.",
                    [Query(per_second("bellwether_evaluations_total", "job"), "{{job}}")],
                    width=6,
                ),
            ),
        ),
        Row(
            "Deliveries",
            (
                Panel(
                    "Attempts by result",
                    "Of the receivers chosen above.",
                    [
                        Query(
                            in_range(
                                "bellwether_delivery_attempts_total",
                                "receiver, result",
                                f'{INSTANCES}, receiver=~"$receiver"',
                            ),
                            "{{receiver}} {{result}}",
                        )
                    ],
                ),
                Panel(
                    "Time of an attempt",
                    "From name resolution to the last byte.",
                    quantiles("bellwether_delivery_seconds", "le, receiver"),
                    "s",
                ),
                Panel(
                    "Waiting",
                    "Deliveries that are not finished.",
                    [Query(f"max by (job) (bellwether_outbox_waiting{{{JOB}}})", "{{job}}")],
                ),
            ),
        ),
        Row(
            "About Bellwether itself",
            (
                Panel(
                    "Alerts of Prometheus",
                    "Alerts about the monitor, each with a runbook.",
                    [
                        Query(
                            f"max by (alertname, severity, instance, receiver) ({OWN_ALERTS})",
                            instant=True,
                        )
                    ],
                    kind="table",
                    width=COLUMNS,
                    height=6,
                ),
            ),
        ),
    ),
)

DASHBOARDS: Final = (PIPELINE, TONE, INCIDENTS)


def rendered(dashboard: Dashboard) -> str:
    """The dashboard as the text of its file."""
    content = {
        "uid": dashboard.uid,
        "title": dashboard.title,
        "description": dashboard.description,
        "tags": ["bellwether"],
        "schemaVersion": SCHEMA_VERSION,
        "editable": False,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource_variable(), *map(_variable, dashboard.variables)]},
        "annotations": {"list": [_alert_annotation()]},
        "links": [_link_to_the_others()],
        "panels": _panels(dashboard.rows),
    }
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def _datasource_variable() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}


def _variable(variable: Variable) -> dict[str, Any]:
    content: dict[str, Any] = {
        "name": variable.name,
        "label": variable.name.capitalize(),
        "type": "query",
        "datasource": DATASOURCE,
        "query": f"label_values({variable.metric}, {variable.label})",
        "refresh": 2,
        "sort": 1,
    }
    if variable.many:
        everything = {"text": ["All"], "value": ["$__all"], "selected": True}
        content |= {"multi": True, "includeAll": True, "allValue": ".*", "current": everything}
    return content


def _alert_annotation() -> dict[str, Any]:
    return {
        "name": "Alerts about Bellwether",
        "datasource": DATASOURCE,
        "enable": True,
        "iconColor": "orange",
        "expr": OWN_ALERTS,
        "titleFormat": "{{alertname}}",
        "textFormat": "{{instance}} {{receiver}}",
        "tagKeys": "severity",
        "step": "60s",
    }


def _link_to_the_others() -> dict[str, Any]:
    return {
        "title": "Bellwether",
        "type": "dashboards",
        "tags": ["bellwether"],
        "asDropdown": False,
        "icon": "external link",
        "includeVars": True,
        "keepTime": True,
        "targetBlank": False,
        "tooltip": "",
        "url": "",
    }


def _panels(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Headings and panels from top to bottom; a panel that does not fit beside the last one begins a new line."""
    content: list[dict[str, Any]] = []
    top = 0
    for row in rows:
        content.append(
            {
                "type": "row",
                "id": len(content) + 1,
                "title": row.title,
                "collapsed": False,
                "gridPos": {"x": 0, "y": top, "w": COLUMNS, "h": 1},
                "panels": [],
            }
        )
        left, top, line_height = 0, top + 1, 0
        for panel in row.panels:
            if left + panel.width > COLUMNS:
                left, top, line_height = 0, top + line_height, 0
            place = {"x": left, "y": top, "w": panel.width, "h": panel.height}
            content.append({"id": len(content) + 1, "gridPos": place, **_panel(panel)})
            left, line_height = left + panel.width, max(line_height, panel.height)
        top += line_height
    return content


def _panel(panel: Panel) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "targets": [_target(query, chr(ord("A") + number), panel.kind) for number, query in enumerate(panel.queries)],
        "fieldConfig": {"defaults": _field_defaults(panel), "overrides": [_colour(*item) for item in panel.colours.items()]},
        "options": _options(panel),
        **({"transformations": [{"id": "merge", "options": {}}]} if panel.kind == "table" else {}),
    }


def _target(query: Query, name: str, kind: Kind) -> dict[str, Any]:
    return {
        "refId": name,
        "datasource": DATASOURCE,
        "expr": query.expression,
        "legendFormat": query.legend,
        "instant": query.instant,
        "range": not query.instant,
        "format": "table" if kind == "table" else "time_series",
    }


def _field_defaults(panel: Panel) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": 0}]
    if panel.limits is not None:
        orange, red = panel.limits
        steps += [{"color": "orange", "value": orange}] if orange < red else []
        steps += [{"color": "red", "value": red}]
    defaults: dict[str, Any] = {
        "unit": panel.unit,
        "min": 0,
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
        "thresholds": {"mode": "absolute", "steps": steps},
    }
    if panel.maximum is not None:
        defaults["max"] = panel.maximum
    if panel.kind == "timeseries":
        defaults["custom"] = {
            "drawStyle": "line",
            "fillOpacity": 30 if panel.stacked else 5,
            "showPoints": "never",
            "stacking": {"mode": "normal" if panel.stacked else "none", "group": "A"},
        }
    return defaults


def _colour(series: str, colour: str) -> dict[str, Any]:
    return {
        "matcher": {"id": "byNames", "options": {"mode": "include", "names": [series]}},
        "properties": [{"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}],
    }


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "stat":
            return {"reduceOptions": last, "colorMode": "background", "graphMode": "none", "textMode": "auto"}
        case "bargauge":
            return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "gradient", "showUnfilled": True}
        case "table":
            return {"showHeader": True, "cellHeight": "sm"}
        case "timeseries":
            return {
                "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
                "tooltip": {"mode": "multi", "sort": "desc"},
            }


def write() -> None:
    """Writes every dashboard to its file."""
    for dashboard in DASHBOARDS:
        (FOLDER / f"{dashboard.uid}.json").write_text(rendered(dashboard), encoding="utf-8")


if __name__ == "__main__":
    write()
