"""A YAML file of rules to checked rules; every fault of every rule is reported at once, with its path."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError

from alerts.messages import RENDERING_ERROR, compile_templates
from alerts.surge import SurgeKind, SurgeSettings
from alerts.types import Comparison, EventRule, Rule, RuleKind, SeriesSelector, Severity, SurgeRule, ThresholdRule
from monitor.config import Duration, Section, describe_faults, read_yaml
from monitor.errors import ConfigurationError
from monitor.types import Metric, SeriesKind

_SHORTEST_WINDOW: Final = timedelta(minutes=1)
_LONGEST_WINDOW: Final = timedelta(hours=24)
_LONGEST_HOLD: Final = timedelta(days=7)
_BOUNDS: Final[dict[Metric, tuple[float, float]]] = {
    Metric.NEGATIVE_SHARE: (0.0, 1.0),
    Metric.UNCERTAIN_SHARE: (0.0, 1.0),
    Metric.MEAN_SCORE: (-1.0, 1.0),
    Metric.STORIES: (0.0, float("inf")),
    Metric.NEGATIVE_STORIES: (0.0, float("inf")),
}
_WORDS: Final = {"above": ">", "at least": ">=", "below": "<", "at most": "<="}
_RISING: Final = (Comparison.ABOVE, Comparison.AT_LEAST)


def _whole_minutes(value: timedelta) -> timedelta:
    if value < timedelta(0) or value % timedelta(minutes=1):
        raise ValueError('must be whole minutes, as "15m" or "2h": rules are judged once a minute')
    return value


def _window(value: timedelta) -> timedelta:
    if not _SHORTEST_WINDOW <= value <= _LONGEST_WINDOW:
        raise ValueError("must be from 1m to 24h")
    return value


def _hold(value: timedelta) -> timedelta:
    if value > _LONGEST_HOLD:
        raise ValueError("must be at most 7d")
    return value


def _spelt(value: object) -> object:
    """Words of a vocabulary as the enumerations spell them: "Negative share" is "negative_share"."""
    return value.strip().lower().replace("-", "_").replace(" ", "_") if isinstance(value, str) else value


def _comparison(value: object) -> object:
    """A comparison written as its sign or in words: ">=", "at least", "at_least"."""
    if not isinstance(value, str):
        return value
    words = value.strip().lower().replace("_", " ")
    return _WORDS.get(words, words)


def _selector(value: object) -> object:
    """The series of "all", "topic", "entity", "topic:Financials" or "entity:halden-bank"."""
    if not isinstance(value, str):
        raise ValueError(_SERIES_FORMS)  # noqa: TRY004 (pydantic wants ValueError)
    kind, colon, name = (part.strip() for part in value.partition(":"))
    if kind not in set(SeriesKind) or (colon and (not name or kind == SeriesKind.ALL)):
        raise ValueError(_SERIES_FORMS)
    return SeriesSelector(SeriesKind(kind), name or None)


_SERIES_FORMS: Final = 'must be "all", "topic", "topic:<label>", "entity" (every watched one) or "entity:<id>"'

_Window = Annotated[Duration, AfterValidator(_window), AfterValidator(_whole_minutes)]
_Hold = Annotated[Duration, AfterValidator(_hold), AfterValidator(_whole_minutes)]
_Level = Annotated[float, Field(strict=True, allow_inf_nan=False)]
_Minimum = Annotated[int, Field(strict=True, ge=0)]
_TextName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]


class RuleSection(Section):
    """What every rule has."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$")]
    """Names the rule in messages, metrics and the identity of its incidents: a new name is a new rule."""
    labels: Annotated[dict[_TextName, str], Field(default_factory=dict)]
    """Templates of what names the incident for the receivers' routing."""
    annotations: Annotated[dict[_TextName, str], Field(default_factory=dict)]
    """Templates of what is said about it; `summary` is the sentence in front."""
    receivers: tuple[str, ...] | None = None
    """Names of the receivers that hear of it; unset: all."""


class ThresholdSection(RuleSection):
    """A metric held against a level, as it is written in the file."""

    kind: Literal[RuleKind.THRESHOLD] = RuleKind.THRESHOLD
    metric: Annotated[Metric, BeforeValidator(_spelt)]
    """What is compared."""
    series: Annotated[SeriesSelector, BeforeValidator(_selector)]
    """What is watched."""
    window: _Window
    """How much of the past is read, up to the minute that is judged."""
    comparison: Annotated[Comparison, BeforeValidator(_comparison)]
    """How the metric is held against the level."""
    level: _Level
    """The limit."""
    clear_level: _Level | None = None
    """An incident is over once the metric no longer compares with this; unset: `level`."""
    minimum_stories: _Minimum = 1
    """Fewer distinct stories in the window open no incident."""
    minimum_sources: _Minimum = 1
    """Fewer distinct sources in the window open no incident."""
    for_: Annotated[_Hold, Field(alias="for")] = timedelta(0)
    """How long the condition must hold without a break before an incident opens."""
    keep_firing: _Hold = timedelta(0)
    """How long the condition must be over without a break before the incident resolves."""
    severity: Annotated[Severity, BeforeValidator(_spelt)] = Severity.WARNING
    """How loud the incident is."""

    def rule(self) -> ThresholdRule:
        """The rule that this section describes."""
        return ThresholdRule(
            name=self.name,
            metric=self.metric,
            series=self.series,
            window_ms=_milliseconds(self.window),
            comparison=self.comparison,
            level=self.level,
            clear_level=self.level if self.clear_level is None else self.clear_level,
            minimum_stories=self.minimum_stories,
            minimum_sources=self.minimum_sources,
            for_ms=_milliseconds(self.for_),
            keep_firing_ms=_milliseconds(self.keep_firing),
            severity=self.severity,
            labels=self.labels,
            annotations=self.annotations,
            receivers=self.receivers,
        )


class EventSection(RuleSection):
    """Reports of severe events about watched entities, as they are written in the file."""

    kind: Literal[RuleKind.EVENT]
    series: Annotated[SeriesSelector, BeforeValidator(_selector)] = SeriesSelector(SeriesKind.ENTITY)
    """Which watched entities; unset: all."""
    categories: Annotated[frozenset[str], Field(min_length=1)] | None = None
    """Ids of the events that it hears of; unset: all."""
    credible_sources: Annotated[frozenset[str], Field(min_length=1)] | None = None
    """Only reports of these sources open an incident; unset: any source's."""
    keep_firing: _Hold = timedelta(hours=24)
    """How long nobody must have told of the events before the incident resolves."""

    def rule(self) -> EventRule:
        """The rule that this section describes."""
        return EventRule(
            name=self.name,
            series=self.series,
            categories=self.categories,
            credible_sources=self.credible_sources,
            keep_firing_ms=_milliseconds(self.keep_firing),
            labels=self.labels,
            annotations=self.annotations,
            receivers=self.receivers,
        )


class SurgeSection(RuleSection):
    """More news, or more bad news, than is normal of a series at this hour of the week, as it is written in the file."""

    kind: Literal[RuleKind.SURGE]
    series: Annotated[SeriesSelector, BeforeValidator(_selector)] = SeriesSelector(SeriesKind.ENTITY)
    """What is watched; unset: every watched entity."""
    measure: Annotated[SurgeKind, BeforeValidator(_spelt)] = SurgeKind.NEGATIVE
    """What is unusual: too many `negative` stories, too much `volume`, too large a `share` negative, or `silence`."""
    false_alarms_a_day: Annotated[float, Field(gt=0, le=1000)] = 2.0
    """How many false alarms a day, over all that the rule watches, are accepted as warnings."""
    critical_false_alarms_a_day: Annotated[float, Field(ge=0, le=1000)] = 0.2
    """An alarm that would also be one under this budget is critical."""
    minimum_stories: Annotated[int, Field(strict=True, ge=1)] = 3
    """Fewer distinct stories (of the kind that is measured) are no surge."""
    minimum_sources: _Minimum = 2
    """Fewer distinct sources are no surge."""
    effect: Annotated[float, Field(ge=1)] = 2.0
    """A surge is at least so many times what is usual."""
    for_: Annotated[_Hold, Field(alias="for")] = timedelta(minutes=1)
    """How long it must hold without a break before an incident opens."""
    keep_firing: _Hold = timedelta(minutes=30)
    """How long it must be over without a break before the incident resolves."""

    def rule(self) -> SurgeRule:
        """The rule that this section describes."""
        return SurgeRule(
            name=self.name,
            series=self.series,
            settings=SurgeSettings(
                kind=self.measure,
                alarms_a_day=self.false_alarms_a_day,
                watched=frozenset({self.series.kind}),
                minimum_stories=self.minimum_stories,
                minimum_sources=self.minimum_sources,
                effect=self.effect,
            ),
            critical_alarms_a_day=self.critical_false_alarms_a_day,
            for_ms=_milliseconds(self.for_),
            keep_firing_ms=_milliseconds(self.keep_firing),
            labels=self.labels,
            annotations=self.annotations,
            receivers=self.receivers,
        )


_SECTIONS: Final[dict[str, type[ThresholdSection | SurgeSection | EventSection]]] = {
    RuleKind.THRESHOLD: ThresholdSection,
    RuleKind.SURGE: SurgeSection,
    RuleKind.EVENT: EventSection,
}


def _milliseconds(value: timedelta) -> int:
    return value // timedelta(milliseconds=1)


def load_rules(
    path: Path,
    *,
    entities: Collection[str] | None = None,
    topics: Collection[str] | None = None,
    receivers: Collection[str] | None = None,
    categories: Collection[str] | None = None,
) -> tuple[Rule, ...]:
    """The rules of a file, in its order; an empty file has none.

    Names of entities (ids), topics (labels), receivers and categories of events (ids) are held against the known ones where these
    are given. Raises ConfigurationError that lists every fault of every rule as "rules.2.window: what is wrong", counted from 0.
    """
    content = read_yaml(path)
    listed = _listed(path, content)
    known = {"entity": entities, "topic": topics, "receiver": receivers, "category": categories}
    rules: list[Rule] = []
    problems: list[str] = []
    for number, item in enumerate(listed):
        if not isinstance(item, dict):
            problems.append(f"rules.{number}: must be a mapping with name, metric, series, window, comparison and level")
            continue
        kind = item.get("kind", RuleKind.THRESHOLD)
        if kind not in _SECTIONS:
            problems.append(f"rules.{number}.kind: must be {', '.join(_SECTIONS)}, not {kind!r}")
            continue
        try:
            rule = _SECTIONS[kind].model_validate(item).rule()
        except ValidationError as error:
            problems.extend(f"rules.{number}.{fault}" for fault in describe_faults(error))
            continue
        problems.extend(f"rules.{number}.{fault}" for fault in _faults(rule, known))
        rules.append(rule)
    problems.extend(_repeated_names(listed))
    if problems:
        raise ConfigurationError(str(path), problems)
    return tuple(rules)


def _listed(path: Path, content: Any) -> list[Any]:
    """The items under `rules`."""
    if content is None:
        return []
    if not isinstance(content, dict):
        raise ConfigurationError(str(path), ['(whole file): must be a mapping with the key "rules"'])
    problems = [f"{key}: unknown key" for key in content if key != "rules"]
    listed = content.get("rules")
    if listed is not None and not isinstance(listed, list):
        problems.append('rules: must be a list, each item beginning with "- name: ..."')
    if problems:
        raise ConfigurationError(str(path), problems)
    return listed or []


def _repeated_names(listed: list[Any]) -> Iterator[str]:
    first: dict[object, int] = {}
    for number, item in enumerate(listed):
        name = item.get("name") if isinstance(item, dict) else None
        if isinstance(name, str) and first.setdefault(name, number) != number:
            yield f"rules.{number}.name: {name!r} is already the name of rules.{first[name]}"


def _faults(rule: Rule, known: dict[str, Collection[str] | None]) -> Iterator[str]:
    """What is wrong with a rule whose parts are each well formed."""
    if isinstance(rule, ThresholdRule):
        yield from _level_faults(rule)
    elif isinstance(rule, EventRule) and rule.series.kind is not SeriesKind.ENTITY:
        yield 'series: must be "entity" or "entity:<id>": severe events are found about watched entities only'
    elif isinstance(rule, SurgeRule):
        if rule.critical_alarms_a_day > rule.settings.alarms_a_day:
            yield f"critical_false_alarms_a_day: must be at most false_alarms_a_day ({rule.settings.alarms_a_day:g})"
        if rule.settings.kind is SurgeKind.SILENCE and rule.series.kind is not SeriesKind.ALL:
            yield 'series: must be "all" where silence is measured: that nobody writes about one name is normal'
    yield from _unknown_names(rule, known)
    if RENDERING_ERROR in rule.annotations:
        yield f"annotations.{RENDERING_ERROR}: this name is ours: it says what could not be rendered"
    try:
        compile_templates(rule)
    except ConfigurationError as error:
        yield from error.problems


def _level_faults(rule: ThresholdRule) -> Iterator[str]:
    lowest, highest = _BOUNDS[rule.metric]
    for name, level in (("level", rule.level), ("clear_level", rule.clear_level)):
        # An unset clear level repeats the level, and so would its fault.
        if not lowest <= level <= highest and (name == "level" or level != rule.level):
            span = "at least 0" if highest == float("inf") else f"from {lowest:g} to {highest:g}"
            yield f"{name}: {level:g} is no {rule.metric}, which is {span}"
    rising = rule.comparison in _RISING
    if rule.clear_level > rule.level if rising else rule.clear_level < rule.level:
        side = "at most" if rising else "at least"
        yield f"clear_level: must be {side} the level ({rule.level:g}), or an incident would be over before it began"
    if lowest <= rule.level <= highest and not _can_open(rule):
        gate = f" with minimum_stories {rule.minimum_stories}" if rule.metric is Metric.STORIES else ""
        yield f"level: no {rule.metric} is ever {rule.comparison} {rule.level:g}{gate}"


def _can_open(rule: ThresholdRule) -> bool:
    """Whether any value of the metric satisfies the rule."""
    lowest, highest = _BOUNDS[rule.metric]
    if rule.metric is Metric.STORIES:
        # A source needs a story to be counted; many sources can copy a single one.
        lowest = float(max(rule.minimum_stories, min(rule.minimum_sources, 1)))
    return rule.comparison.holds(highest if rule.comparison in _RISING else lowest, rule.level)


def _unknown_names(rule: Rule, known: dict[str, Collection[str] | None]) -> Iterator[str]:
    named = [("series", str(rule.series.kind), rule.series.name)] if rule.series.name is not None else []
    named += [(f"receivers.{number}", "receiver", name) for number, name in enumerate(rule.receivers or ())]
    if isinstance(rule, EventRule):
        named += [("categories", "category", name) for name in sorted(rule.categories or ())]
    for path, kind, name in named:
        names = known[kind]
        if names is not None and name not in names:
            near = get_close_matches(name or "", sorted(names), n=1)
            yield f"{path}: there is no {kind} {name!r}" + (f"; did you mean {near[0]!r}?" if near else "")
