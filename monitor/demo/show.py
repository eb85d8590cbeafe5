"""The state of a running demo in, a screen out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from alerts.types import Incident
from monitor.demo.receiver import Message
from monitor.metrics import Balance, View
from monitor.types import Reading, SeriesKind

_BAR = 24
_TOPICS = 9
_INCIDENTS = 8
_STYLES = {"info": "cyan", "warning": "yellow", "critical": "bold red"}


@dataclass(frozen=True, slots=True)
class Picture:
    """Everything that the screen shows, at one moment."""

    stream_at: datetime
    elapsed_s: float
    written: int
    lines: int
    balance: Balance
    view: View
    incidents: Sequence[Incident]
    messages: Sequence[Message]
    forged: int


def screen(picture: Picture) -> RenderableType:
    """The whole screen."""
    return Group(_header(picture), _tones(picture.view), _incidents(picture.incidents), _messages(picture))


def clock(moment_ms: int | None) -> str:
    """A moment of the sample day as a person reads it."""
    return "" if moment_ms is None else datetime.fromtimestamp(moment_ms / 1000, tz=UTC).strftime("%H:%M")


def incident_line(incident: Incident) -> Text:
    """One incident in one line: when, how loud, what."""
    text = Text()
    text.append(f"{clock(incident.opened_at_ms)} ", style="bold")
    end = f"resolved {clock(incident.resolved_at_ms)}" if incident.resolved_at_ms is not None else "open"
    text.append(f"{end:<15}", style="green" if incident.resolved_at_ms is not None else "bold red")
    text.append(f"{incident.severity:<9}", style=_STYLES.get(str(incident.severity), ""))
    text.append(f"{incident.rule:<14}", style="dim")
    text.append(incident.summary)
    return text


def _header(picture: Picture) -> RenderableType:
    balance = picture.balance
    counted = balance.stories + balance.copies
    rejected = sum(balance.rejected.values())
    rate = balance.consumed / picture.elapsed_s if picture.elapsed_s else 0.0
    times = timedelta(seconds=round(picture.elapsed_s))
    lines = Text()
    lines.append(f"{picture.stream_at:%A %H:%M} UTC", style="bold")
    lines.append(f"   judged to {clock(picture.view.at_ms) or '–'}   {times} on the wall   {rate:,.0f} documents/s\n")
    lines.append(f"consumed {balance.consumed:,} = counted {counted:,} + stale {balance.stale} + duplicate {balance.duplicate}")
    lines.append(f" + rejected {rejected}     {balance.stories:,} stories, {balance.copies:,} copies")
    bar = ProgressBar(total=max(picture.lines, 1), completed=picture.written, width=None)
    return Panel(Group(lines, bar), title="Bellwether: a day of invented news", title_align="left")


def _tones(view: View) -> RenderableType:
    table = Table(box=None, expand=True, title="tone by topic, last hour", title_justify="left", title_style="bold", padding=(0, 1))
    for name, right in (("topic", False), ("stories", True), ("negative", True), ("tone", False)):
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    topics = [reading for reading in view.readings if reading.series.kind is SeriesKind.TOPIC and reading.stories]
    for reading in sorted(topics, key=lambda reading: (-reading.stories, reading.series))[:_TOPICS]:
        negative = reading.count.stories[0]
        table.add_row(Text(reading.series.name), str(reading.stories), str(negative), _bar(reading))
    return table


def _bar(reading: Reading) -> Text:
    """Negative, uncertain and neutral, positive: as shares of a bar."""
    negative, neutral, positive, uncertain = reading.count.stories
    text, left = Text(), _BAR
    for number, style in ((negative, "red"), (uncertain, "yellow"), (neutral, "bright_black")):
        width = min(left, round(_BAR * number / reading.stories))
        text.append("█" * width, style=style)
        left -= width
    text.append("█" * (left if positive else 0), style="green")
    return text


def _incidents(incidents: Sequence[Incident]) -> RenderableType:
    lines = [incident_line(incident) for incident in incidents[:_INCIDENTS]]
    if len(incidents) > _INCIDENTS:
        lines.append(Text(f"… and {len(incidents) - _INCIDENTS} earlier", style="dim"))
    body = Group(*lines) if lines else Text("none yet: the first trouble comes at 13:00", style="dim")
    return Panel(body, title="incidents", title_align="left")


def _messages(picture: Picture) -> RenderableType:
    lines = [
        Text(f"✓ {message.kind:<18} {message.webhook_id[:16]}…  {message.data['summary']}") for message in picture.messages[-3:]
    ]
    title = f"webhooks received by the desk, signatures verified: {len(picture.messages)}"
    if picture.forged:
        title += f", refused: {picture.forged}"
    return Panel(Group(*lines) if lines else Text("none yet", style="dim"), title=title, title_align="left")
