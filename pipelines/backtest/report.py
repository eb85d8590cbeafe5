"""Findings in, one page out that shows them: no script, nothing fetched, light and dark; or the same as tables on a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from rich.markup import escape
from rich.table import Table

from pipelines.backtest.events import Verdict
from pipelines.backtest.findings import Alternative, Findings
from pipelines.backtest.incidents import utc
from pipelines.page import page

TEMPLATE: Final = "report.html.jinja"
MOST_LISTED: Final = 2_000
"""So many incidents are listed on the page, the newest left out."""


def render(findings: Findings) -> str:
    """The page as HTML. Whatever a headline or a rule says is escaped."""
    false_alarms = set() if findings.judgement is None else {one.incident_id for one in findings.judgement.false_alarms}
    template = Path(__file__).with_name(TEMPLATE)
    return page(
        template, findings=findings, judgement=findings.judgement, false_alarms=false_alarms, utc=utc, most_listed=MOST_LISTED
    )


def tables(findings: Findings) -> Iterator[Table]:
    """What a terminal shows."""
    weeks = Table("week of", *(escape(rule) for rule in findings.rules), "all", title="alarms per week and rule", box=None)
    for week in findings.weeks:
        counts = [str(week.opened[rule] or "") for rule in findings.rules]
        weeks.add_row(week.monday, *counts, str(week.opened.total() or ""))
    totals = [str(sum(week.opened[rule] for week in findings.weeks)) for rule in findings.rules]
    weeks.add_row("all", *totals, str(len(findings.incidents)), style="bold")
    yield weeks
    if findings.judgement is not None:
        events = Table("event", "first bad headline", "rule", "opened", "minutes after", title="known events", box=None)
        for verdict in findings.judgement.verdicts:
            events.add_row(*(escape(cell) for cell in _cells(verdict)))
        yield events
    if len(findings.alternatives) > len(findings.rules):
        what_if = Table(
            "rule", "what if", "incidents", "a day", "found", "in 2 h", "precision", "false a day", title="what if", box=None
        )
        for one in findings.alternatives:
            what_if.add_row(*(escape(cell) for cell in _alternative_cells(one)))
        yield what_if


def _cells(verdict: Verdict) -> tuple[str, ...]:
    first = _minute(verdict.event.first_ms)
    if verdict.first is None or verdict.minutes is None:
        return verdict.event.name, first, "not found", "", ""
    return verdict.event.name, first, verdict.first.rule, _minute(verdict.first.opened_at_ms), f"{verdict.minutes:.0f}"


def _minute(time_ms: int) -> str:
    return utc(time_ms)[:16].replace("T", " ")


def _alternative_cells(one: Alternative) -> tuple[str, ...]:
    what_if = f"{one.field} = {one.value}" if one.field else "as it is"
    figures = ("" if one.found is None else str(one.found), "" if one.found_promptly is None else str(one.found_promptly))
    shares = ("" if one.precision is None else f"{one.precision:.2f}",)
    false = "" if one.false_alarms_a_day is None else f"{one.false_alarms_a_day:.2f}"
    return (one.rule, what_if, str(one.incidents), f"{one.incidents_a_day:.2f}", *figures, *shares, false)
