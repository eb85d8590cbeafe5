"""What a classifier is worth, measured through its contract: against figures worked out by hand and by an independent library."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, precision_recall_fscore_support
from typer.testing import CliRunner

from monitor.classifier.checkpoint import load_checkpoint
from monitor.classifier.null import NullClassifier
from monitor.errors import PipelineError
from pipelines.cli import app
from pipelines.corpus import Corpus, Example, Toward, save_corpus
from pipelines.evaluate import (
    Answers,
    answers_to,
    ask,
    confusion_of,
    differences,
    evaluate,
    figures,
    interval,
    load_evaluation,
    losses,
    macro_f1,
    misses,
    parse_floor,
    save_evaluation,
    slices,
)
from tests.fakes import FakeClassifier
from tests.monitor.classifier.tiny import TOPICS, write_base, write_tiny_checkpoint

NEWS = (
    Example("halden gains on earnings", "news", "earnings", "positive", (Toward(0, 6, "positive"),)),
    Example("halden loses as credit dries up", "news", "credit", "negative", (Toward(0, 6, "negative"),)),
    Example("halden loses, brandt gains", "news", None, None, (Toward(0, 6, "negative"), Toward(14, 20, "positive"))),
    Example("halden gains, perhaps", "news", "other", "negative"),
)
PRESS = (Example("nothing of note", "press", "other", "neutral"), Example("credit gains", "press", "credit", "negative"))
CORPUS = Corpus((), {"news": NEWS, "press": PRESS}, ("earnings", "credit", "other"), (), 1)


@pytest.fixture(scope="module")
def evaluation():
    return evaluate(FakeClassifier(), CORPUS)


@st.composite
def judged(draw):
    """Answers to a question with three labels about some texts, each with one answer or more."""
    rows = draw(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 5)), min_size=1, max_size=40))
    truth, given_, text = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    probabilities = np.full((len(rows), 3), 0.2)
    probabilities[np.arange(len(rows)), given_] = 0.6
    return Answers(("a", "b", "c"), truth, given_, probabilities, np.zeros(len(rows), dtype=np.bool_), text)


@settings(max_examples=30, deadline=None)
@given(judged())
def test_scores_are_those_of_an_independent_library(answers):
    found = figures(answers, seed=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        answers.truth, answers.given, labels=[0, 1, 2], zero_division=0.0
    )

    assert found.macro_f1 == pytest.approx(f1_score(answers.truth, answers.given, average="macro"), abs=1e-4)
    assert found.accuracy == pytest.approx((answers.truth == answers.given).mean(), abs=1e-4)
    for place, one in enumerate(found.per_label.values()):
        assert (one.precision, one.recall, one.f1) == pytest.approx((precision[place], recall[place], f1[place]), abs=1e-4)
        assert one.support == support[place]
    assert sum(map(sum, found.confusion)) == sum(bin_.answers for bin_ in found.reliability) == len(answers.truth)


@settings(max_examples=20, deadline=None)
@given(judged(), st.integers(0, 5))
def test_the_interval_is_drawn_by_its_seed_and_lies_where_scores_can_lie(answers, seed):
    low, high = interval(answers, seed)

    assert (low, high) == interval(answers, seed)
    assert 0 <= low <= high <= 1 + 1e-9


def test_the_interval_of_one_text_is_its_score():
    """Whole texts are drawn: of one text, however many answers it has, every sample is the same."""
    same = Answers(
        ("a", "b"), np.array([0, 1, 1]), np.array([0, 1, 0]), np.full((3, 2), 0.5), np.zeros(3, dtype=np.bool_), np.array([4, 4, 4])
    )

    assert interval(same, 1) == pytest.approx((macro_f1(confusion_of(same)),) * 2)


def test_the_interval_holds_the_score_and_narrows_with_more_texts():
    def of(copies):
        truth, given_ = np.tile([0, 0, 1, 1, 2], copies), np.tile([0, 1, 1, 1, 2], copies)
        number = len(truth)
        return Answers(
            ("a", "b", "c"), truth, given_, np.eye(3)[given_], np.zeros(number, dtype=np.bool_), np.arange(number, dtype=np.int64)
        )

    (low, high), (closer, nearer) = interval(of(4), 1), interval(of(100), 1)
    assert low < closer < macro_f1(confusion_of(of(4))) < nearer < high


def test_each_question_is_asked_where_its_truth_is_known(evaluation):
    assert {name: part.answers for name, part in evaluation.parts.items()} == {
        "news/topic": 3,
        "news/sentiment": 3,
        "news/toward": 4,
        "press/topic": 2,
        "press/sentiment": 2,
    }


def test_answers_are_judged_as_worked_out_by_hand(evaluation):
    whole, toward = evaluation.parts["news/sentiment"], evaluation.parts["news/toward"]

    assert whole.accuracy == pytest.approx(2 / 3, abs=1e-4)
    assert whole.confusion == ((1, 1, 0), (0, 0, 0), (0, 0, 1))
    assert whole.uncertain_share == pytest.approx(1 / 3, abs=1e-4)
    assert whole.certain_accuracy == 1.0
    # "loses," is no word that the fake knows, so it hears of Halden what stands behind Brandt.
    assert toward.confusion == ((1, 0, 1), (0, 0, 0), (0, 0, 2))


def test_a_text_of_opposite_fortunes_is_right_only_if_all_of_it_is(evaluation):
    assert evaluation.conflicts.texts == 1
    assert evaluation.conflicts.all_right == 0.0


def test_slices_part_all_answers_of_a_question(evaluation):
    for question, kinds in evaluation.slices.items():
        total = sum(part.answers for name, part in evaluation.parts.items() if name.endswith(question))
        for parts in kinds.values():
            assert len(parts) > 1
            assert sum(one.answers for one in parts.values()) == total
    assert evaluation.slices["toward"]["fortunes"].keys() == {"alike", "opposite"}
    assert evaluation.slices["sentiment"]["set"]["press"].answers == 2


def test_texts_that_are_cut_are_a_slice_of_their_own():
    reads = ask(FakeClassifier(max_tokens=14), [*NEWS, *PRESS])

    assert "longer than is read" in slices(reads, CORPUS.topics)["sentiment"]["length"]


def test_changes_that_a_classifier_does_not_hear_flip_nothing(evaluation):
    assert evaluation.changes["upper case"]["sentiment"].flip_rate == 0.0
    assert evaluation.changes["other names"]["toward"].flip_rate == 0.0
    # "gains," is no word that the fake knows; "gains" is.
    assert evaluation.changes["no punctuation"]["sentiment"].answers == 1
    assert evaluation.changes["no punctuation"]["sentiment"].flip_rate == 1.0


def test_a_classifier_that_hears_no_denial_is_found_out():
    class Deaf(FakeClassifier):
        def _predict(self, text, targets):
            return super()._predict(text.replace("miss", "loses ").replace("beat", "gains "), targets)

    found = evaluate(Deaf(), CORPUS).negation["english"]
    assert 0 < found.plain_right < 1
    assert found.denied_right == 0.0


def test_any_classifier_of_the_contract_can_be_measured():
    found = evaluate(NullClassifier(CORPUS.topics), CORPUS)

    assert found.parts["press/sentiment"].accuracy == 0.5
    assert found.out_of_domain.auroc == 0.5
    assert found.precision == ""


def test_a_topic_that_the_classifier_does_not_know_is_refused():
    with pytest.raises(PipelineError, match="does not know the topic credit, other"):
        evaluate(NullClassifier(("earnings",)), CORPUS)


def test_a_part_that_is_not_there_or_empty_is_refused():
    with pytest.raises(PipelineError, match="no part tweets; it has news, press"):
        evaluate(FakeClassifier(), CORPUS, parts=["tweets"])
    with pytest.raises(PipelineError, match="nothing is held out in press"):
        evaluate(FakeClassifier(), replace(CORPUS, validation={"press": ()}))


def test_an_evaluation_is_read_as_it_was_written(evaluation, tmp_path):
    save_evaluation(evaluation, tmp_path / "deep" / "evaluation.json")

    assert load_evaluation(tmp_path / "deep" / "evaluation.json") == evaluation


def test_what_is_no_evaluation_is_refused(evaluation, tmp_path):
    path = tmp_path / "evaluation.json"
    path.write_text("{}")
    with pytest.raises(PipelineError, match="is no evaluation"):
        load_evaluation(path)
    save_evaluation(replace(evaluation, format_version=99), path)
    with pytest.raises(PipelineError, match="format 99, not 1"):
        load_evaluation(path)


def test_a_missed_floor_says_by_how_much(evaluation):
    reached = evaluation.parts["news/toward"].macro_f1

    assert misses(evaluation, {"news/toward": reached}) == []
    (said,) = misses(evaluation, {"news/toward": reached + 0.05})
    assert said.startswith(f"news/toward: macro-F1 is {reached:.4f}, 0.0500 below")
    with pytest.raises(PipelineError, match="news/mood was not measured"):
        misses(evaluation, {"news/mood": 0.1})


@pytest.mark.parametrize("wanted", ["news/topic", "news/topic=much", "=0.5", "news/topic=1.5", "news/topic=-1", "news/topic=nan"])
def test_a_floor_that_says_nothing_is_refused(wanted):
    with pytest.raises(PipelineError, match="is no floor"):
        parse_floor(wanted)


def test_a_floor_is_read():
    assert parse_floor("news/topic=0.85") == ("news/topic", 0.85)


def test_a_loss_is_told_when_it_is_more_than_allowed(evaluation):
    better = replace(evaluation.parts["news/topic"], macro_f1=evaluation.parts["news/topic"].macro_f1 + 0.02)
    before = replace(evaluation, parts={**evaluation.parts, "news/topic": better})

    assert losses(before, evaluation, 0.02) == []
    (said,) = losses(before, evaluation, 0.01)
    assert said.startswith("news/topic: macro-F1 fell by 0.0200")
    (change,) = [one.change for one in differences(before, evaluation) if (one.name, one.figure) == ("news/topic", "macro_f1")]
    assert change == -0.02


def test_a_part_that_is_gone_is_a_loss_and_another_corpus_no_comparison(evaluation):
    fewer = replace(evaluation, parts={"news/topic": evaluation.parts["news/topic"]})

    assert "press/topic was not measured this time" in losses(evaluation, fewer, 1.0)
    with pytest.raises(PipelineError, match="another corpus"):
        losses(replace(evaluation, corpus="0" * 64), evaluation, 1.0)


# --- on a checkpoint, from the command line ------------------------------------------------------


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, base):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", base)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """On the topics of the tiny checkpoint."""
    folder = tmp_path_factory.mktemp("corpus")
    held = tuple(replace(one, topic=None if one.topic is None else TOPICS[len(one.text) % 3]) for one in (*NEWS, *PRESS))
    save_corpus(Corpus(NEWS, {"news": held}, TOPICS, (), 1), folder)
    return folder


def test_the_command_writes_a_report_and_keeps_the_gate(checkpoint, base, corpus, tmp_path):
    common = ["evaluate", "--checkpoint", str(checkpoint), "--base", str(base), "--corpus", str(corpus)]
    first = CliRunner().invoke(app, [*common, "--output", str(tmp_path / "a")], catch_exceptions=False)
    written = json.loads((tmp_path / "a" / "evaluation.json").read_text())
    held = written["parts"]["news/toward"]["macro_f1"]

    assert first.exit_code == 0
    assert "news/toward" in first.output
    assert written["bytes"] == sum((checkpoint / name).stat().st_size for name in load_checkpoint(checkpoint, base).manifest.files)
    assert (tmp_path / "a" / "evaluation.html").read_text().startswith("<!doctype html>")

    again = [*common, "--output", str(tmp_path / "b"), "--compare", str(tmp_path / "a" / "evaluation.json"), "--max-loss", "0"]
    assert CliRunner().invoke(app, [*again, "--fail-under", f"news/toward={held}"], catch_exceptions=False).exit_code == 0
    with pytest.raises(PipelineError, match=r"news/toward: macro-F1 is .* below 1"):
        CliRunner().invoke(app, [*again, "--fail-under", "news/toward=1"], catch_exceptions=False)


def of_table(checkpoint, base, folder, columns):
    """The command that measures on own.csv of a folder."""
    options = {"--checkpoint": checkpoint, "--base": base, "--file": folder / "own.csv", "--columns": columns, "--output": folder}
    return ["evaluate", *(str(part) for option in options.items() for part in option)]


def test_a_labelled_table_of_ones_own_is_measured(checkpoint, base, tmp_path):
    (tmp_path / "own.csv").write_text("headline,mood,who\nHalden falls,negative,Halden\nprofit rises,positive,\n")
    done = CliRunner().invoke(
        app,
        of_table(checkpoint, base, tmp_path, "text=headline,sentiment=mood,entity=who"),
        catch_exceptions=False,
    )

    assert done.exit_code == 0
    parts = load_evaluation(tmp_path / "evaluation.json").parts
    assert {name: part.answers for name, part in parts.items()}["file/toward"] == 1


def test_columns_that_are_none_are_refused(checkpoint, base, tmp_path):
    (tmp_path / "own.csv").write_text("text\nHalden falls\n")
    for columns, said in (("mood=text", "mood=text is not one of"), ("text=text", "neither topic nor sentiment")):
        with pytest.raises(PipelineError, match=said):
            CliRunner().invoke(
                app,
                of_table(checkpoint, base, tmp_path, columns),
                catch_exceptions=False,
            )


def test_an_answer_toward_an_entity_that_was_cut_off_is_that_of_the_text():
    reads = ask(FakeClassifier(max_tokens=12), [Example("gains gains halden", "x", toward=(Toward(12, 18, "positive"),))])

    assert answers_to("toward", reads, ("a", "b")).given.tolist() == [2]
