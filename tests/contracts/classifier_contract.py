"""What every classifier keeps, whatever it is made of.

A test module imports these tests and provides the fixture `classifier`.
"""

import threading

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from monitor.types import SENTIMENTS, Mention, Passage

TOLERANCE = 1e-4
NAMES = ("halden", "castor")
WORDS = (
    *NAMES,
    "bank",
    "profit",
    "loses",
    "gains",
    "perhaps",
    "queue",
    "savings",
    "earnings",
    "loss.",
    "rises!",
    "the",
    "of",
    "B.",
)


def passage(text):
    """A passage in which every one of `NAMES` is a mention of the entity of that name."""
    mentions, start = [], 0
    for word in text.replace("\n", " ").split(" "):
        if word in NAMES:
            mentions.append(Mention(start, start + len(word), word))
        start += len(word) + 1
    return Passage(text, tuple(mentions))


words = st.lists(st.sampled_from(WORDS), max_size=60).map(" ".join)
passages = st.tuples(words, words).map(lambda parts: passage("\n".join(part for part in parts if part)))


def ask(classifier, asked):
    return classifier.classify(classifier.prepare(asked))


def numbers(prediction):
    """All numbers of a prediction in one row, by what they are about."""
    toward = {entity: opinion.probabilities for entity, opinion in prediction.toward.items()}
    return {"topic": prediction.topic_probabilities, "document": prediction.document.probabilities, **toward}


def same(one, other):
    ours, theirs = numbers(one), numbers(other)
    return ours.keys() == theirs.keys() and all(ours[name] == pytest.approx(theirs[name], abs=TOLERANCE) for name in ours)


def test_it_says_what_it_is(classifier):
    assert classifier.version
    assert len(classifier.topics) == len(set(classifier.topics)) > 0
    assert classifier.device in {"none", "cpu"} or classifier.device.startswith("cuda:")


def test_it_is_the_same_whenever_it_is_asked_what_it_is(classifier):
    before = (classifier.version, classifier.topics, classifier.device)
    ask(classifier, [passage("halden loses")])
    assert (classifier.version, classifier.topics, classifier.device) == before


def test_nothing_in_nothing_out(classifier):
    assert classifier.prepare([]) == []
    assert classifier.classify([]) == []


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(passages, max_size=6))
def test_every_passage_gets_one_answer_of_probabilities(classifier, asked):
    prepared = classifier.prepare(asked)
    answers = classifier.classify(prepared)
    assert len(asked) == len(prepared) == len(answers)
    for given_, answer in zip(asked, answers, strict=True):
        assert len(answer.topic_probabilities) == len(classifier.topics)
        for probabilities in numbers(answer).values():
            assert sum(probabilities) == pytest.approx(1, abs=1e-9)
            assert min(probabilities) >= 0
        chosen = answer.topic_probabilities[classifier.topics.index(answer.topic)]
        assert chosen == pytest.approx(max(answer.topic_probabilities))
        for opinion in (answer.document, *answer.toward.values()):
            chosen = opinion.probabilities[SENTIMENTS.index(opinion.sentiment)]
            assert chosen == pytest.approx(max(opinion.probabilities))
        assert answer.toward.keys() <= set(given_.entities)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(asked=st.lists(passages, min_size=1, max_size=6), order=st.randoms(use_true_random=False))
def test_a_passage_gets_the_same_answer_in_any_batch_and_in_any_order(classifier, asked, order):
    alone = [ask(classifier, [one])[0] for one in asked]
    places = list(range(len(asked)))
    order.shuffle(places)
    together = ask(classifier, [asked[place] for place in places])
    assert all(same(answer, alone[place]) for place, answer in zip(places, together, strict=True))


def test_a_passage_that_names_nobody_has_an_opinion_of_nobody(classifier):
    (answer,) = ask(classifier, [passage("the bank loses")])
    assert answer.toward == {}
    assert answer.opinion("halden") == answer.document


def test_a_longer_passage_weighs_more_up_to_where_it_is_cut(classifier):
    empty, short, long, longer = classifier.prepare([passage(text) for text in ("", "loss.", "loss. " * 3_000, "loss. " * 6_000)])
    assert empty.tokens <= short.tokens < long.tokens
    assert longer.tokens <= long.tokens
    assert (empty.truncated, short.truncated, long.truncated) == (False, False, True)


@pytest.mark.parametrize("text", ["", "\n", "😀" * 50, "\x00\x1b[31m", "银行亏损。海登银行", "a" * 5_000, "ﬁ́́́"])
def test_no_text_is_too_strange_for_an_answer(classifier, text):
    asked = [Passage(text), passage("halden gains")]
    assert same(ask(classifier, asked)[1], ask(classifier, asked[1:])[0])


def test_passages_are_prepared_in_one_thread_while_others_are_classified(classifier):
    batches = [[passage(f"{name} {word} {'bank ' * length}") for name in NAMES for word in WORDS] for length in (0, 3, 30)]
    expected = [ask(classifier, batch) for batch in batches]
    ready = classifier.prepare(batches[0])
    prepared, stop, failures = {}, threading.Event(), []

    def prepare():
        try:
            while not stop.is_set() or len(prepared) < len(batches):
                for number, batch in enumerate(batches):
                    prepared[number] = classifier.prepare(batch)
        except BaseException as error:
            failures.append(error)
            raise

    thread = threading.Thread(target=prepare)
    thread.start()
    try:
        meanwhile = [classifier.classify(ready) for _ in range(5)]
    finally:
        stop.set()
        thread.join()
    assert not failures
    for answers in meanwhile:
        assert all(same(one, other) for one, other in zip(answers, expected[0], strict=True))
    for number, answers in enumerate(expected):
        assert all(same(one, other) for one, other in zip(classifier.classify(prepared[number]), answers, strict=True))
