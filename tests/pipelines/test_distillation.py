"""Teachers: what they think, that they are asked once, and that a student comes nearer to them, labels or not."""

import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from monitor.classifier.answers import probabilities
from monitor.classifier.packing import pack
from monitor.classifier.tokens import load_tokenizer
from monitor.errors import PipelineError
from pipelines.augmentation import augment
from pipelines.corpus import Example, Toward
from pipelines.distillation import Judgement, Teaching, ask, ensemble, load_teachers, mean
from pipelines.learner import build_model
from pipelines.recipe import Recipe
from pipelines.training import Answers, answers, batches, encode
from tests.monitor.classifier.tiny import NAME, TOPICS, write_base, write_sequence_classifier, write_tiny_checkpoint
from tests.pipelines.invented import examples

# The corpus has the topics of the tiny checkpoint in another order.
ORDER = ("weather", "earnings", "credit")
TEXTS = [replace(example, topic=None if example.topic is None else "weather") for example in examples(18, seed=1)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_base(tmp_path_factory.mktemp("tiny") / "base")


@pytest.fixture(scope="module")
def checkpoint(base, tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny") / "checkpoint", base)


def recipe_of(*teachers, **changes):
    return Recipe(teachers=tuple(map(str, teachers)), rank=2, dropout=0.0, **changes)


class Counted:
    """A teacher that thinks of a text's length, and tells what it was asked."""

    version = "counted"

    def __init__(self):
        self.asked = []

    def judge(self, examples):
        self.asked += [example.text for example in examples]
        return [Judgement((0.2, 0.3, 0.5), None, dict.fromkeys(range(len(one.toward)), (1.0, 0.0, 0.0))) for one in examples]


# --- what a teacher thinks -----------------------------------------------------------------------


def test_a_checkpoint_thinks_what_it_answers_in_the_order_of_our_topics(base, checkpoint):
    recipe = recipe_of(checkpoint, teacher_temperature=2.0)
    (teacher,) = load_teachers(recipe, ORDER, {NAME: base}, "cpu")
    thought = teacher.judge(TEXTS)
    labelled = [
        Example(one.text, one.part, "weather", "neutral", tuple(replace(place, sentiment="neutral") for place in one.toward))
        for one in TEXTS
    ]
    asked = answers(teacher.checkpoint.model, encode(labelled, load_tokenizer(base), TOPICS, 24))
    topic = probabilities(asked["topic"].logits, 2.0)[:, [TOPICS.index(name) for name in ORDER]]
    np.testing.assert_allclose([one.topic for one in thought], topic, atol=1e-5)
    np.testing.assert_allclose([one.sentiment for one in thought], probabilities(asked["sentiment"].logits, 2.0), atol=1e-5)
    toward = [one.toward[which] for one, text in zip(thought, TEXTS, strict=True) for which in range(len(text.toward))]
    np.testing.assert_allclose(toward, probabilities(asked["toward"].logits, 2.0), atol=1e-5)


def test_what_decides_a_teachers_answers_is_in_its_version(base, checkpoint):
    versions = {
        load_teachers(recipe_of(checkpoint, teacher_temperature=temperature), topics, {NAME: base}, "cpu")[0].version
        for temperature in (1.0, 2.0)
        for topics in (ORDER, TOPICS)
    }
    assert len(versions) == 4


def test_a_base_is_found_where_the_recipe_says(base, checkpoint):
    assert load_teachers(recipe_of(checkpoint, teacher_bases={NAME: str(base)}), ORDER, {}, "cpu")


def test_a_published_classifier_teaches_the_question_that_its_labels_answer(tmp_path):
    tones = write_sequence_classifier(tmp_path / "tones", ("Positive", "Negative", "Neutral"))
    themes = write_sequence_classifier(tmp_path / "themes", TOPICS)
    first, second = load_teachers(recipe_of(tones, themes), ORDER, {}, "cpu")
    for one in first.judge(TEXTS[:4]):
        assert one.topic is None
        assert one.toward == {}
        assert sum(one.sentiment) == pytest.approx(1)
    cold = load_teachers(recipe_of(tones, teacher_temperature=1.0), ORDER, {}, "cpu")[0].judge(TEXTS[:4])
    for warm, one in zip(first.judge(TEXTS[:4]), cold, strict=True):
        # At twice the temperature the logarithms of the probabilities lie half as far apart.
        wanted = np.sqrt(one.sentiment) / np.sqrt(one.sentiment).sum()
        np.testing.assert_allclose(warm.sentiment, wanted, atol=1e-5)
    assert all(one.sentiment is None and len(one.topic) == 3 for one in second.judge(TEXTS[:4]))


def test_a_teacher_of_other_topics_is_refused(base, checkpoint, tmp_path):
    with pytest.raises(PipelineError, match="knows other topics than the corpus: earnings, credit, weather"):
        load_teachers(recipe_of(checkpoint), ("earnings", "sport"), {NAME: base}, "cpu")
    other = write_sequence_classifier(tmp_path / "other", ("sport", "music"))
    with pytest.raises(PipelineError, match=r"other cannot teach:\n(.|\n)*its topics are sport, music"):
        load_teachers(recipe_of(other), ORDER, {}, "cpu")


# --- the cache -----------------------------------------------------------------------------------


def test_a_teacher_is_asked_about_a_text_once(tmp_path):
    teacher = Counted()
    first = ask(teacher, TEXTS, tmp_path)
    assert teacher.asked == [example.text for example in TEXTS]
    more = [Example("a new text", "x"), *reversed(TEXTS), TEXTS[0]]
    second = ask(teacher, more, tmp_path)
    assert teacher.asked == [example.text for example in TEXTS] + ["a new text"]
    assert second[1:-1] == first[::-1]
    # The same text with another entity is another question.
    ask(teacher, [replace(TEXTS[0], toward=(Toward(0, 3, "neutral"),))], tmp_path)
    assert len(teacher.asked) == len(TEXTS) + 2


def test_a_damaged_cache_says_what_to_do(tmp_path):
    (tmp_path / "counted.msgpack").write_bytes(b"\xc1")
    with pytest.raises(PipelineError, match="delete it, and the teacher is asked again"):
        ask(Counted(), TEXTS, tmp_path)


# --- teaching ------------------------------------------------------------------------------------


def distance(model, rows, teaching):
    packed = pack([row.prepared for row in rows])
    return teaching(model(packed), rows, packed)


def test_a_student_that_thinks_the_same_has_nothing_to_learn(base, checkpoint):
    recipe = recipe_of(checkpoint, teacher_temperature=3.0)
    (teacher,) = load_teachers(recipe, TOPICS, {NAME: base}, "cpu")
    teaching = Teaching([teacher.judge(TEXTS)], TEXTS, recipe, "cpu")
    rows = encode(TEXTS, load_tokenizer(base), TOPICS, 24)
    with torch.inference_mode():
        assert float(distance(teacher.checkpoint.model, rows, teaching)) == pytest.approx(0.0, abs=1e-5)
        for cut in batches(rows, 40, random.Random(1)):
            assert float(distance(teacher.checkpoint.model, cut, teaching)) == pytest.approx(0.0, abs=1e-5)
        other = build_model(base, 3, recipe, steps=1).eval()
        assert float(distance(other, rows, teaching)) > 0.05


def test_a_student_learns_questions_that_no_label_answers(base, checkpoint):
    torch.manual_seed(1)
    recipe = recipe_of(checkpoint)
    (teacher,) = load_teachers(recipe, TOPICS, {NAME: base}, "cpu")
    teaching = Teaching([teacher.judge(TEXTS)], TEXTS, recipe, "cpu")
    rows = encode(TEXTS, load_tokenizer(base), TOPICS, 24)
    student = build_model(base, 3, recipe, steps=1)
    optimiser = torch.optim.Adam([parameter for parameter in student.parameters() if parameter.requires_grad], lr=0.02)
    topics_only = [place for place, row in enumerate(rows) if row.sentiment < 0 and not row.toward]

    def gap():
        with torch.inference_mode():
            packed = pack([rows[place].prepared for place in topics_only])
            one, other = student(packed), teacher.checkpoint.model(packed)
            return float((one.sentiment.softmax(-1) - other.sentiment.softmax(-1)).abs().mean())

    before = gap()
    for _ in range(30):
        optimiser.zero_grad()
        distance(student, rows, teaching).backward()
        optimiser.step()
    assert gap() < 0.7 * before


def test_a_text_in_other_words_keeps_what_the_teachers_thought_of_the_original(base):
    recipe = recipe_of("any", entity_swaps=1.0, synonyms=1.0)
    judged = [
        Judgement((0.2, 0.3, 0.5), None, {which: (float(which == 0), 0.0, float(which == 1)) for which in range(len(one.toward))})
        for one in TEXTS
    ]
    teaching = Teaching([judged], TEXTS, recipe, "cpu")
    rows = encode(augment(TEXTS, recipe, random.Random(1)), load_tokenizer(base), TOPICS, 24)
    # A student that answers just so, whatever the order of the batch.
    cut = random.Random(2).sample(rows, len(rows))
    packed = pack([row.prepared for row in cut])
    toward = torch.full((len(packed.target_order), 3), -40.0)
    for number, (place, which) in enumerate(packed.target_order):
        entity = int(cut[place].prepared.targets[which].entity)
        toward[number, 0 if entity == 0 else 2] = 40.0

    class Logits:
        topic = torch.tensor([0.2, 0.3, 0.5]).log().expand(len(cut), 3) * recipe.teacher_temperature
        sentiment = torch.randn(len(cut), 3)

    logits = Logits()
    logits.toward = toward
    assert float(teaching(logits, cut, packed)) == pytest.approx(0.0, abs=1e-5)
    logits.toward = toward.flip(1)
    assert float(teaching(logits, cut, packed)) > 1.0


def test_teachers_that_answer_nothing_are_refused():
    silent = [Judgement(None, None, {})] * len(TEXTS)
    with pytest.raises(PipelineError, match="answer none of the questions"):
        Teaching([silent], TEXTS, recipe_of("any"), "cpu")


rows_of_three = st.lists(st.floats(0.01, 1), min_size=3, max_size=3).map(lambda row: tuple(value / sum(row) for value in row))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.none() | rows_of_three, min_size=1, max_size=5))
def test_the_mean_of_several_is_a_distribution_between_them(given_rows):
    found = mean(given_rows)
    known = [row for row in given_rows if row is not None]
    assert (found is None) == (not known)
    if found is not None:
        assert sum(found) == pytest.approx(1)
        for place, value in enumerate(found):
            assert min(row[place] for row in known) - 1e-9 <= value <= max(row[place] for row in known) + 1e-9


# --- ensembles -----------------------------------------------------------------------------------


def test_an_ensemble_answers_with_the_mean_of_the_probabilities():
    source = np.random.default_rng(1)
    truth = source.integers(0, 3, 40)
    parts = [{"a/topic": Answers("topic", source.normal(size=(40, 3)) * 3, truth)} for _ in range(3)]
    (together,) = ensemble(parts).values()
    wanted = np.mean([probabilities(part["a/topic"].logits) for part in parts], axis=0)
    np.testing.assert_allclose(probabilities(together.logits), wanted)
    assert together.truth is truth
    alone = ensemble(parts[:1])["a/topic"]
    np.testing.assert_allclose(probabilities(alone.logits), probabilities(parts[0]["a/topic"].logits))


def test_models_that_were_asked_other_things_are_no_ensemble():
    one, other = (Answers("topic", np.zeros((2, 3)), np.array(truth)) for truth in ([0, 1], [1, 0]))
    with pytest.raises(PipelineError, match="not all asked a/topic"):
        ensemble([{"a/topic": one}, {"a/topic": other}])
    with pytest.raises(PipelineError, match="not all asked a/topic"):
        ensemble([{"a/topic": one}, {}])
