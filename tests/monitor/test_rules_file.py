"""A rules file: how it is written, and that every mistake in it is named where it was made."""

from dataclasses import asdict
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import monitor
from alerts.judge import Judge
from alerts.types import Comparison, SeriesSelector, Severity
from monitor.errors import ConfigurationError
from monitor.rules_file import RuleSection, load_rules
from monitor.types import Metric, SeriesKind

RULE = {
    "name": "tone",
    "metric": "negative_share",
    "series": "entity",
    "window": "1h",
    "comparison": ">=",
    "level": 0.5,
}


@pytest.fixture
def write(tmp_path):
    """Writes a rules file from text, or from its content."""

    def write(content) -> Path:
        path = tmp_path / "rules.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
        return path

    return write


def a_file(*rules):
    return {"rules": [RULE | rule for rule in rules]}


def problems(path, **known):
    with pytest.raises(ConfigurationError) as caught:
        load_rules(path, **known)
    return caught.value.problems


# --- how it is written -------------------------------------------------------------------------------


def test_what_is_left_out_has_a_default(write):
    (rule,) = load_rules(write(a_file({})))
    assert asdict(rule) == {
        "name": "tone",
        "metric": Metric.NEGATIVE_SHARE,
        "series": {"kind": SeriesKind.ENTITY, "name": None},
        "window_ms": 3_600_000,
        "comparison": Comparison.AT_LEAST,
        "level": 0.5,
        "clear_level": 0.5,
        "minimum_stories": 1,
        "minimum_sources": 1,
        "for_ms": 0,
        "keep_firing_ms": 0,
        "severity": Severity.WARNING,
        "labels": {},
        "annotations": {},
        "receivers": None,
    }


def test_everything_that_is_written_arrives(write):
    text = """
        rules:
          - name: Halden.tone-2
            metric: mean score
            series: "entity: halden-bank"
            window: 1h 30m
            comparison: at most
            level: -0.5
            clear_level: -0.25
            minimum_stories: 5
            minimum_sources: 0
            for: 2m
            keep_firing: 10m
            severity: Critical
            labels: {team: risk}
            annotations: {summary: "{{ display }}"}
            receivers: [desk, siem]
    """
    (rule,) = load_rules(write(text), entities={"halden-bank"}, topics=set(), receivers={"desk", "siem"})
    assert asdict(rule) == {
        "name": "Halden.tone-2",
        "metric": Metric.MEAN_SCORE,
        "series": {"kind": SeriesKind.ENTITY, "name": "halden-bank"},
        "window_ms": 5_400_000,
        "comparison": Comparison.AT_MOST,
        "level": -0.5,
        "clear_level": -0.25,
        "minimum_stories": 5,
        "minimum_sources": 0,
        "for_ms": 120_000,
        "keep_firing_ms": 600_000,
        "severity": Severity.CRITICAL,
        "labels": {"team": "risk"},
        "annotations": {"summary": "{{ display }}"},
        "receivers": ("desk", "siem"),
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", SeriesSelector(SeriesKind.ALL)),
        ("topic", SeriesSelector(SeriesKind.TOPIC)),
        ("topic:M&A | Investments", SeriesSelector(SeriesKind.TOPIC, "M&A | Investments")),
        ("topic:a:b", SeriesSelector(SeriesKind.TOPIC, "a:b")),
        ("entity", SeriesSelector(SeriesKind.ENTITY)),
        ("entity:halden-bank", SeriesSelector(SeriesKind.ENTITY, "halden-bank")),
    ],
)
def test_series_are_written_in_one_word(write, text, expected):
    assert load_rules(write(a_file({"series": text})))[0].series == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        *((str(comparison), comparison) for comparison in Comparison),
        ("above", Comparison.ABOVE),
        ("at least", Comparison.AT_LEAST),
        ("at_least", Comparison.AT_LEAST),
        ("Below", Comparison.BELOW),
        ("at most", Comparison.AT_MOST),
    ],
)
def test_comparisons_are_written_as_signs_or_in_words(write, text, expected):
    assert load_rules(write(a_file({"comparison": text})))[0].comparison is expected


@pytest.mark.parametrize("content", ["", "rules:\n", "rules: []\n", "# nothing yet\n"])
def test_an_empty_file_has_no_rules(write, content):
    assert load_rules(write(content)) == ()


def test_rules_keep_their_order(write):
    rules = load_rules(write(a_file(*({"name": name} for name in "cab"))))
    assert [rule.name for rule in rules] == ["c", "a", "b"]


def test_the_rules_of_the_sample_day_can_be_loaded_and_judged():
    rules = load_rules(Path(monitor.__file__).parent / "demo" / "rules.yaml")
    assert rules
    Judge(rules, {})


@pytest.mark.parametrize("known", [{}, {"entities": None, "topics": None, "receivers": None}])
def test_names_are_not_checked_against_what_is_not_known(write, known):
    load_rules(write(a_file({"series": "entity:anyone", "receivers": ["anybody"]})), **known)


# --- mistakes ----------------------------------------------------------------------------------------

MISTAKES = {
    "name-missing": ({"name": None}, "name: Input should be a valid string"),
    "name-with-space": ({"name": "a b"}, "name: String should match pattern"),
    "name-too-long": ({"name": "a" * 64}, "name: String should match pattern"),
    "metric-misspelt": ({"metric": "negative_shar"}, "metric: Input should be 'negative_share'"),
    "metric-is-a-number": ({"metric": 1}, "metric: Input should be 'negative_share'"),
    "series-in-the-plural": ({"series": "entities"}, 'series: must be "all", "topic"'),
    "series-without-name": ({"series": "entity:"}, 'series: must be "all", "topic"'),
    "series-all-with-name": ({"series": "all:x"}, 'series: must be "all", "topic"'),
    "series-is-a-list": ({"series": ["all"]}, 'series: must be "all", "topic"'),
    "window-without-unit": ({"window": 60}, "window: a duration needs a unit"),
    "window-with-seconds": ({"window": "90s"}, "window: must be whole minutes"),
    "window-too-short": ({"window": "0m"}, "window: must be from 1m to 24h"),
    "window-too-long": ({"window": "1441m"}, "window: must be from 1m to 24h"),
    "comparison-unknown": ({"comparison": "=="}, "comparison: Input should be '>'"),
    "comparison-is-a-list": ({"comparison": [">"]}, "comparison: Input should be '>'"),
    "level-is-text": ({"level": "0.5"}, "level: Input should be a valid number"),
    "level-is-a-truth": ({"level": True}, "level: Input should be a valid number"),
    "level-is-no-number": ({"level": float("nan")}, "level: Input should be a finite number"),
    "level-is-endless": ({"metric": "stories", "level": float("inf")}, "level: Input should be a finite number"),
    "share-in-percent": ({"level": 50}, "level: 50 is no negative_share, which is from 0 to 1"),
    "share-below-nothing": ({"level": -0.1}, "level: -0.1 is no negative_share, which is from 0 to 1"),
    "mean-out-of-range": ({"metric": "mean_score", "level": 1.5}, "level: 1.5 is no mean_score, which is from -1 to 1"),
    "stories-below-nothing": ({"metric": "stories", "level": -1}, "level: -1 is no stories, which is at least 0"),
    "clear-level-out-of-range": ({"clear_level": -0.1}, "clear_level: -0.1 is no negative_share"),
    "clear-level-above-a-rising-level": ({"clear_level": 0.6}, "clear_level: must be at most the level (0.5)"),
    "clear-level-below-a-falling-level": (
        {"metric": "mean_score", "comparison": "<", "level": -0.5, "clear_level": -0.6},
        "clear_level: must be at least the level (-0.5)",
    ),
    "share-above-one": ({"comparison": ">", "level": 1}, "level: no negative_share is ever > 1"),
    "fewer-stories-than-the-minimum": (
        {"metric": "stories", "comparison": "<", "level": 1},
        "level: no stories is ever < 1 with minimum_stories 1",
    ),
    "minimum-below-nothing": ({"minimum_stories": -1}, "minimum_stories: Input should be greater than or equal to 0"),
    "minimum-is-text": ({"minimum_sources": "2"}, "minimum_sources: Input should be a valid integer"),
    "minimum-is-a-truth": ({"minimum_stories": True}, "minimum_stories: Input should be a valid integer"),
    "for-without-unit": ({"for": 2}, "for: a duration needs a unit"),
    "for-with-seconds": ({"for": "30s"}, "for: must be whole minutes"),
    "for-too-long": ({"for": "8d"}, "for: must be at most 7d"),
    "keep-firing-with-seconds": ({"keep_firing": "61s"}, "keep_firing: must be whole minutes"),
    "severity-unknown": ({"severity": "loud"}, "severity: Input should be 'info', 'warning' or 'critical'"),
    "key-unknown": ({"windw": "1h"}, "windw: unknown key"),
    "key-in-python": ({"for_": "2m"}, "for_: unknown key"),
    "entity-unknown": ({"series": "entity:halden-bnk"}, "series: there is no entity 'halden-bnk'; did you mean 'halden-bank'?"),
    "topic-unknown": ({"series": "topic:Sports"}, "series: there is no topic 'Sports'"),
    "receiver-unknown": ({"receivers": ["desk", "dsk"]}, "receivers.1: there is no receiver 'dsk'; did you mean 'desk'?"),
    "label-name-with-dash": ({"labels": {"a-b": "x"}}, "labels.a-b.[key]: String should match pattern"),
    "label-is-a-number": ({"labels": {"a": 1}}, "labels.a: Input should be a valid string"),
    "label-that-changes": ({"labels": {"a": "{{ value }}"}}, "labels.a: 'value' is undefined"),
    "annotation-with-unknown-name": ({"annotations": {"a": "{{ nope }}"}}, "annotations.a: 'nope' is undefined"),
    "annotation-not-closed": ({"annotations": {"a": "{{ value"}}, "annotations.a: unexpected end of template"),
    "annotation-that-is-ours": ({"annotations": {"rendering_error": "x"}}, "annotations.rendering_error: this name is ours"),
    "annotation-of-another-kind": (
        {"series": "all", "annotations": {"a": "{{ entity.name }}"}},
        "annotations.a: 'entity' is undefined",
    ),
}


@pytest.mark.parametrize(("changes", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_named_where_it_was_made(write, changes, expected):
    path = write({"rules": [RULE, RULE | {"name": "other"} | changes]})
    found = problems(path, entities={"halden-bank"}, topics={"Financials"}, receivers={"desk"})
    assert len(found) == 1
    assert found[0].startswith(f"rules.1.{expected}")


@pytest.mark.parametrize("key", ["name", "metric", "series", "window", "comparison", "level"])
def test_what_a_rule_cannot_do_without_is_asked_for(write, key):
    path = write({"rules": [{name: value for name, value in RULE.items() if name != key}]})
    assert problems(path) == [f"rules.0.{key}: Field required"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("- name: a", '(whole file): must be a mapping with the key "rules"'),
        ("hello", '(whole file): must be a mapping with the key "rules"'),
        ("rules: {a: 1}", "rules: must be a list"),
        ("rule: []", "rule: unknown key"),
        ("rules: [a]", "rules.0: must be a mapping with name"),
        ("rules: [[]]", "rules.0: must be a mapping with name"),
        ("rules: [", "is not YAML"),
    ],
)
def test_a_file_of_another_shape_is_refused_with_what_it_should_be(write, content, expected):
    assert problems(write(content))[0].startswith(expected)


def test_a_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"rules\.yaml cannot be used:\s+cannot be read: No such file"):
        load_rules(tmp_path / "rules.yaml")


def test_names_are_given_once(write):
    assert problems(write(a_file({}, {"name": "other"}, {}, {}))) == [
        "rules.2.name: 'tone' is already the name of rules.0",
        "rules.3.name: 'tone' is already the name of rules.0",
    ]


def test_every_mistake_of_every_rule_is_listed_at_once(write):
    path = write(a_file({"window": "1s", "level": "x"}, {"name": "b", "level": 7, "annotations": {"a": "{{ x }}"}}, {"name": "b"}))
    assert [problem.partition(": ")[0] for problem in problems(path)] == [
        "rules.0.window",
        "rules.0.level",
        "rules.1.level",
        "rules.1.annotations.a",
        "rules.2.name",
    ]


@pytest.mark.parametrize(
    "changes",
    [
        {"window": "1m"},
        {"window": "24h"},
        {"level": 0},
        {"level": 1},
        {"level": 0.5, "clear_level": 0.5},
        {"metric": "mean_score", "comparison": "<=", "level": -1},
        {"metric": "stories", "comparison": "<=", "level": 1},
        {"metric": "stories", "comparison": "<", "level": 2, "minimum_sources": 9},
        {"metric": "stories", "comparison": "<", "level": 1, "minimum_stories": 0, "minimum_sources": 0},
        {"for": "7d"},
        {"receivers": []},
        {"name": "a" * 63},
    ],
)
def test_what_lies_just_within_the_bounds_is_taken(write, changes):
    assert len(load_rules(write(a_file(changes)))) == 1


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.sampled_from(["1h", "entity:x", ">="]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=100, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from([*RULE, "for", "labels", "annotations", "receivers", "clear_level"]) | st.text(max_size=4), anything
    )
)
def test_whatever_stands_in_a_file_it_is_rules_or_a_configuration_error(tmp_path_factory, changes):
    path = tmp_path_factory.mktemp("rules") / "rules.yaml"
    path.write_text(yaml.safe_dump({"rules": [RULE | changes]}), encoding="utf-8")
    try:
        (rule,) = load_rules(path)
    except ConfigurationError:
        return
    Judge([rule], {})


def test_every_key_of_a_rule_says_what_it_is():
    assert not [name for name, key in RuleSection.model_fields.items() if not key.description]
