"""What decided an incident, and the stories behind it, to a frozen pack as JSON holds it; and the pack back to the same decision.

Every number that the decision was made from is in the pack, so that it can be made again, bit for bit, after rules, baseline and
model have changed (`recompute`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final

from alerts.lifecycle import Condition, weigh
from alerts.surge import Evidence, SurgeKind, decide, recompute
from alerts.text import number_text, plain_text
from alerts.types import Comparison, Incident, RuleKind, SeriesSelector, SurgeRule, ThresholdRule
from monitor.errors import EvidenceMissing
from monitor.types import Count, Metric, Reading, StoryView

MOST_STORIES: Final = 5
_HEADLINE_CHARACTERS: Final = 400
_MOST_SOURCES: Final = 20


def threshold_evidence(rule: ThresholdRule, reading: Reading, sources: int, stories: Sequence[StoryView]) -> dict[str, Any]:
    """What a threshold rule decided from."""
    return {
        "kind": str(RuleKind.THRESHOLD),
        "metric": str(rule.metric),
        "comparison": str(rule.comparison),
        "level": rule.level,
        "minimum_stories": rule.minimum_stories,
        "minimum_sources": rule.minimum_sources,
        "count": asdict(reading.count),
        "from_ms": reading.from_ms,
        "until_ms": reading.until_ms,
        "sources": sources,
        **_stories(stories),
    }


def surge_evidence(rule: SurgeRule, found: Evidence, at_ms: int, stories: Sequence[StoryView]) -> dict[str, Any]:
    """What a surge rule decided from, and whether it would have without the story, and without the source, that tells most."""
    return {
        "kind": str(RuleKind.SURGE),
        "found": asdict(found),
        "critical_alarms_a_day": rule.critical_alarms_a_day,
        "alarms_a_day": rule.settings.alarms_a_day,
        "until_ms": at_ms,
        "without_largest_story": _holds_without(found, stories, stories[:1]),
        "without_largest_source": _holds_without(found, stories, _of_largest_source(found, stories)),
        **_stories(stories),
    }


def _stories(stories: Sequence[StoryView]) -> dict[str, Any]:
    return {
        "story_count": len(stories),
        "stories": [
            {
                "story_id": story.story_id,
                "headline": plain_text(story.headline, _HEADLINE_CHARACTERS),
                "tone": story.tone,
                "at_ms": story.at_ms,
                "sources": list(story.sources[:_MOST_SOURCES]),
                "copies": story.copies,
                "document_key": story.document_key,
                "model": story.model,
            }
            for story in stories[:MOST_STORIES]
        ],
    }


def _of_largest_source(found: Evidence, stories: Sequence[StoryView]) -> list[StoryView]:
    """The stories that were first told by the source that told most of those that count."""
    told: dict[str, list[StoryView]] = {}
    for story in stories:
        told.setdefault(story.sources[0], []).append(story)
    counts = {source: sum(_counts(found, story) for story in theirs) for source, theirs in told.items()}
    return told[max(sorted(counts), key=lambda source: counts[source])] if counts else []


def _holds_without(found: Evidence, stories: Sequence[StoryView], gone: Sequence[StoryView]) -> bool:
    kept = [story for story in stories if story not in gone]
    less = replace(
        found,
        count=found.count - sum(_counts(found, story) for story in gone),
        of=found.of - len(gone),
        sources=len({source for story in kept for source in story.sources}),
    )
    return less.count >= 0 and less.of >= 0 and decide(less) is None


def _counts(found: Evidence, story: StoryView) -> bool:
    return found.kind is SurgeKind.VOLUME or story.tone == "negative"


# --- the same decision, later ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recomputed:
    """A decision made again: whether it is the one that was made, and each number as it was kept and as it is now."""

    same: bool
    numbers: Mapping[str, tuple[object, object]]


def recompute_incident(incident: Incident) -> Recomputed:
    """Decides anew from an incident's evidence alone. Raises EvidenceMissing when there is none."""
    pack = incident.evidence
    match pack.get("kind"):
        case RuleKind.SURGE:
            kept = evidence_from(pack["found"])
            again = recompute(kept)
            numbers: dict[str, tuple[object, object]] = {
                name: (getattr(kept, name), getattr(again, name)) for name in ("r", "q", "p", "alpha")
            }
            numbers["fires"] = True, decide(kept) is None
        case RuleKind.THRESHOLD:
            count = Count(tuple(pack["count"]["stories"]), tuple(pack["count"]["copies"]), pack["count"]["score_units"])
            reading = Reading(incident.series, pack["from_ms"], pack["until_ms"], count)
            rule = ThresholdRule(
                name=incident.rule,
                metric=Metric(pack["metric"]),
                series=SeriesSelector(incident.series.kind, incident.series.name or None),
                window_ms=reading.until_ms - reading.from_ms,
                comparison=Comparison(pack["comparison"]),
                level=pack["level"],
                clear_level=pack["level"],
                minimum_stories=pack["minimum_stories"],
                minimum_sources=pack["minimum_sources"],
            )
            holds = weigh(rule, reading, lambda: pack["sources"], firing=False) is Condition.HOLDS
            numbers = {"value": (reading.value(rule.metric),) * 2, "fires": (True, holds)}
        case RuleKind.EVENT:
            numbers = {"fires": (True, bool(pack["events"]) and pack["documents"] >= 1)}
        case _:
            raise EvidenceMissing(f"incident {incident.incident_id} keeps no evidence: an older version opened it")
    return Recomputed(all(kept == now for kept, now in numbers.values()), numbers)


def evidence_from(found: Mapping[str, Any]) -> Evidence:
    """What `surge_evidence` wrote down of the numbers."""
    return Evidence(**{**found, "kind": SurgeKind(found["kind"])})


# --- one plain sentence --------------------------------------------------------------------------


def surge_summary(display: str, found: Evidence, stories: Sequence[StoryView], window: str) -> str:
    """What happened, against what is normal, how unlikely, over which window, and what the leading story says."""
    expected = f"{found.expected:.1f}" if found.expected >= 0.1 else f"{found.expected:.2g}"
    sources = f", {number_text(found.sources, 'source', 'sources')}" if found.sources else ""
    match found.kind:
        case SurgeKind.NEGATIVE:
            said = f"{found.count} negative stories in {window} where {expected} are usual ({odds(found.p)}{sources})"
        case SurgeKind.VOLUME:
            said = f"{found.count} stories in {window} where {expected} are usual ({odds(found.p)}{sources})"
        case SurgeKind.SHARE:
            share, usual = f"{found.count / max(found.of, 1):.0%}", f"{found.expected:.0%}"
            said = f"{share} of {found.of} stories negative in {window} where {usual} is usual ({odds(found.p)}{sources})"
        case SurgeKind.SILENCE:
            said = f"{found.count} stories in {window} where {expected} are usual ({odds(found.p)})"
    led = f"; {stories[0].headline}" if stories else ""
    return plain_text(f"{display}: {said}{led}", 300)


def odds(p: float) -> str:
    """A probability as people say it: "1 in 40,000"."""
    if p <= 0.0:
        return "all but impossible"
    one_in = 1.0 / p
    if one_in >= 1e9:
        return "less than 1 in a billion"
    rounded = float(f"{one_in:.1g}") if one_in >= 10 else round(one_in, 1)
    return f"1 in {rounded:,.0f}" if rounded >= 10 else f"1 in {rounded:g}"
