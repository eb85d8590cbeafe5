"""Reports of severe events to one incident per watched entity: the first credible one opens it, and only what is new is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from alerts.lifecycle import incident_id, thaw
from alerts.text import number_text, plain_text
from alerts.types import AlertState, ChangeKind, EventRule, Incident, IncidentChange, Phase, RuleKind, Severity
from monitor.types import Report, Series, SeriesKind

MOST_STORIES: Final = 20
"""An incident remembers so many of its stories, the earliest; the others it counts."""

_SOURCES_WORTH_TELLING: Final = frozenset({2, 5, 10, 20, 50})
_SUMMARY_CHARACTERS: Final = 300
_HEADLINE_CHARACTERS: Final = 400


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What is known of an entity's events while an incident lasts; kept as the incident's evidence.

    `events` maps the ids of categories to what they are called, in the order in which they were told; `stories` the ids of stories
    to their first report. `documents` counts all reports, `story_count` all stories.
    """

    events: Mapping[str, str]
    sources: frozenset[str]
    stories: Mapping[int, Mapping[str, Any]]
    story_count: int
    documents: int

    def hear(self, report: Report, title: str) -> Knowledge:
        """What is known after one more report."""
        stories = dict(self.stories)
        known = stories.get(report.story_id)
        if known is not None:
            sources = [*known["sources"], *({report.source} - set(known["sources"]))]
            stories[report.story_id] = {**known, "copies": known["copies"] + 1, "sources": sources[:MOST_STORIES]}
        elif len(stories) < MOST_STORIES:
            stories[report.story_id] = {
                "headline": plain_text(report.headline, _HEADLINE_CHARACTERS),
                "event": report.category,
                "at_ms": report.at_ms,
                "document_key": report.document_key,
                "sources": [report.source],
                "copies": 0,
            }
        return Knowledge(
            events={**self.events, **({} if report.category in self.events else {report.category: title})},
            sources=self.sources | {report.source},
            stories=stories,
            story_count=self.story_count + (known is None),
            documents=self.documents + 1,
        )

    def evidence(self) -> dict[str, Any]:
        """As an incident keeps it."""
        return {
            "kind": str(RuleKind.EVENT),
            "events": dict(self.events),
            "sources": sorted(self.sources),
            "stories": [{"story_id": story_id, **story} for story_id, story in self.stories.items()],
            "story_count": self.story_count,
            "documents": self.documents,
        }


_NOTHING_KNOWN: Final = Knowledge({}, frozenset(), {}, 0, 0)


def known_from(evidence: Mapping[str, Any]) -> Knowledge:
    """What `Knowledge.evidence` wrote down."""
    if not evidence:
        return _NOTHING_KNOWN
    stories = {
        story["story_id"]: {key: value for key, value in story.items() if key != "story_id"} for story in evidence["stories"]
    }
    return Knowledge(
        dict(evidence["events"]), frozenset(evidence["sources"]), stories, evidence["story_count"], evidence["documents"]
    )


def hears(rule: EventRule, report: Report) -> bool:
    """Whether the rule asks for such a report."""
    return rule.series.name in (None, report.entity) and (rule.categories is None or report.category in rule.categories)


def hear(
    rule: EventRule, state: AlertState | None, report: Report, title: str, display: str
) -> tuple[AlertState | None, IncidentChange | None]:
    """The state after one report, and what it did to the incident, if anything.

    A first credible report opens. While the incident is open, every report prolongs it; told are only a higher severity
    (ESCALATED), an event of another kind, and a number of sources worth telling (UPDATED).
    """
    series = Series(SeriesKind.ENTITY, report.entity)
    if state is None or state.incident is None:
        if rule.credible_sources is not None and report.source not in rule.credible_sources:
            return state, None
        incident = _opened(rule, series, report, title, display)
        state = AlertState(
            rule.name,
            series,
            Phase.FIRING,
            since_ms=report.at_ms,
            clear_since_ms=report.at_ms,
            incident_id=incident.incident_id,
            incident=incident,
        )
        return state, IncidentChange(ChangeKind.OPENED, 1, report.at_ms, incident, None)
    before, was = known_from(state.incident.evidence), state.incident
    after = before.hear(report, title)
    louder = Severity(report.severity).rank > was.severity.rank
    more_sources = len(after.sources) > len(before.sources) and len(after.sources) in _SOURCES_WORTH_TELLING
    kind = ChangeKind.ESCALATED if louder else ChangeKind.UPDATED if more_sources or report.category not in before.events else None
    incident = replace(was, evidence=after.evidence())
    if kind is not None:
        severity = Severity(report.severity) if louder else was.severity
        incident = replace(incident, severity=severity, sequence=was.sequence + 1, summary=_summary(display, after))
    # Reports come in the order of stream time but for late ones, which must not bring the end nearer.
    told_ms = max(report.at_ms, state.clear_since_ms or report.at_ms)
    state = replace(thaw(state, report.at_ms), clear_since_ms=told_ms, incident=incident)
    return state, None if kind is None else IncidentChange(kind, incident.sequence, report.at_ms, incident, None)


def _opened(rule: EventRule, series: Series, report: Report, title: str, display: str) -> Incident:
    known = _NOTHING_KNOWN.hear(report, title)
    return Incident(
        incident_id=incident_id(rule.name, series, report.at_ms),
        rule=rule.name,
        kind=RuleKind.EVENT,
        series=series,
        severity=Severity(report.severity),
        opened_at_ms=report.at_ms,
        summary=_summary(display, known),
        display=display,
        evidence=known.evidence(),
    )


def _summary(display: str, known: Knowledge) -> str:
    """One plain sentence: "Halden Bank: insolvency; 3 stories, 4 sources, first by wire: Halden Bank files for …"."""
    first = next(iter(known.stories.values()))
    events = ", ".join(known.events.values())
    reach = f"{number_text(known.story_count, 'story', 'stories')}, {number_text(len(known.sources), 'source', 'sources')}"
    told = f"{display}: {events}; {reach}, first by {first['sources'][0] or 'an unnamed source'}: {first['headline']}"
    return plain_text(told, _SUMMARY_CHARACTERS)
