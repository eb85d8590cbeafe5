"""However time is handed over, in whatever pieces and with whatever restarts, the same minutes are judged with the same result."""

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from alerts.judge import Judge
from alerts.types import Comparison, EventRule, SeriesSelector, Severity, ThresholdRule
from monitor.errors import StoreUnavailable
from monitor.judging import Judging
from monitor.metrics import Metrics
from monitor.types import ALL_SERIES, MINUTE_MS, Bucket, Count, Metric, Partition, Report, Series, SeriesKind
from monitor.windows import Windows

BANK = Series(SeriesKind.ENTITY, "bank")
BEGIN_MS = 1_772_431_200_000
REACH_MS = 60 * MINUTE_MS
BLIND_MS = 30 * MINUTE_MS
RULES = (
    ThresholdRule(
        name="burst",
        metric=Metric.NEGATIVE_STORIES,
        series=SeriesSelector(SeriesKind.ENTITY),
        window_ms=10 * MINUTE_MS,
        comparison=Comparison.AT_LEAST,
        level=3,
        clear_level=1,
        for_ms=2 * MINUTE_MS,
        severity=Severity.CRITICAL,
    ),
    ThresholdRule(
        name="tone",
        metric=Metric.NEGATIVE_SHARE,
        series=SeriesSelector(SeriesKind.ALL),
        window_ms=60 * MINUTE_MS,
        comparison=Comparison.ABOVE,
        level=0.5,
        clear_level=0.3,
        minimum_stories=4,
        keep_firing_ms=5 * MINUTE_MS,
    ),
    EventRule(name="event", keep_firing_ms=60 * MINUTE_MS),
)


class Sources:
    def sources(self, series, window_ms, until_ms):
        return 5

    def story_views(self, series, window_ms, until_ms):
        return []


@dataclass
class Saved:
    """The store as far as judging knows it.

    `failures` says how the next saves fail: not at all, before anything was saved, or after everything was (the connection broke
    before the answer came).
    """

    until_ms: int | None = None
    state: dict = field(default_factory=dict)
    changes: list = field(default_factory=list)
    failures: list = field(default_factory=list)
    reports: list = field(default_factory=list)
    """Those whose documents were placed and that no rule has heard of, with their numbers."""

    def unheard(self):
        return list(self.reports)

    def incidents(self, kind, since_ms):
        return []

    def evaluated_until_ms(self):
        return self.until_ms

    def states(self):
        return dict(self.state)

    def save(self, evaluations, deliveries, evaluated_until_ms, lease, heard):
        failure = self.failures.pop() if self.failures else ""
        if failure == "before":
            raise StoreUnavailable("not now")
        for evaluation in evaluations:
            self.changes += [(change.kind, change.at_ms, change.incident.incident_id) for change in evaluation.changes]
            for key, state in evaluation.states.items():
                if state is None:
                    self.state.pop(key, None)
                else:
                    self.state[key] = state
        self.until_ms = evaluated_until_ms
        self.reports = [(number, report) for number, report in self.reports if heard is None or number > heard]
        if failure == "after":
            raise StoreUnavailable("no answer")


def windows_of(history):
    windows = Windows(REACH_MS, Sources())
    windows.add(history)
    return windows


def judging_over(history, saved):
    registry = CollectorRegistry()
    judging = Judging(
        judge=Judge(RULES, {"bank": "Bank"}),
        incidents=saved,
        lease=None,
        windows=windows_of(history),
        receivers=(),
        reach_ms=REACH_MS,
        blind_after_ms=BLIND_MS,
        metrics=Metrics(registry, [(rule.name, rule.severity) for rule in RULES], []),
        wall_ms=lambda: 0,
        announce=lambda: None,
    )
    judging.restore()
    return judging


def oracle(history, reports, until_ms):
    """Every single minute after the first counted one, judged by hand; before it, what was reported until then."""
    waiting = list(reports)
    windows, judge, states, changes = windows_of(history), Judge(RULES, {"bank": "Bank"}), {}, []
    for at_ms in range(min(bucket.minute_ms for bucket in history) + MINUTE_MS, until_ms + 1, MINUTE_MS):
        while waiting and waiting[0].at_ms < at_ms:
            follow(judge.hear(waiting.pop(0), states), states, changes)
        blind = windows.reading(ALL_SERIES, BLIND_MS, at_ms).documents == 0
        follow(judge.evaluate(at_ms, windows, states, blind=blind), states, changes)
    for report in waiting:
        follow(judge.hear(report, states), states, changes)
    return changes, states


def follow(evaluation, states, changes):
    changes += [(change.kind, change.at_ms, change.incident.incident_id) for change in evaluation.changes]
    for key, state in evaluation.states.items():
        if state is None:
            states.pop(key, None)
        else:
            states[key] = state


# Minutes between two buckets: neighbours, the edges of the windows, of blindness, and a long silence.
gaps = st.sampled_from([0, 1, 2, 9, 10, 11, 29, 30, 31, 59, 60, 61, 700])
counts = st.tuples(st.integers(0, 4), st.integers(0, 3))


@st.composite
def histories(draw):
    minute_ms, history = BEGIN_MS, []
    for gap, (negative, neutral) in draw(st.lists(st.tuples(gaps, counts), min_size=1, max_size=12)):
        minute_ms += gap * MINUTE_MS
        count = Count((negative, neutral, 0, 0), (1, 0, 0, 0), -negative)
        history += [Bucket(Partition("t", 0), minute_ms, series, count) for series in (ALL_SERIES, BANK)]
    return history


@st.composite
def reports(draw, history):
    """Reports of events in some of the minutes that count anything, in the order of time."""
    moments = st.tuples(st.sampled_from(sorted({bucket.minute_ms for bucket in history})), st.integers(0, MINUTE_MS - 1))
    found = draw(st.lists(st.tuples(moments, st.sampled_from(["fraud", "default"]), st.sampled_from("abc")), max_size=6))
    severities = {"fraud": "warning", "default": "critical"}
    return [
        Report(minute_ms + later_ms, "bank", category, severities[category], number % 2, number, source, f"{category} at the bank")
        for number, ((minute_ms, later_ms), category, source) in enumerate(sorted(found), 1)
    ]


@given(histories(), st.data())
@settings(max_examples=120, deadline=None)
def test_the_pieces_in_which_time_comes_and_restarts_and_failing_saves_change_nothing(history, data):
    told = data.draw(reports(history))
    until_ms = max(bucket.minute_ms for bucket in history) + data.draw(st.sampled_from([0, 1, 11, 61, 200])) * MINUTE_MS
    begin_ms = min(bucket.minute_ms for bucket in history)
    steps = data.draw(st.lists(st.integers(begin_ms, until_ms), max_size=8))
    saved = Saved(failures=data.draw(st.lists(st.sampled_from(["", "before", "after"]), max_size=6)))
    judging = judging_over(history, saved)
    placed = list(enumerate(told, 1))
    for mark_ms in [*sorted(steps), *[until_ms] * 8]:
        # What comes before the mark is placed before time is judged up to it; in the last minute, before it is over.
        while placed and (placed[0][1].at_ms < mark_ms or mark_ms == until_ms):
            saved.reports.append(placed.pop(0))
        if data.draw(st.booleans()):
            judging = judging_over(history, saved)
        try:
            judging.advance(mark_ms)
        except StoreUnavailable:
            judging.clear()
            judging.restore()
    changes, states = oracle(history, told, until_ms)
    assert saved.changes == changes
    assert saved.state == states
    assert judging.states == states
    assert judging.evaluated_until_ms == until_ms


@given(histories())
@settings(max_examples=40, deadline=None)
def test_a_mark_that_goes_back_or_stands_still_judges_nothing(history):
    saved = Saved()
    judging = judging_over(history, saved)
    until_ms = max(bucket.minute_ms for bucket in history) + MINUTE_MS
    judging.advance(until_ms)
    before = list(saved.changes)
    assert judging.advance(until_ms + MINUTE_MS - 1) == 0
    assert judging.advance(until_ms - 10 * MINUTE_MS) == 0
    assert saved.changes == before
