"""A rule and what its window says to the texts of an incident, and a change of an incident to the body of a webhook.

Annotations are Jinja2 templates of expressions and `if`; they may use these variables:

    rule, severity            the rule's name and how loud it is
    series, kind, display     "entity:halden-bank", "entity", "Halden Bank"
    entity.id, entity.name    only where the rule watches entities
    topic                     only where the rule watches topics
    metric, comparison        "negative_share", ">="
    value, level, clear_level what the metric was at the opening, and the rule's two levels
    stories, copies           distinct stories and further copies of them in the window; documents is their sum
    negative, neutral, positive, uncertain      stories per tone
    negative_share, mean_score                  of the stories; both are undefined where there is none, and nothing opens then
    sources                   distinct sources of the documents
    window                    the window's length in words, "1 h"
    opened_at                 when the incident opened, RFC 3339, UTC

Those of a rule of kind surge may use rule, severity, series, kind, display, entity, topic, opened_at, stories, sources, window, and

    measure, count            what was counted, "negative", and how many
    expected, probability     what is usual, and how likely so many are by chance
    headline                  the leading story's

Those of a rule of kind event may use rule, severity, series, kind, display, entity, opened_at, stories, documents, sources, and

    events                    what was told, "Insolvency, Fraud"
    headline                  the first report's

Labels name an incident for as long as it lasts and are templates over rule, severity, series, kind, display, entity and topic only.
Filters are `percent` ("62 %"), `round(digits)`, and of Jinja2's own abs, capitalize, default, float, int, length, lower, title,
trim, truncate and upper. Loops, calls and assignments are refused: no template takes more time or memory than its length is worth.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from jinja2 import StrictUndefined, Template, TemplateSyntaxError, UndefinedError, nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from alerts.text import duration_text, number_text, plain_text, time_text
from alerts.types import EventRule, Incident, IncidentChange, Rule, RuleKind, Severity, SurgeRule, ThresholdRule
from monitor.errors import ConfigurationError, DeliveryError
from monitor.types import TONES, Count, Metric, Reading, Series, SeriesKind

SUMMARY_LENGTH: Final = 300
ANNOTATION_LENGTH: Final = 1_000
LABEL_LENGTH: Final = 200
NAME_LENGTH: Final = 200
TEMPLATE_LENGTH: Final = 2_000
MOST_TEXTS: Final = 16
"""A rule has at most so many labels, and so many annotations."""

BODY_BYTES: Final = 20_000
"""A webhook's body is smaller than this (Standard Webhooks asks receivers to take 20 kB)."""

RENDERING_ERROR: Final = "rendering_error"
"""The annotation that says which texts of an incident could not be rendered."""

_FILTERS: Final = (
    "abs", "capitalize", "default", "float", "int", "length", "lower", "title", "trim", "truncate", "upper",
)  # fmt: skip
_PARTS: Final = (
    nodes.Template, nodes.Output, nodes.TemplateData, nodes.If, nodes.Name, nodes.Const, nodes.Getattr, nodes.Getitem,
    nodes.Filter, nodes.Test, nodes.Compare, nodes.Operand, nodes.CondExpr, nodes.And, nodes.Or, nodes.Not, nodes.Neg, nodes.Pos,
    nodes.Add, nodes.Sub, nodes.Mul, nodes.Div, nodes.FloorDiv, nodes.Mod, nodes.Concat, nodes.Keyword,
)  # fmt: skip
_MOST_STORIES: Final = 5
_BODY_LIMITS: Final = (ANNOTATION_LENGTH, 400, 160, 60)


class _Environment(ImmutableSandboxedEnvironment):
    """Jinja2's sandbox, in which numbers multiply and texts do not: a short template cannot write a long text."""

    intercepted_binops = frozenset({"*", "%"})

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if isinstance(left, str | list | tuple) or isinstance(right, str | list | tuple):
            raise SecurityError(f"{operator} takes numbers only")
        return super().call_binop(context, operator, left, right)


def _environment() -> _Environment:
    # The texts are data of a JSON body, never markup: whoever shows them escapes them.
    environment = _Environment(undefined=StrictUndefined, autoescape=False)
    environment.filters = {name: environment.filters[name] for name in _FILTERS} | {
        "percent": percent_text,
        "round": _round,
    }
    environment.globals = {}
    return environment


def percent_text(share: float) -> str:
    """A share as a person reads it, with a decimal only where it says something: "62 %", "62.5 %"."""
    return f"{_number_text(round(100 * share, 1))} %"


def _round(value: float, digits: int = 0) -> float:
    """Rounded to a few decimals; to an integer for 0. Jinja2's own filter can be asked for a billion of them."""
    if not 0 <= digits <= 6:
        raise ValueError("round takes 0 to 6 digits")
    return round(value, digits) if digits else round(value)


def _number_text(value: float) -> str:
    return f"{value:.6g}"


# --- texts of a rule -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opening:
    """What is known when an incident opens: the series, how it is called, its window and the sources behind it."""

    series: Series
    display: str
    reading: Reading
    sources: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Texts:
    """The rendered texts of an incident."""

    summary: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Templates:
    """The compiled labels and annotations of one rule."""

    rule: Rule
    labels: Mapping[str, Template] = field(repr=False)
    annotations: Mapping[str, Template] = field(repr=False)

    def render(self, opening: Opening) -> Texts:
        """The texts of the incident that a threshold rule opens, as `render_facts` does."""
        assert isinstance(self.rule, ThresholdRule)
        summary = default_summary(self.rule, opening.display, opening.reading)
        return self.render_facts(opening.series, opening.display, _facts(self.rule, opening), summary)

    def render_incident(self, incident: Incident) -> Texts:
        """The texts of an incident whose evidence says what was found, as `render_facts` does."""
        facts = _identity(self.rule, incident.series, incident.display) | evidence_facts(incident)
        return self.render_facts(incident.series, incident.display, facts, incident.summary)

    def render_facts(self, series: Series, display: str, facts: Mapping[str, object], default: str) -> Texts:
        """The texts of an incident of which `facts` are known. Never raises.

        A text that cannot be rendered is left out, and the annotation `rendering_error` names it. The summary is the annotation of
        that name, or the `default` sentence.
        """
        failures: list[str] = []
        labels = self.render_labels(series, display, failures)
        annotations = dict(_rendered("annotations", self.annotations, facts, ANNOTATION_LENGTH, failures))
        summary = annotations.get("summary") or default
        if failures:
            annotations[RENDERING_ERROR] = plain_text("; ".join(failures), ANNOTATION_LENGTH)
        return Texts(plain_text(summary, SUMMARY_LENGTH), labels, MappingProxyType(annotations))

    def render_labels(self, series: Series, display: str, failures: list[str] | None = None) -> Mapping[str, str]:
        """The labels of an incident of `series`: the same from its opening to its end. What fails is left out and listed."""
        listed = [] if failures is None else failures
        found = _rendered("labels", self.labels, _identity(self.rule, series, display), LABEL_LENGTH, listed)
        return MappingProxyType(dict(found))


def _rendered(
    section: str, templates: Mapping[str, Template], facts: Mapping[str, object], limit: int, failures: list[str]
) -> Iterator[tuple[str, str]]:
    for name, template in templates.items():
        try:
            yield name, plain_text(template.render(facts), limit)
        # A template can divide by zero or compare a text with a number, and none of that may cost an incident.
        except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
            failures.append(f"{section}.{name} could not be rendered ({type(error).__name__})")


def compile_templates(rule: Rule) -> Templates:
    """The templates of a rule, each rendered once with a sample. Raises ConfigurationError that lists every fault."""
    problems: list[str] = []
    series, display = _sample_series(rule)
    identity = _identity(rule, series, display)
    facts = {"labels": identity, "annotations": identity | _sample_facts(rule)}
    compiled: dict[str, dict[str, Template]] = {"labels": {}, "annotations": {}}
    for section, sources in (("labels", rule.labels), ("annotations", rule.annotations)):
        if len(sources) > MOST_TEXTS:
            problems.append(f"{section}: at most {MOST_TEXTS}, not {len(sources)}")
        for name, source in sources.items():
            try:
                compiled[section][name] = _compile(source, facts[section])
                compiled[section][name].render(facts[section])
            except (TemplateError, ArithmeticError, TypeError, ValueError, LookupError, AttributeError) as error:
                problems.append(f"{section}.{name}: {_describe(error)}")
    if problems:
        raise ConfigurationError(f"rule {rule.name}", problems)
    return Templates(rule, compiled["labels"], compiled["annotations"])


def _compile(source: str, facts: Mapping[str, object]) -> Template:
    if len(source) > TEMPLATE_LENGTH:
        raise ValueError(f"at most {TEMPLATE_LENGTH} characters, not {len(source)}")
    environment = _environment()
    for node in environment.parse(source).find_all(nodes.Node):
        if not isinstance(node, _PARTS):
            raise TemplateSyntaxError(f"{type(node).__name__.lower()} is not allowed in a template", getattr(node, "lineno", 1))
        if isinstance(node, nodes.Filter) and node.name not in environment.filters:
            raise TemplateSyntaxError(f"there is no filter {node.name!r}", node.lineno)
        # The sample takes one branch of an `if`; a misspelt name in the other would only show in the night it matters.
        if isinstance(node, nodes.Name) and node.name not in facts:
            raise UndefinedError(f"{node.name!r} is undefined; there is {', '.join(sorted(facts))}")
    return environment.from_string(source)


def _describe(error: Exception) -> str:
    if isinstance(error, TemplateError):
        return error.message or type(error).__name__
    return str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"


def _sample_series(rule: Rule) -> tuple[Series, str]:
    name = rule.series.name or ("" if rule.series.kind is SeriesKind.ALL else "sample")
    return Series(rule.series.kind, name), name or "sample"


def _sample_facts(rule: Rule) -> dict[str, object]:
    series, display = _sample_series(rule)
    match rule:
        case ThresholdRule():
            count = Count((13, 3, 4, 1), (5, 1, 2, 0), -31_500)
            return _facts(rule, Opening(series, display, Reading(series, 0, rule.window_ms, count), 4, rule.window_ms))
        case SurgeRule():
            found = {"kind": "negative", "window_ms": 900_000, "count": 9, "of": 12, "expected": 0.5, "p": 1e-7, "sources": 4}
            known: dict[str, Any] = {"found": found, "stories": [{"headline": "sample"}], "story_count": 12}
        case EventRule():
            known = {
                "events": {"insolvency": "Insolvency"},
                "sources": ["wire"],
                "stories": [{"headline": "sample"}],
                "story_count": 1,
                "documents": 1,
            }
    return evidence_facts(Incident("", rule.name, series, Severity.CRITICAL, 0, kind=rule.kind, evidence=known))


def evidence_facts(incident: Incident) -> dict[str, object]:
    """What the annotations of a rule that looks for surges, or hears of events, may say of an incident."""
    known = incident.evidence
    facts: dict[str, object] = {
        "severity": str(incident.severity),
        "headline": known["stories"][0]["headline"] if known["stories"] else "",
        "opened_at": time_text(incident.opened_at_ms),
    }
    if incident.kind is RuleKind.SURGE:
        found = known["found"]
        return facts | {
            "measure": found["kind"],
            "count": found["count"],
            "stories": found["of"],
            "expected": found["expected"],
            "probability": found["p"],
            "sources": found["sources"],
            "window": duration_text(found["window_ms"]),
        }
    return facts | {
        "events": ", ".join(known["events"].values()),
        "stories": known["story_count"],
        "documents": known["documents"],
        "sources": len(known["sources"]),
    }


def _identity(rule: Rule, series: Series, display: str) -> dict[str, object]:
    """What is true of an incident for as long as it lasts."""
    facts: dict[str, object] = {
        "rule": rule.name,
        "series": str(series),
        "kind": str(series.kind),
        "display": display,
    }
    if isinstance(rule, ThresholdRule):
        # Other rules may become louder while an incident lasts.
        facts["severity"] = str(rule.severity)
    if series.kind is SeriesKind.ENTITY:
        facts["entity"] = {"id": series.name, "name": display}
    elif series.kind is SeriesKind.TOPIC:
        facts["topic"] = series.name
    return facts


def _facts(rule: ThresholdRule, opening: Opening) -> dict[str, object]:
    reading = opening.reading
    facts = _identity(rule, opening.series, opening.display)
    facts |= {
        "metric": str(rule.metric),
        "comparison": str(rule.comparison),
        "value": reading.value(rule.metric),
        "level": rule.level,
        "clear_level": rule.clear_level,
        "stories": reading.stories,
        "copies": reading.copies,
        "documents": reading.documents,
        **_tones(reading),
        "negative_share": reading.value(Metric.NEGATIVE_SHARE),
        "mean_score": reading.value(Metric.MEAN_SCORE),
        "sources": opening.sources,
        "window": duration_text(rule.window_ms),
        "opened_at": time_text(opening.at_ms),
    }
    return facts


def _tones(reading: Reading) -> dict[str, int]:
    return {str(tone): number for tone, number in zip(TONES, reading.count.stories, strict=True)}


def default_summary(rule: ThresholdRule, display: str, reading: Reading) -> str:
    """One plain sentence: "Halden Bank: 62 % of 21 stories negative over 1 h (limit 50 %)"."""
    window, stories = duration_text(rule.window_ms), reading.stories
    value = reading.value(rule.metric)
    match rule.metric:
        case _ if value is None:
            said, limit = "no stories", _number_text(rule.level)
        case Metric.NEGATIVE_SHARE:
            said, limit = f"{percent_text(value)} of {_stories(stories)} negative", percent_text(rule.level)
        case Metric.UNCERTAIN_SHARE:
            said, limit = f"{percent_text(value)} of {_stories(stories)} uncertain", percent_text(rule.level)
        case Metric.NEGATIVE_STORIES:
            said, limit = _stories(round(value), "negative "), _number_text(rule.level)
        case Metric.STORIES:
            said, limit = _stories(stories), _number_text(rule.level)
        case Metric.MEAN_SCORE:
            said, limit = f"mean score {value:.2f} of {_stories(stories)}", f"{rule.level:.2f}"
    return plain_text(f"{plain_text(display, NAME_LENGTH)}: {said} over {window} (limit {limit})", SUMMARY_LENGTH)


def _stories(number: int, kind: str = "") -> str:
    return number_text(number, f"{kind}story", f"{kind}stories")


# --- the webhook's body --------------------------------------------------------------------------


def webhook_body(change: IncidentChange) -> bytes:
    """The JSON body of a change, schema version 1 (`webhook.schema.json`), UTF-8, smaller than `BODY_BYTES`.

    `type` is "incident." and the kind of change; `timestamp` and all times are stream time, RFC 3339, UTC. `data.reading` is
    the window that decided this change, null where none did (the rule was removed). Texts are cut shorter where the body would
    be too large otherwise. Raises DeliveryError when nothing makes it small enough.
    """
    for limit in _BODY_LIMITS:
        body = json.dumps(_content(change, limit), ensure_ascii=False, separators=(",", ":")).encode()
        if len(body) < BODY_BYTES:
            return body
    raise DeliveryError(f"the message of incident {change.incident.incident_id} does not fit into {BODY_BYTES} bytes")


def _content(change: IncidentChange, limit: int) -> dict[str, object]:
    incident = change.incident
    return {
        "type": f"incident.{change.kind}",
        "timestamp": time_text(change.at_ms),
        "data": {
            "schema_version": 1,
            "generator": "bellwether",
            "incident_id": incident.incident_id,
            "sequence": change.sequence,
            "rule": plain_text(incident.rule, NAME_LENGTH),
            "kind": str(incident.kind),
            "severity": str(incident.severity),
            "series": _series(incident),
            "opened_at": time_text(incident.opened_at_ms),
            "resolved_at": None if incident.resolved_at_ms is None else time_text(incident.resolved_at_ms),
            "resolve_reason": None if incident.resolve_reason is None else str(incident.resolve_reason),
            "summary": plain_text(incident.summary, SUMMARY_LENGTH),
            "labels": _cut(incident.labels, min(limit, LABEL_LENGTH)),
            "annotations": _cut(incident.annotations, limit),
            "stories": [_story(story, limit) for story in incident.evidence.get("stories", ())[:_MOST_STORIES]],
            "reading": None if change.reading is None else _reading(change.reading),
        },
    }


def _story(story: Mapping[str, Any], limit: int) -> dict[str, object]:
    sources = [plain_text(source, NAME_LENGTH) for source in story["sources"][:_MOST_STORIES]]
    return {"headline": plain_text(story["headline"], limit), "sources": sources, "copies": story["copies"]}


def _series(incident: Incident) -> dict[str, str]:
    name = plain_text(incident.series.name, NAME_LENGTH)
    display = plain_text(incident.display, NAME_LENGTH) or name or str(incident.series.kind)
    return {"kind": str(incident.series.kind), "name": name, "display": display}


def _cut(texts: Mapping[str, str], limit: int) -> dict[str, str]:
    return {plain_text(name, NAME_LENGTH): plain_text(text, limit) for name, text in texts.items()}


def _reading(reading: Reading) -> dict[str, object]:
    return {
        "from": time_text(reading.from_ms),
        "until": time_text(reading.until_ms),
        "stories": reading.stories,
        **_tones(reading),
        "copies": reading.copies,
        "negative_share": reading.value(Metric.NEGATIVE_SHARE),
        "mean_score": reading.value(Metric.MEAN_SCORE),
    }
