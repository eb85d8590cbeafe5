"""What a run is held against: known events, other levels; and how that is shown."""

import json
import re
from html.parser import HTMLParser

import pytest
import yaml

from alerts.types import Comparison, Incident, SeriesSelector, Severity, ThresholdRule
from monitor.errors import ConfigurationError, PipelineError
from monitor.metrics import Balance
from monitor.types import Metric, Series, SeriesKind
from monitor.watchlist import Alias, Entity, WatchList
from pipelines.backtest.events import judge, read_events
from pipelines.backtest.findings import find
from pipelines.backtest.incidents import line
from pipelines.backtest.report import render, tables
from pipelines.backtest.run import Run
from pipelines.backtest.what_if import load_variants

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
BEGIN_MS = 1_772_409_600_000  # Monday, 2026-03-02
WATCHLIST = WatchList([Entity("halden", "Halden Bank", (Alias("Haldenbank"),)), Entity("norvik", "Norvik Re")])
HEADER = "event\tentity_regex\tknown_date\tmentions\tfirst_neg_headline_utc\n"


def rule(name):
    return ThresholdRule(name, Metric.NEGATIVE_STORIES, SeriesSelector(SeriesKind.ENTITY), HOUR_MS, Comparison.AT_LEAST, 3.0, 2.0)


def incident(at_ms, entity="halden", rule="burst", until_ms=None, summary=""):
    return Incident(
        f"{rule}-{entity}-{at_ms}", rule, Series(SeriesKind.ENTITY, entity), Severity.WARNING, BEGIN_MS + at_ms,
        resolved_at_ms=None if until_ms is None else BEGIN_MS + until_ms, summary=summary, display=WATCHLIST.names[entity],
    )  # fmt: skip


@pytest.fixture
def events(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text(
        HEADER
        + "Run on Halden\tHaldenbank\t2026-03-12\t7\t2026-03-12T00:00Z\n"
        + "Fraud at Norvik\tNorvik|norvik\t2026-03-20\t7\t2026-03-20T00:00Z\n"
        + "Before the archive\tHalden\t2025-01-01\t7\t2025-01-01T00:00Z\n",
        encoding="utf-8",
    )
    return read_events(path)


def held(incidents, events):
    return judge(incidents, events, WATCHLIST, BEGIN_MS, BEGIN_MS + 28 * DAY_MS)


def test_an_event_is_found_by_the_first_incident_about_it_within_a_day(events):
    early = incident(9 * DAY_MS + 20 * HOUR_MS, until_ms=10 * DAY_MS)
    late = incident(10 * DAY_MS + HOUR_MS, rule="tone")
    judged = held([late, early], events)
    found, missed = judged.verdicts
    assert (found.first, found.minutes, found.incidents) == (early, -240.0, 2)
    assert (missed.event.name, missed.first, missed.minutes, missed.incidents) == ("Fraud at Norvik", None, None, 0)
    assert (judged.found_within(DAY_MS), judged.found_within(2 * HOUR_MS), judged.precision) == (1, 1, 1.0)


def test_an_incident_a_day_late_or_about_somebody_else_finds_nothing(events):
    too_late = incident(11 * DAY_MS + HOUR_MS)
    assert held([too_late], events).verdicts[0].minutes is None
    assert held([too_late], events).false_alarms == ()
    other = incident(10 * DAY_MS + HOUR_MS, entity="norvik")
    assert [verdict.first for verdict in held([other], events).verdicts] == [None, None]
    named = incident(10 * DAY_MS + 3 * HOUR_MS, entity="norvik", summary="Norvik Re: lender of Haldenbank in talks")
    assert held([named], events).verdicts[0].minutes == 180.0
    assert held([named], events).found_within(2 * HOUR_MS) == 0


def test_what_is_about_no_event_is_a_false_alarm_and_they_are_counted_per_day(events):
    about = incident(10 * DAY_MS + HOUR_MS)
    over = incident(8 * DAY_MS, until_ms=8 * DAY_MS + HOUR_MS)
    before = incident(DAY_MS)
    after = incident(18 * DAY_MS)
    judged = held([about, over, before, after], events)
    assert judged.false_alarms == (over, before, after)
    assert judged.precision == 0.25
    assert judged.false_alarms_a_day == pytest.approx(3 / 28)


def test_a_file_of_events_is_refused_with_every_fault(tmp_path):
    path = tmp_path / "events.tsv"
    path.write_text("event\tknown_date\n", encoding="utf-8")
    with pytest.raises(PipelineError, match="lacks the columns entity_regex, first_neg_headline_utc"):
        read_events(path)
    path.write_text(HEADER + "a\t(\t2026\t1\t2026-03-12T00:00Z\nb\tb\t2026\t1\tnoon\n", encoding="utf-8")
    with pytest.raises(PipelineError, match=r"line 2: entity_regex .*line 3: first_neg_headline_utc"):
        read_events(path)


@pytest.fixture
def rules_file(tmp_path):
    item = {
        "name": "burst", "metric": "negative_stories", "series": "entity", "window": "1h", "comparison": ">=", "level": 3,
    }  # fmt: skip
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"rules": [item, item | {"name": "loud", "level": 9}]}), encoding="utf-8")
    return path


def variants(path, *asked):
    return load_variants(path, asked, entities=["halden"], topics=["credit"])


def test_what_if_adds_rules_that_differ_in_one_field(rules_file):
    rules, varied = variants(rules_file, "burst.level=4,5", "loud.window=15m")
    assert [(one.name, one.level, one.window_ms) for one in rules] == [
        ("burst", 3, HOUR_MS),
        ("loud", 9, HOUR_MS),
        ("burst.level.4", 4, HOUR_MS),
        ("burst.level.5", 5, HOUR_MS),
        ("loud.window.15m", 9, HOUR_MS // 4),
    ]
    assert [(one.rule, one.field, one.value) for one in varied] == [
        ("burst", "level", "4"),
        ("burst", "level", "5"),
        ("loud", "window", "15m"),
    ]
    assert variants(rules_file) == (rules[:2], ())


@pytest.mark.parametrize(
    ("asked", "fault"),
    [
        ("burst.level", "is not of the form"),
        ("tone.level=4", "there is no rule 'tone'"),
        ("burst.level=many", r"rules\.0\.level"),
        ("burst.colour=4", r"rules\.0\.colour"),
    ],
)
def test_what_if_is_checked_as_any_rule_is(rules_file, asked, fault):
    with pytest.raises(ConfigurationError, match=fault):
        variants(rules_file, asked)


def findings(incidents, events, rules_file=None, *asked):
    rules, varied = ((rule("burst"), rule("tone")), ()) if rules_file is None else variants(rules_file, *asked)
    run = Run(tuple(incidents), BEGIN_MS, BEGIN_MS + 27 * DAY_MS, Balance())
    return find(run, rules, varied, events, WATCHLIST)


def test_every_week_is_counted_by_rule_also_the_quiet_ones(events):
    found = findings([incident(HOUR_MS), incident(6 * DAY_MS), incident(8 * DAY_MS, rule="tone")], events)
    assert [(week.monday, dict(week.opened)) for week in found.weeks] == [
        ("2026-03-02", {"burst": 2}),
        ("2026-03-09", {"tone": 1}),
        ("2026-03-16", {}),
        ("2026-03-23", {}),
    ]


def test_variants_are_compared_and_never_counted_as_incidents(events, rules_file):
    own = incident(10 * DAY_MS + HOUR_MS)
    other = incident(10 * DAY_MS + 3 * HOUR_MS, rule="burst.level.4")
    stray = incident(2 * DAY_MS, rule="burst.level.4")
    found = findings([own, other, stray], events, rules_file, "burst.level=4")
    assert found.incidents == (own,)
    compared = [(one.rule, one.value, one.incidents, one.found, one.found_promptly, one.precision) for one in found.alternatives]
    assert compared == [("burst", "", 1, 1, 1, 1.0), ("burst", "4", 2, 1, 0, 0.5), ("loud", "", 0, 0, 0, None)]


def test_a_line_says_what_other_programs_need():
    one = incident(HOUR_MS, until_ms=2 * HOUR_MS, summary="Halden Bank: 3 of 4")
    assert json.loads(line(one)) == {
        "incident_id": "burst-halden-3600000",
        "rule": "burst",
        "kind": "threshold",
        "severity": "warning",
        "topic": None,
        "entity": "Halden Bank",
        "entity_id": "halden",
        "opened_at": "2026-03-02T01:00:00Z",
        "resolved_at": "2026-03-02T02:00:00Z",
        "summary": "Halden Bank: 3 of 4",
    }


class Page(HTMLParser):
    """The elements of a page, and what they refer to."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.references, self.texts = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.references += [value for name, value in attributes if name in {"src", "href", "xlink:href", "action"}]
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.texts.append(data)


def test_the_page_stands_by_itself_and_hostile_headlines_stay_text(events):
    hostile = '<script>alert(1)</script><img src=x onerror="x"> {{ 7 * 7 }}'
    text = render(findings([incident(10 * DAY_MS + HOUR_MS, summary=hostile)], events))
    page = Page(text)
    assert hostile in page.texts
    assert {"script", "img", "link", "iframe"}.isdisjoint(page.tags)
    assert page.references == []
    assert "url(" not in text
    assert page.tags.count("svg") == 2
    assert "1 of 2" in page.texts
    assert re.search(r"Fraud at Norvik</td>.*not found", text)


def test_a_run_without_anything_is_shown_too():
    nothing = find(Run((), None, None, Balance()), [rule("burst")], (), None, WATCHLIST)
    assert "Known events" not in render(nothing)
    assert len(list(tables(nothing))) == 1
