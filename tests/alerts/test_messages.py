"""What an incident says, and what of it may go out."""

import json
import unicodedata
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import alerts
from alerts.messages import BODY_BYTES, MOST_TEXTS, Opening, compile_templates, default_summary, webhook_body
from alerts.text import duration_text, plain_text, time_text
from alerts.types import ChangeKind, Comparison, Incident, IncidentChange, ResolveReason, RuleKind, SeriesSelector, Severity
from monitor.errors import ConfigurationError
from monitor.types import ALL_SERIES, Metric, Reading, Series, SeriesKind
from tests.alerts.building import HALDEN, a_count, a_rule, minutes

SCHEMA = json.loads((Path(alerts.__file__).parent / "webhook.schema.json").read_text(encoding="utf-8"))
WINDOW = Reading(HALDEN, minutes(40), minutes(100), a_count(negative=13, neutral=3, positive=4, uncertain=1, copies=30))


def an_opening(**changes):
    return replace(Opening(HALDEN, "Halden Bank", WINDOW, sources=7, at_ms=minutes(100)), **changes)


def render(template, **changes):
    """What one annotation says about the opening of an incident."""
    return compile_templates(a_rule(annotations={"a": template})).render(an_opening(**changes)).annotations.get("a")


# --- the default sentence ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "level", "expected"),
    [
        (Metric.NEGATIVE_SHARE, 0.5, "Halden Bank: 61.9 % of 21 stories negative over 1 h (limit 50 %)"),
        (Metric.UNCERTAIN_SHARE, 0.045, "Halden Bank: 4.8 % of 21 stories uncertain over 1 h (limit 4.5 %)"),
        (Metric.NEGATIVE_STORIES, 10, "Halden Bank: 13 negative stories over 1 h (limit 10)"),
        (Metric.STORIES, 20, "Halden Bank: 21 stories over 1 h (limit 20)"),
        (Metric.MEAN_SCORE, -0.1, "Halden Bank: mean score -0.21 of 21 stories over 1 h (limit -0.10)"),
    ],
)
def test_without_a_template_an_incident_still_says_what_happened(metric, level, expected):
    rule = a_rule(metric=metric, level=level, clear_level=level)
    assert default_summary(rule, "Halden Bank", WINDOW) == expected
    assert compile_templates(rule).render(an_opening()).summary == expected


def test_a_single_story_is_not_many():
    window = replace(WINDOW, count=a_count(negative=1))
    rule = a_rule(metric=Metric.NEGATIVE_STORIES, level=1, window_ms=minutes(90))
    assert default_summary(rule, "Halden Bank", window) == "Halden Bank: 1 negative story over 90 min (limit 1)"


def test_a_window_without_stories_has_a_sentence_too():
    assert default_summary(a_rule(), "Halden Bank", replace(WINDOW, count=a_count())) == (
        "Halden Bank: no stories over 1 h (limit 0.5)"
    )


# --- templates -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ rule }} {{ severity }} {{ series }} {{ kind }} {{ display }}", "tone warning entity:halden-bank entity Halden Bank"),
        ("{{ entity.id }} {{ entity.name }}", "halden-bank Halden Bank"),
        ("{{ metric }} {{ comparison }} {{ level }} {{ clear_level }}", "negative_share >= 0.5 0.25"),
        ("{{ value | percent }} {{ (value * 100) | round(1) }} {{ (value * 100) | round }}", "61.9 % 61.9 62"),
        ("{{ stories }} {{ copies }} {{ documents }}", "21 30 51"),
        ("{{ negative }} {{ neutral }} {{ positive }} {{ uncertain }}", "13 3 4 1"),
        ("{{ negative_share | round(3) }} {{ mean_score | round(3) }}", "0.619 -0.214"),
        ("{{ sources }} {{ window }} {{ opened_at }}", "7 1 h 1970-01-01T01:40:00.000Z"),
        ("{% if sources > 5 %}many{% else %}few{% endif %} {{ 'a' if stories % 2 else 'b' }}", "many a"),
    ],
)
def test_every_documented_variable_can_be_used(template, expected):
    assert render(template) == expected


def test_a_topic_rule_names_its_topic():
    rule = a_rule(series=SeriesSelector(SeriesKind.TOPIC), annotations={"a": "{{ topic }}"}, labels={"b": "{{ topic }}"})
    texts = compile_templates(rule).render(an_opening(series=Series(SeriesKind.TOPIC, "Financials"), display="Financials"))
    assert (texts.annotations, texts.labels) == ({"a": "Financials"}, {"b": "Financials"})


def test_the_summary_is_the_annotation_of_that_name():
    texts = compile_templates(a_rule(annotations={"summary": "{{ negative }} bad"})).render(an_opening())
    assert (texts.summary, texts.annotations) == ("13 bad", {"summary": "13 bad"})


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ nope }}", "'nope' is undefined"),
        ("{{ entity.nope }}", "no attribute 'nope'"),
        ("{{ topic }}", "'topic' is undefined"),
        ("{% if sources > 99 %}{{ nope }}{% endif %}", "'nope' is undefined"),
        ("{{ self }}", "'self' is undefined"),
        ("{{ value", "unexpected end of template"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ value | nope }}", "no filter 'nope'"),
        ("{{ value is nope }}", "nope"),
        ("{{ value | center(1000000000) }}", "no filter 'center'"),
        ("{{ 'a' * 1000000000 }}", "takes numbers only"),
        ("{{ 1000000000 * 'a' }}", "takes numbers only"),
        ("{{ '%1000000000d' % 1 }}", "takes numbers only"),
        ("{{ 9 ** 9 ** 9 }}", "pow is not allowed"),
        ("{{ value | round(1000000000) }}", "0 to 6 digits"),
        ("{% for a in range(1000000) %}{% endfor %}", "for is not allowed"),
        ("{{ entity.id.format(1) }}", "call is not allowed"),
        ("{% set a = 1 %}", "assign is not allowed"),
        ("{% include 'a' %}", "include is not allowed"),
        ("{% macro a() %}{% endmacro %}", "macro is not allowed"),
        ("{{ [1] }}", "list is not allowed"),
        ("{{ entity['__class__'] }}", "unsafe"),
        ("{{ entity.__init__ }}", "unsafe"),
        ("a" * 2_001, "at most 2000 characters"),
    ],
)
def test_a_template_that_is_wrong_or_takes_too_much_is_refused_before_the_start(template, fault):
    with pytest.raises(ConfigurationError, match=r"annotations\.a: ") as caught:
        compile_templates(a_rule(annotations={"a": template}))
    assert fault in caught.value.problems[0]


def test_every_fault_of_a_rule_is_listed():
    rule = a_rule(annotations={"a": "{{ x }}", "b": "fine", "c": "{{"}, labels={"d": "{{ y }}"})
    with pytest.raises(ConfigurationError) as caught:
        compile_templates(rule)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == ["labels.d", "annotations.a", "annotations.c"]


@pytest.mark.parametrize("name", ["value", "stories", "opened_at", "sources"])
def test_a_label_must_not_change_while_the_incident_lasts(name):
    with pytest.raises(ConfigurationError, match=rf"labels\.a: '{name}' is undefined"):
        compile_templates(a_rule(labels={"a": f"{{{{ {name} }}}}"}))


def test_the_number_of_texts_is_bounded():
    many = {f"a{number}": "x" for number in range(MOST_TEXTS + 1)}
    with pytest.raises(ConfigurationError, match="annotations: at most 16, not 17"):
        compile_templates(a_rule(annotations=many))
    compile_templates(a_rule(annotations=dict(list(many.items())[:-1])))


def test_a_text_that_cannot_be_rendered_costs_nothing_but_itself_and_is_named():
    rule = a_rule(annotations={"summary": "{{ 1 / (sources - 7) }}", "fine": "{{ sources }}", "bad": "{{ 1 // (sources - 7) }}"})
    texts = compile_templates(rule).render(an_opening())
    assert texts.summary == "Halden Bank: 61.9 % of 21 stories negative over 1 h (limit 50 %)"
    assert texts.annotations == {
        "fine": "7",
        "rendering_error": (
            "annotations.summary could not be rendered (ZeroDivisionError); "
            "annotations.bad could not be rendered (ZeroDivisionError)"
        ),
    }


def test_a_label_that_cannot_be_rendered_is_left_out_and_named():
    texts = compile_templates(a_rule(labels={"a": "{{ 1 / (display | length - 11) }}", "b": "x"})).render(an_opening())
    assert texts.labels == {"b": "x"}
    assert texts.annotations["rendering_error"] == "labels.a could not be rendered (ZeroDivisionError)"


def test_a_long_text_is_cut_where_a_reader_sees_it():
    assert render("{{ display }}", display="x" * 5_000) == "x" * 999 + "…"


# --- plain text ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\nb\tc\u2028d", "a b c d"),
        ("a\x00\x1b[31mb\x7f\x9b", "a[31mb"),
        ("pay \u202egnp.exe\u202c now", "pay gnp.exe now"),
        ("\u2066a\u2069\u200fb\ufeff\u200b", "ab"),
        ("\ud800a", "a"),
        ("  a ", "a"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("abcdef", "abc…"),
        ("abcd", "abcd"),
    ],
)
def test_text_is_shown_on_one_line_without_what_deceives(text, expected):
    assert plain_text(text, 4 if text.startswith("abcd") else 100) == expected


@settings(max_examples=100)
@given(st.text(alphabet=st.characters(), max_size=60), st.integers(1, 50))
def test_text_from_anywhere_is_bounded_encodable_and_without_controls(text, limit):
    plain = plain_text(text, limit)
    assert len(plain) <= limit
    plain.encode()
    assert not [character for character in plain if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}]
    assert not {unicodedata.bidirectional(character) for character in plain} & {
        "LRE",
        "RLE",
        "LRO",
        "RLO",
        "PDF",
        "LRI",
        "RLI",
        "FSI",
        "PDI",
    }


def test_moments_and_durations_are_written_as_people_and_machines_read_them():
    assert time_text(1_795_583_640_007) == "2026-11-25T05:14:00.007Z"
    assert [duration_text(minutes(number)) for number in (1, 59, 60, 90, 1_440)] == ["1 min", "59 min", "1 h", "90 min", "24 h"]


# --- the body ----------------------------------------------------------------------------------------


def an_incident(**changes):
    incident = Incident(
        incident_id="143186a8c061ff14463a",
        rule="tone",
        series=HALDEN,
        severity=Severity.CRITICAL,
        opened_at_ms=1_795_583_640_000,
        summary="Halden Bank: bad news",
        labels={"team": "risk"},
        annotations={"summary": "Halden Bank: bad news"},
        reading=WINDOW,
        display="Halden Bank",
    )
    return replace(incident, **changes)


def an_opened_change(**changes):
    return IncidentChange(ChangeKind.OPENED, 1, 1_795_583_640_000, an_incident(**changes), WINDOW)


def a_resolved_change(reading=WINDOW):
    incident = an_incident(resolved_at_ms=1_795_587_240_000, resolve_reason=ResolveReason.CLEARED)
    return IncidentChange(ChangeKind.RESOLVED, 2, 1_795_587_240_000, incident, reading)


def test_the_body_of_an_opening():
    assert json.loads(webhook_body(an_opened_change())) == {
        "type": "incident.opened",
        "timestamp": "2026-11-25T05:14:00.000Z",
        "data": {
            "schema_version": 1,
            "generator": "bellwether",
            "incident_id": "143186a8c061ff14463a",
            "sequence": 1,
            "rule": "tone",
            "kind": "threshold",
            "severity": "critical",
            "series": {"kind": "entity", "name": "halden-bank", "display": "Halden Bank"},
            "opened_at": "2026-11-25T05:14:00.000Z",
            "resolved_at": None,
            "resolve_reason": None,
            "summary": "Halden Bank: bad news",
            "labels": {"team": "risk"},
            "annotations": {"summary": "Halden Bank: bad news"},
            "stories": [],
            "reading": {
                "from": "1970-01-01T00:40:00.000Z",
                "until": "1970-01-01T01:40:00.000Z",
                "stories": 21,
                "negative": 13,
                "neutral": 3,
                "positive": 4,
                "uncertain": 1,
                "copies": 30,
                "negative_share": 13 / 21,
                "mean_score": -4.5 / 21,
            },
        },
    }


def test_the_body_of_an_end_says_when_and_why():
    body = json.loads(webhook_body(a_resolved_change()))
    assert body["type"] == "incident.resolved"
    assert body["timestamp"] == body["data"]["resolved_at"] == "2026-11-25T06:14:00.000Z"
    assert (body["data"]["sequence"], body["data"]["resolve_reason"]) == (2, "cleared")


@pytest.mark.parametrize(
    "change",
    [
        an_opened_change(),
        an_opened_change(series=ALL_SERIES, display=""),
        a_resolved_change(),
        a_resolved_change(reading=None),
        a_resolved_change(reading=replace(WINDOW, count=a_count())),
    ],
    ids=["opened", "no display", "resolved", "no reading", "empty window"],
)
def test_every_body_keeps_to_the_published_schema(change):
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(json.loads(webhook_body(change)), SCHEMA)


def test_the_schema_knows_every_field_that_is_sent():
    """What is not described cannot be relied on."""
    body = json.loads(webhook_body(an_opened_change()))
    parts = [(body, SCHEMA), (body["data"], SCHEMA["$defs"]["data"])]
    parts += [(body["data"][name], SCHEMA["$defs"][name]) for name in ("series", "reading")]
    for content, described in parts:
        assert set(content) == set(described["properties"]) == set(described["required"])


def test_the_body_of_an_escalation_carries_the_leading_stories_cut_and_plain():
    stories = [
        {"headline": f"Halden \u202e{number} " + "x" * 3_000, "sources": ["wire", "pa\nper"], "copies": number, "story_id": 7}
        for number in range(7)
    ]
    incident = an_incident(evidence={"stories": stories}, sequence=2, kind=RuleKind.SURGE)
    body = json.loads(webhook_body(IncidentChange(ChangeKind.ESCALATED, 2, 1_795_583_640_000, incident, None)))
    jsonschema.validate(body, SCHEMA)
    assert (body["type"], body["data"]["kind"]) == ("incident.escalated", "surge")
    assert [story["copies"] for story in body["data"]["stories"]] == [0, 1, 2, 3, 4]
    assert body["data"]["stories"][0]["sources"] == ["wire", "pa per"]
    assert body["data"]["stories"][0]["headline"].startswith("Halden 0 xxx")


@pytest.mark.parametrize("change", ["type", "sequence", "resolved_at"])
def test_the_schema_refuses_what_does_not_fit_together(change):
    body = json.loads(webhook_body(an_opened_change()))
    if change == "type":
        body["type"] = "incident.resolved"
    else:
        body["data"][change] = {"sequence": 2, "resolved_at": "2026-11-25T05:14:00.000Z"}[change]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(body, SCHEMA)


def test_a_body_stays_small_and_valid_however_much_there_is_to_say():
    wide = "\U0001f4c9"
    texts = {f"name{number:02}" + "n" * 56: wide * 1_000 for number in range(MOST_TEXTS)}
    body = webhook_body(
        an_opened_change(
            rule="r" * 63,
            series=Series(SeriesKind.ENTITY, wide * 300),
            display=wide * 300,
            summary=wide * 400,
            labels=texts,
            annotations=texts,
        )
    )
    assert len(body) < BODY_BYTES
    content = json.loads(body)
    jsonschema.validate(content, SCHEMA)
    assert len(content["data"]["annotations"]) == len(content["data"]["labels"]) == MOST_TEXTS


def test_a_text_keeps_its_length_where_there_is_room():
    body = json.loads(webhook_body(an_opened_change(annotations={"a": "x" * 1_000})))
    assert len(body["data"]["annotations"]["a"]) == 1_000


def test_control_and_direction_characters_do_not_leave_the_house():
    hostile = "Halden\u202e\x1b[2J\r\nBank"
    body = webhook_body(
        an_opened_change(summary=hostile, display=hostile, labels={"a": hostile}, annotations={"a": hostile}, rule=hostile)
    ).decode()
    assert "\u202e" not in body
    assert "\\u001b" not in body
    assert "\\n" not in body


def test_numbers_that_json_does_not_know_do_not_occur():
    quiet = replace(WINDOW, count=a_count())
    data = json.loads(webhook_body(replace(an_opened_change(), reading=quiet)))["data"]["reading"]
    assert (data["negative_share"], data["mean_score"]) == (None, None)


def test_comparisons_are_written_as_their_signs():
    assert render("{{ comparison }}") == str(Comparison.AT_LEAST)
