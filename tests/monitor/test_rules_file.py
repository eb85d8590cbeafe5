"""Rules as they are written: every mistake is named with its place, all of them at once."""

import pytest
import yaml

from alerts.types import Comparison, Severity
from monitor.errors import ConfigurationError
from monitor.rules_file import load_rules
from monitor.types import Metric, SeriesKind

GOOD = {
    "name": "tone",
    "metric": "negative_share",
    "series": "entity",
    "window": "1h",
    "comparison": ">=",
    "level": 0.6,
}


def written(tmp_path, *rules):
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"rules": list(rules)}), encoding="utf-8")
    return path


def test_a_rule_says_what_it_says(tmp_path):
    whole = GOOD | {
        "clear_level": 0.4,
        "minimum_stories": 5,
        "minimum_sources": 2,
        "for": "2m",
        "keep_firing": "10m",
        "severity": "critical",
        "labels": {"team": "credit"},
        "annotations": {"summary": "{{ entity.name }}: {{ negative }} of {{ stories }}"},
        "receivers": ["desk"],
    }
    (rule,) = load_rules(written(tmp_path, whole), entities={"a"}, topics=set(), receivers={"desk"})
    assert (rule.metric, rule.series.kind, rule.series.name) == (Metric.NEGATIVE_SHARE, SeriesKind.ENTITY, None)
    assert (rule.window_ms, rule.for_ms, rule.keep_firing_ms) == (3_600_000, 120_000, 600_000)
    assert (rule.comparison, rule.level, rule.clear_level) == (Comparison.AT_LEAST, 0.6, 0.4)
    assert (rule.minimum_stories, rule.minimum_sources, rule.severity) == (5, 2, Severity.CRITICAL)
    assert (dict(rule.labels), rule.receivers) == ({"team": "credit"}, ("desk",))


def test_without_a_clear_level_the_level_itself_clears(tmp_path):
    (rule,) = load_rules(written(tmp_path, GOOD))
    assert rule.clear_level == rule.level


@pytest.mark.parametrize(
    ("text", "kind", "name"),
    [
        ("all", SeriesKind.ALL, None),
        ("topic", SeriesKind.TOPIC, None),
        ("topic:M&A | Investments", SeriesKind.TOPIC, "M&A | Investments"),
        ("entity:halden-bank", SeriesKind.ENTITY, "halden-bank"),
    ],
)
def test_a_series_is_everything_a_kind_or_one_of_a_kind(tmp_path, text, kind, name):
    path = written(tmp_path, GOOD | {"series": text})
    (rule,) = load_rules(path, entities={"halden-bank"}, topics={"M&A | Investments"})
    assert (rule.series.kind, rule.series.name) == (kind, name)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"metric": "mood"}, "rules.0.metric"),
        ({"series": "company"}, "rules.0.series"),
        ({"series": "all:of-them"}, "rules.0.series"),
        ({"series": "entity:nobody"}, "there is no entity 'nobody'"),
        ({"series": "topic:Nothing"}, "there is no topic 'Nothing'"),
        ({"window": "90s"}, "rules.0.window: must be whole minutes"),
        ({"window": "30s"}, "rules.0.window: must be from 1m to 24h"),
        ({"window": "25h"}, "rules.0.window: must be from 1m to 24h"),
        ({"window": 60}, "a duration needs a unit"),
        ({"for": "30s"}, "rules.0.for: must be whole minutes"),
        ({"level": 60}, "level: 60 is no negative_share, which is from 0 to 1"),
        ({"metric": "mean_score", "level": -2}, "level: -2 is no mean_score, which is from -1 to 1"),
        ({"metric": "stories", "level": -1}, "level: -1 is no stories, which is at least 0"),
        ({"level": float("nan")}, "rules.0.level"),
        ({"clear_level": 0.7}, "clear_level: must be at most the level"),
        ({"comparison": "<", "clear_level": 0.5}, "clear_level: must be at least the level"),
        ({"comparison": "=="}, "rules.0.comparison"),
        ({"name": "With Spaces"}, "rules.0.name"),
        ({"threshold": 1}, "rules.0.threshold: unknown key"),
        ({"receivers": ["nobody"]}, "there is no receiver 'nobody'"),
        ({"annotations": {"summary": "{{ entitty.name }}"}}, "rules.0.annotations.summary"),
        ({"annotations": {"summary": "{{ unclosed"}}, "rules.0.annotations.summary"),
        ({"annotations": {"summary": "{{ ''.__class__.__mro__ }}"}}, "rules.0.annotations.summary"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path, change, says):
    with pytest.raises(ConfigurationError) as caught:
        load_rules(written(tmp_path, GOOD | change), entities={"a"}, topics={"t"}, receivers={"desk"})
    assert says in str(caught.value)


def test_all_mistakes_of_all_rules_are_reported_at_once(tmp_path):
    bad = GOOD | {"name": "b", "window": "1s", "level": 7}
    with pytest.raises(ConfigurationError) as caught:
        load_rules(written(tmp_path, GOOD, GOOD, bad, GOOD | {"name": "c", "series": "x"}))
    text = str(caught.value)
    for part in ("rules.1.name: 'tone' is already", "rules.2.window", "rules.3.series"):
        assert part in text


@pytest.mark.parametrize("text", ["rules: 5", "- a", "rule: []", "rules: []\nmore: 1"])
def test_a_file_of_another_shape_is_refused(tmp_path, text):
    path = tmp_path / "rules.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=r"must be a list|must be a mapping|unknown key"):
        load_rules(path)


def test_an_empty_file_holds_no_rule(tmp_path):
    path = tmp_path / "rules.yaml"
    path.write_text("", encoding="utf-8")
    assert load_rules(path) == ()
