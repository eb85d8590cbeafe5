"""A YAML file of rules in, checked threshold rules out; every fault is reported at once with its path."""

from __future__ import annotations

import operator
from collections.abc import Collection, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import Field, ValidationError, model_validator

from alerts.messages import compile_templates
from alerts.types import Comparison, SeriesSelector, Severity, ThresholdRule
from monitor.config import Duration, Section, describe_faults, read_yaml
from monitor.errors import ConfigurationError
from monitor.types import Metric, SeriesKind

_MINUTE: Final = timedelta(minutes=1)
_LONGEST_WINDOW: Final = timedelta(hours=24)
_RANGES: Final = {
    Metric.NEGATIVE_SHARE: (0.0, 1.0),
    Metric.UNCERTAIN_SHARE: (0.0, 1.0),
    Metric.MEAN_SCORE: (-1.0, 1.0),
    Metric.NEGATIVE_STORIES: (0.0, float("inf")),
    Metric.STORIES: (0.0, float("inf")),
}


class _RuleSection(Section):
    """One rule, as it is written."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
    metric: Metric
    series: str
    window: Duration
    comparison: Comparison
    level: Annotated[float, Field(allow_inf_nan=False)]
    clear_level: Annotated[float, Field(allow_inf_nan=False)] | None = None
    minimum_stories: Annotated[int, Field(ge=0)] = 1
    minimum_sources: Annotated[int, Field(ge=0)] = 1
    for_: Annotated[Duration, Field(alias="for")] = timedelta(0)
    keep_firing: Duration = timedelta(0)
    severity: Severity = Severity.WARNING
    labels: Annotated[dict[str, str], Field(default_factory=dict)]
    annotations: Annotated[dict[str, str], Field(default_factory=dict)]
    receivers: tuple[str, ...] | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        problems = [*self._duration_faults(), *self._level_faults()]
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _duration_faults(self) -> Iterator[str]:
        if not _MINUTE <= self.window <= _LONGEST_WINDOW:
            yield "window must be from 1m to 24h"
        for name, span in (("window", self.window), ("for", self.for_), ("keep_firing", self.keep_firing)):
            if span % _MINUTE:
                yield f"{name} must be whole minutes, because rules are judged once a minute"

    def _level_faults(self) -> Iterator[str]:
        low, high = _RANGES[self.metric]
        for name, level in (("level", self.level), ("clear_level", self.clear_level)):
            if level is not None and not low <= level <= high:
                limits = f"from {low:g} to {high:g}" if high < float("inf") else f"at least {low:g}"
                yield f"{name} of {self.metric} must be {limits}"
        if self.clear_level is not None:
            upwards = self.comparison in {Comparison.ABOVE, Comparison.AT_LEAST}
            beyond = operator.gt if upwards else operator.lt
            if beyond(self.clear_level, self.level):
                yield f"clear_level must not be {'above' if upwards else 'below'} level, or an incident would end as it opens"

    def rule(self, series: SeriesSelector) -> ThresholdRule:
        """The rule, for the series that `series` names."""
        return ThresholdRule(
            name=self.name,
            metric=self.metric,
            series=series,
            window_ms=self.window // timedelta(milliseconds=1),
            comparison=self.comparison,
            level=self.level,
            clear_level=self.level if self.clear_level is None else self.clear_level,
            minimum_stories=self.minimum_stories,
            minimum_sources=self.minimum_sources,
            for_ms=self.for_ // timedelta(milliseconds=1),
            keep_firing_ms=self.keep_firing // timedelta(milliseconds=1),
            severity=self.severity,
            labels=self.labels,
            annotations=self.annotations,
            receivers=self.receivers,
        )


def load_rules(
    path: Path,
    *,
    entities: Collection[str] | None = None,
    topics: Collection[str] | None = None,
    receivers: Collection[str] | None = None,
) -> tuple[ThresholdRule, ...]:
    """The rules of a YAML file, in its order; an empty file holds none.

    A rule that names an entity, a topic or a receiver that is not among the given ones is a fault; what is None is not checked.
    Raises ConfigurationError that lists every fault as "rules.2.window: what is wrong".
    """
    content = read_yaml(path)
    problems: list[str] = []
    rules: list[ThresholdRule] = []
    names: set[str] = set()
    for place, item in enumerate(_items(path, content)):
        where = f"rules.{place}"
        try:
            section = _RuleSection.model_validate(item)
            selector = _selector(section.series, entities, topics)
            rule = section.rule(selector)
            compile_templates(rule)
        except ValidationError as error:
            problems += [f"{where}.{fault}".replace(".(whole file)", "") for fault in describe_faults(error)]
            continue
        except ConfigurationError as error:
            problems += [f"{where}.{fault}" for fault in error.problems]
            continue
        if rule.name in names:
            problems.append(f"{where}.name: there is a rule {rule.name!r} already")
        names.add(rule.name)
        unknown = sorted(set(rule.receivers or ()) - set(receivers)) if receivers is not None else []
        problems += [f"{where}.receivers: there is no receiver {name!r}" for name in unknown]
        rules.append(rule)
    if problems:
        raise ConfigurationError(str(path), problems)
    return tuple(rules)


def _items(path: Path, content: Any) -> list[Any]:
    if content is None:
        return []
    if not isinstance(content, dict) or set(content) != {"rules"} or not isinstance(content["rules"], list):
        raise ConfigurationError(str(path), ["(whole file): must hold one key, rules, with a list"])
    return content["rules"]


def _selector(text: str, entities: Collection[str] | None, topics: Collection[str] | None) -> SeriesSelector:
    """The selector of "all", "entity", "entity:id", "topic" or "topic:label". Raises ConfigurationError."""
    kind, colon, name = text.partition(":")
    if kind not in set(SeriesKind) or (kind == SeriesKind.ALL and colon) or (colon and not name):
        raise ConfigurationError("", [f'series: {text!r} is none of "all", "entity", "entity:id", "topic", "topic:label"'])
    known = entities if kind == SeriesKind.ENTITY else topics
    if name and known is not None and name not in known:
        raise ConfigurationError("", [f"series: there is no {kind} {name!r}"])
    return SeriesSelector(SeriesKind(kind), name or None)
