"""A change of an incident to an alert of Prometheus Alertmanager: posted to its API v2, and told again for as long as it stands.

Alertmanager forgets an alert that it has not heard of for its `resolve_timeout`, and everything when it restarts. So what stands is
posted again and again (`alerts.remind`), as Prometheus does. A firing alert has no end; a resolved one ends when its incident did.

Sources: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml,
https://prometheus.io/docs/alerting/latest/configuration/#webhook_config (the body of a webhook, version 4).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from alerts.channels.posting import Endpoint, Posted, Request
from alerts.notice import ENGLISH, Alarm, Notice, Voice, rendered
from alerts.signature import Secret
from alerts.text import json_bytes, plain_text, time_text
from alerts.types import Delivery, Incident, IncidentChange, RuleKind, Severity
from monitor.types import SeriesKind

ALERT_BYTES: Final = 200_000
"""An alert is smaller than this, whatever labels and annotations its rule has. Alertmanager sets no limit."""

RESEND_EVERY_MS: Final = 60_000

_LABEL_LENGTH: Final = 200
_NO_END: Final = "0001-01-01T00:00:00Z"
_PATH: Final = "/api/v2/alerts"
_FNV_OFFSET: Final = 14_695_981_039_346_656_037
_FNV_PRIME: Final = 1_099_511_628_211


@dataclass(frozen=True, slots=True)
class AlertmanagerReceiver(Posted):
    """An Alertmanager; `endpoint.url` is what its API's path is appended to.

    `resend_every_ms` must be below Alertmanager's `resolve_timeout` (5 minutes unless configured). Raises ConfigurationError.
    """

    name: str
    endpoint: Endpoint
    voice: Voice = ENGLISH
    resend_every_ms: int = RESEND_EVERY_MS

    def faults(self) -> Iterable[str]:
        """What keeps URL or interval from being used."""
        yield from self.endpoint.faults()
        if self.resend_every_ms <= 0:
            yield "resend_every: must be more than 0"
        if "?" in self.endpoint.url.reveal():
            yield "url: must not hold a query (?...)"

    def render(self, change: IncidentChange) -> bytes:
        """The alert; and, ended, what it was called before it became louder, since the severity is one of its labels."""
        return rendered(change, self.voice, lambda notice: _alerts(change, notice), ALERT_BYTES - 1)

    def request(self, delivery: Delivery, now_ms: int) -> Request:
        """The alerts of the body, with no time in them that lies in the future."""
        alerts = [_timed(one, now_ms) for one in json.loads(delivery.body)]
        return Request(Secret(self.endpoint.url.reveal().rstrip("/") + _PATH), json_bytes(alerts))


def joined(bodies: Iterable[bytes]) -> bytes:
    """One body that holds the alerts of several."""
    return json_bytes([one for body in bodies for one in json.loads(body)])


def _alerts(change: IncidentChange, notice: Notice) -> list[dict[str, Any]]:
    told = alert(change, notice)
    quieter = [severity for severity in Severity if severity.rank < change.incident.severity.rank]
    if change.sequence == 1 or change.incident.kind is RuleKind.THRESHOLD or not quieter:
        return [told]
    labels = {**told["labels"], "severity": str(quieter[-1])}
    return [told, {**told, "labels": labels, "endsAt": time_text(change.at_ms)}]


def alert(change: IncidentChange, notice: Notice) -> dict[str, Any]:
    """What Alertmanager is told: labels, which name the alert from its opening to its end, annotations, and its times.

    `endsAt` is missing while the incident is open.
    """
    incident = change.incident
    told: dict[str, Any] = {
        "labels": _labels(incident),
        "annotations": _annotations(incident, notice),
        "startsAt": time_text(incident.opened_at_ms),
    }
    if incident.resolved_at_ms is not None:
        told["endsAt"] = time_text(incident.resolved_at_ms)
    if notice.link is not None:
        told["generatorURL"] = notice.link
    return told


def webhook_content(change: IncidentChange, notice: Notice, receiver: str) -> dict[str, Any]:
    """The body of a webhook as Alertmanager itself sends it, version 4: one group that holds one alert."""
    told = alert(change, notice)
    status = "resolved" if notice.alarm is Alarm.OVER else "firing"
    labels = told["labels"]
    alertname = labels["alertname"]
    return {
        "version": "4",
        "groupKey": f"{{}}:{{alertname={json.dumps(alertname, ensure_ascii=False)}}}",
        "truncatedAlerts": 0,
        "status": status,
        "receiver": receiver,
        "groupLabels": {"alertname": alertname},
        "commonLabels": labels,
        "commonAnnotations": told["annotations"],
        "externalURL": notice.link or "",
        "alerts": [
            {
                "status": status,
                "labels": labels,
                "annotations": told["annotations"],
                "startsAt": told["startsAt"],
                "endsAt": told.get("endsAt", _NO_END),
                "generatorURL": notice.link or "",
                "fingerprint": fingerprint(labels),
            }
        ],
    }


def fingerprint(labels: Mapping[str, str]) -> str:
    """The name that Prometheus gives to a set of labels: FNV-1a over the sorted names and values, 16 hexadecimal digits."""
    number = _FNV_OFFSET
    for name in sorted(labels):
        for byte in b"\xff".join((name.encode(), labels[name].encode(), b"")):
            number = (number ^ byte) * _FNV_PRIME % (1 << 64)
    return f"{number:016x}"


def _labels(incident: Incident) -> dict[str, str]:
    labels = {_label_name(name): plain_text(text, _LABEL_LENGTH) for name, text in incident.labels.items()}
    labels |= {
        "alertname": plain_text(incident.rule, _LABEL_LENGTH) or "bellwether",
        "severity": str(incident.severity),
        "series": plain_text(str(incident.series), _LABEL_LENGTH),
        "generator": "bellwether",
    }
    if incident.series.kind is not SeriesKind.ALL:
        labels[str(incident.series.kind)] = plain_text(incident.series.name, _LABEL_LENGTH)
    return {name: text for name, text in sorted(labels.items()) if text}


def _annotations(incident: Incident, notice: Notice) -> dict[str, str]:
    lines = [f"{fact.name}: {fact.value}" for fact in notice.facts]
    lines += [f"{story.headline} ({notice.about(story)})" if notice.about(story) else story.headline for story in notice.stories]
    written = {_label_name(name): plain_text(text, _LABEL_LENGTH) for name, text in incident.annotations.items()}
    return written | {
        "title": notice.title,
        "summary": notice.why,
        "description": "\n".join(lines),
        "incident_id": notice.incident_id,
    }


def _label_name(name: str) -> str:
    """A name that Prometheus takes: letters, digits and underscores, no digit first."""
    kept = re.sub(r"[^a-zA-Z0-9_]", "_", name)
    return f"_{kept}" if kept[:1].isdigit() or not kept else kept


def _timed(told: Mapping[str, Any], now_ms: int) -> dict[str, Any]:
    """Stream time may run ahead of the clock by which Alertmanager decides what is over: then it is over now."""
    starts_at_ms = min(_time_ms(told["startsAt"]), now_ms)
    timed = {**told, "startsAt": time_text(starts_at_ms)}
    if "endsAt" in told:
        timed["endsAt"] = time_text(max(min(_time_ms(told["endsAt"]), now_ms), starts_at_ms))
    return timed


def _time_ms(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000)
