"""What a classifier says of a text and which words it said so for."""

import io
import json
import os
import subprocess
import sys
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.null import NullClassifier
from monitor.classifier.two_head import TwoHeadClassifier
from monitor.decode import Undecodable
from monitor.explain import MAX_WORDS, as_json, explain, rendered
from monitor.types import Mention, Passage
from monitor.watchlist import Alias, Entity, WatchList
from tests.fakes import FakeClassifier
from tests.monitor.classifier.tiny import write_base, write_tiny_checkpoint

NOBODY = WatchList()
WATCHED = WatchList([Entity("halden", "Halden Bank", (Alias("Halden"),)), Entity("norvik", "Norvik"), Entity("hdyh", "海登银行")])


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    base = write_base(tmp_path_factory.mktemp("tiny") / "base")
    checkpoint = write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", base)
    return TwoHeadClassifier(load_checkpoint(checkpoint, base), "cpu")


def weights(explanation, question):
    return {word.text: getattr(word, question) for word in explanation.words}


def printed(explanation):
    file = io.StringIO()
    Console(file=file, width=100, highlight=False).print(rendered(explanation))
    return file.getvalue()


def test_the_word_that_decides_carries_the_sentiment():
    found = explain("the market loses ground", [], NOBODY, FakeClassifier())
    assert weights(found, "sentiment") == {"the": 0.0, "market": 0.0, "loses": pytest.approx(-0.7), "ground": 0.0}
    assert (found.prediction.document.sentiment, found.truncated) == ("negative", False)


def test_the_word_that_decides_carries_the_topic():
    found = explain("Halden earnings gains", [], NOBODY, FakeClassifier())
    assert found.prediction.topic == "earnings"
    assert weights(found, "topic") == {"Halden": 0.0, "earnings": 1.0, "gains": 0.0}


def test_two_entities_of_one_headline_have_opposite_words():
    found = explain("Halden Bank loses while Norvik gains", [], WATCHED, FakeClassifier())
    assert [word.text for word in found.words] == ["Halden Bank", "loses", "while", "Norvik", "gains"]
    toward = {word.text: word.toward for word in found.words}
    assert toward["loses"] == {"halden": pytest.approx(-1.4), "norvik": 0.0}
    assert toward["gains"] == {"halden": 0.0, "norvik": pytest.approx(0.7)}
    assert set(toward["Halden Bank"]) == {"norvik"}
    assert set(toward["Norvik"]) == {"halden"}
    assert found.names == {"halden": "Halden Bank", "norvik": "Norvik"}


def test_without_a_word_the_model_answers_as_its_weight_says(tiny):
    watched = WatchList([Entity("halden", "halden"), Entity("bank", "savings bank")])
    text = "halden falls, profit of the savings bank rises\nrumour of loss in a queue"
    found = explain(text, [], watched, tiny)
    whole = found.prediction
    assert whole.document.score != 0
    place = tiny.topics.index(whole.topic)
    strongest = max(found.words, key=lambda word: abs(word.sentiment))
    assert abs(strongest.sentiment) > 0.01
    for word in found.words:
        if word.text == "savings bank":
            continue
        shorter = text[: word.span.start] + text[word.span.end :]
        mentions = [
            Mention(shorter.index(name), shorter.index(name) + len(name), entity)
            for entity, name in (("halden", "halden"), ("bank", "savings bank"))
            if name in shorter
        ]
        (other,) = tiny.classify(tiny.prepare([Passage(shorter, tuple(mentions))]))
        assert whole.document.score - other.document.score == pytest.approx(word.sentiment, abs=1e-5)
        assert whole.topic_probabilities[place] - other.topic_probabilities[place] == pytest.approx(word.topic, abs=1e-5)
        for entity, weight in word.toward.items():
            assert whole.toward[entity].score - other.toward[entity].score == pytest.approx(weight, abs=1e-5)
    assert {word.text: set(word.toward) for word in found.words}["savings bank"] == {"halden"}


def test_chinese_is_weighed_by_characters_and_names(tiny):
    found = explain("传海登银行被罚，股价跌5.5%", [], WATCHED, tiny)
    assert [word.text for word in found.words] == [*"传", "海登银行", *"被罚，股价跌", "5.5%"]
    assert found.names == {"hdyh": "海登银行"}
    assert "hdyh" in found.prediction.toward


def test_names_that_are_asked_about_stand_beside_those_that_are_watched():
    found = explain("Halden loses while AT&amp;T gains", ["AT&T", "Norvik", "Dee", " "], WATCHED, FakeClassifier())
    assert found.names == {"halden": "Halden Bank", "AT&T": "AT&T", "norvik": "Norvik", "Dee": "Dee"}
    told = as_json(found)["entities"]
    assert {entity: (one["sentiment_of"], one["sentiment"]) for entity, one in told.items()} == {
        "halden": ("entity", "negative"),
        "AT&T": ("entity", "positive"),
        "norvik": ("document", "negative"),
        "Dee": ("document", "negative"),
    }
    assert "Toward Dee: not named" in printed(found)


def test_an_answer_for_programs_holds_what_was_promised():
    found = explain("Norvik loses", [], WATCHED, FakeClassifier())
    told = json.loads(json.dumps(as_json(found)))
    assert told["text"] == "Norvik loses"
    assert (told["topic"], told["sentiment"], told["out_of_domain"], told["truncated"]) == ("other", "negative", False, False)
    assert told["words"] == [
        {"start": 0, "end": 6, "text": "Norvik", "topic": 0.0, "sentiment": 0.0, "toward": {}},
        {"start": 7, "end": 12, "text": "loses", "topic": 0.0, "sentiment": -0.7, "toward": {"norvik": -0.7}},
    ]


def test_the_severe_events_of_a_text_are_told_with_what_matched_and_why_others_did_not():
    found = explain("Halden files for bankruptcy. If Norvik collapses, savers queue.", [], WATCHED, FakeClassifier())
    told = as_json(found)["events"]
    assert [(one["entity"], one["category"], one["severity"], one["said"], one["rejected_by"]) for one in told] == [
        ("halden", "insolvency", "critical", "halden files for bankruptcy", None),
        ("norvik", "insolvency", "critical", "norvik collapses", '"if" stands against it'),
    ]
    assert all(one["pattern"].startswith("<X><has>") for one in told)
    assert as_json(found)["events_unmatched"] == ["bank_run"]
    shown = " ".join(printed(found).split())
    assert 'Insolvency or collapse (critical): Halden Bank, as "halden files for bankruptcy"' in shown
    assert 'Norvik, as "norvik collapses"; no event: "if" stands against it' in shown
    assert "Bank run: words of it, but no pattern matches with a name" in shown


def test_a_name_that_is_only_asked_about_has_severe_events_as_well():
    found = explain("Regulators seize Dee", ["Dee"], WATCHED, FakeClassifier())
    assert [(one.entity, one.category, one.rejected_by) for one in found.findings] == [("Dee", "seizure", None)]
    assert "Severe events: none" in printed(explain("Dee gains", ["Dee"], NOBODY, FakeClassifier()))
    assert "Severe events" not in printed(explain("Dee gains", [], NOBODY, FakeClassifier()))


def test_nothing_of_a_text_or_a_name_is_read_as_markup():
    hostile = "[bold]Norvik[/] [link=https://x.example]gains[/link] [/nonsense] \\[red]"
    found = explain(hostile, ["[/b]", "[link=https://x.example]gains"], WATCHED, FakeClassifier())
    shown = printed(found)
    assert "[bold]Norvik[/]" in shown
    assert "[/nonsense] \\[red]" in shown
    assert "Toward [/b]: not named" in shown


@pytest.mark.parametrize(("text", "names"), [("a \x1b[31mred", ()), ("a\x00", ()), ("fine", ("a\nb",)), ("fine", ("\x1b[0m",))])
def test_control_characters_are_refused(text, names):
    with pytest.raises(Undecodable):
        explain(text, names, NOBODY, FakeClassifier())


def test_the_screen_shows_answers_bars_and_the_strongest_words():
    shown = printed(explain("Halden Bank perhaps loses in credit\nNorvik gains", [], WATCHED, FakeClassifier()))
    assert "Topic: credit (uncertain)" in shown
    assert "Toward Norvik: positive" in shown
    assert "speaks for it: credit +1.000" in shown
    assert "brightens: gains +0.700" in shown


def test_a_text_without_words_has_answers_and_no_weights():
    for text in ("", "https://halden.example"):
        found = explain(text, [], WATCHED, NullClassifier())
        assert found.words == ()
        assert "neutral" in printed(found)


def test_of_a_long_text_the_words_of_its_best_parts_are_weighed():
    text = f"A headline\nThe lead. {'It goes on and on. ' * 2_000}Halden Bank loses. {'It goes on and on. ' * 2_000}"
    classifier = FakeClassifier()
    found = explain(text, [], WATCHED, classifier)
    assert len(found.words) == MAX_WORDS
    assert {"headline", "lead", "Halden Bank", "loses"} <= {word.text for word in found.words}
    assert [len(batch) for batch in classifier.batches] == [MAX_WORDS + 1]
    assert "longer than the model reads" in printed(found)
    assert f"Only {MAX_WORDS} words" in printed(found)


texts = st.lists(
    st.sampled_from(["Halden", "Bank", "Norvik", "loses", "gains", ",", " ", "  ", "\n", "$A", "3.5%", "海登银行", "跌"])
).map("".join)


@settings(max_examples=150, deadline=None)
@given(texts)
def test_words_cover_the_text_once_in_order_and_no_name_is_torn(text):
    found = explain(text, [], WATCHED, FakeClassifier())
    read = found.passage.text
    assert all(one.span.end <= other.span.start for one, other in pairwise(found.words))
    assert all(read[word.span.start : word.span.end] == word.text for word in found.words)
    if len(found.words) < MAX_WORDS:
        assert "".join("".join(word.text for word in found.words).split()) == "".join(read.split())
    for mention in found.passage.mentions:
        assert any(word.span.start <= mention.start and mention.end <= word.span.end for word in found.words)


def test_the_command_explains_and_says_what_is_wrong_with_a_text():
    def bellwether(*arguments):
        environment = {**os.environ, "BELLWETHER_MODEL__DISABLED": "true"}
        whole = [sys.executable, "-m", "monitor", "explain", *arguments]
        return subprocess.run(whole, capture_output=True, text=True, check=False, env=environment)

    explained = bellwether("Norvik gains", "--entity", "Norvik", "--entity", "Dee", "--json")
    assert explained.returncode == 0, explained.stderr
    assert set(json.loads(explained.stdout)["entities"]) == {"Norvik", "Dee"}
    shown = bellwether("Norvik [bold]gains[/]")
    assert (shown.returncode, "[bold]gains[/]" in shown.stdout) == (0, True)
    refused = bellwether("a \x1b[31mred")
    assert (refused.returncode, "control character" in refused.stderr) == (2, True)
