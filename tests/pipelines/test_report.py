"""The page of an evaluation: what it says is what the JSON says, and nothing in it is fetched or run."""

import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from pipelines.corpus import Corpus, Example, Toward
from pipelines.evaluate import evaluate
from pipelines.report import render
from tests.fakes import FakeClassifier

HOSTILE = "<script>alert(1)</script>\"'&"
TOPICS = ("earnings", HOSTILE, "other")
HELD = (
    Example("halden gains on earnings", "news", "earnings", "positive", (Toward(0, 6, "positive"),)),
    Example("halden loses, brandt gains", "news", HOSTILE, "negative", (Toward(0, 6, "negative"), Toward(14, 20, "positive"))),
    Example("nothing of note", "news", "other", "neutral"),
)
REFERENCES = {"src", "href", "xlink:href", "action", "data", "srcset", "poster", "background"}


class Page(HTMLParser):
    """Collects the cells of every table by its rows, the tags, and the attributes that could fetch or run something."""

    def __init__(self, content):
        super().__init__()
        self.rows, self.tags, self.suspicious, self.title, self._open = [], [], [], "", []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._open.append(tag)
        self.suspicious += [(tag, name) for name, _ in attributes if name in REFERENCES or name.startswith("on")]
        if tag == "tr":
            self.rows.append([])
        if tag in {"th", "td"}:
            self.rows[-1].append("")

    def handle_endtag(self, tag):
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, text):
        if "title" in self._open:
            return
        if {"th", "td"} & set(self._open):
            self.rows[-1][-1] += text.strip()


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(FakeClassifier(topics=TOPICS), Corpus((), {"news": HELD}, TOPICS, (), 1))


@pytest.fixture(scope="module")
def page(evaluation):
    return Page(render(evaluation))


def test_the_figures_on_the_page_are_those_of_the_evaluation(evaluation, page):
    shown = {row[0]: row[1:] for row in page.rows}

    for name, part in evaluation.parts.items():
        assert shown[name] == [
            f"{part.macro_f1:.3f}",
            f"{part.macro_f1_low:.3f} – {part.macro_f1_high:.3f}",
            f"{part.accuracy:.3f}",
            f"{part.calibration_error:.3f}",
            f"{100 * part.uncertain_share:.1f} %",
            "–" if part.certain_accuracy is None else f"{100 * part.certain_accuracy:.1f} %",
            str(part.answers),
        ]


def test_every_confusion_is_on_the_page(evaluation, page):
    for part in evaluation.parts.values():
        for label, row in zip(part.labels, part.confusion, strict=True):
            assert [label, *map(str, row)] in page.rows


def test_every_slice_change_and_denial_is_on_the_page(evaluation, page):
    for kinds in evaluation.slices.values():
        for parts in kinds.values():
            for name, one in parts.items():
                cells = [name, f"{one.macro_f1:.3f}", "", f"{one.accuracy:.3f}", f"{one.calibration_error:.3f}", str(one.answers)]
                assert any(row[1:] == cells for row in page.rows)
    for questions in evaluation.changes.values():
        for question, one in questions.items():
            assert any(row[1:3] == [question, f"{100 * one.flip_rate:.1f} %"] for row in page.rows)
    assert {"english", "chinese"} <= {row[0] for row in page.rows}


def test_a_hostile_label_is_text(page):
    assert "script" not in page.tags
    assert any(row[0] == HOSTILE for row in page.rows)


def test_a_hostile_name_of_a_classifier_or_part_is_text(evaluation):
    hostile = Page(render(replace(evaluation, classifier=HOSTILE, parts={HOSTILE: evaluation.parts["news/topic"]})))

    assert "script" not in hostile.tags
    assert not hostile.suspicious


def test_nothing_is_fetched_and_nothing_runs(evaluation, page):
    content = render(evaluation)

    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "form"} & set(page.tags)
    assert not page.suspicious
    assert not re.search(r"https?:|url\(|@import", content)


def test_what_is_drawn_lies_within_its_frame(evaluation):
    """Every point of a reliability curve, and every whisker."""
    content = render(evaluation)

    for points in re.findall(r'points="([^"]*)"', content):
        for x, y in (map(float, point.split(",")) for point in points.split()):
            assert 0 <= x <= 290
            assert 0 <= y <= 284
    whiskers = re.findall(r'class="whisker" x1="([\d.-]+)" x2="([\d.-]+)"', content)
    assert len(whiskers) == len(evaluation.parts)
    for low, high in whiskers:
        assert 168 <= float(low) <= float(high) <= 468


def test_a_comparison_says_what_became_worse(evaluation):
    part = evaluation.parts["news/topic"]
    before = replace(evaluation, parts={"news/topic": replace(part, macro_f1=round(part.macro_f1 + 0.1, 4), calibration_error=1.0)})
    content = render(evaluation, before)

    assert '<td class="worse">-0.1000</td>' in content
    assert re.search(r"calibration error</td><td>1.000</td>.*?class=\"better\"", content)
    assert "Compared with" not in render(evaluation)
