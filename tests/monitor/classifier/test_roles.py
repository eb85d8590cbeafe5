"""Each question is answered by the checkpoint in its role, and the other by the Bellwether checkpoint."""

import pytest

from monitor.classifier.published import find_published
from monitor.classifier.roles import PreparedForRoles, RolesClassifier, ask, sentences_about
from monitor.classifier.sequence_classification import SequenceClassifier
from monitor.config import SentimentSettings, TopicSettings
from monitor.types import Mention, Passage
from tests.monitor.classifier.tiny import TOPICS, write_sequence_classifier

OTHER_TOPICS = ("credit", "rumour")


@pytest.fixture(scope="module")
def topic(tmp_path_factory):
    folder = write_sequence_classifier(tmp_path_factory.mktemp("topic"), OTHER_TOPICS, "roberta")
    return SequenceClassifier(find_published("topic", TopicSettings(checkpoint=folder), fetch=False), "cpu")


@pytest.fixture(scope="module")
def sentiment(tmp_path_factory):
    folder = write_sequence_classifier(tmp_path_factory.mktemp("sentiment"), ("positive", "negative", "neutral"), seed=1)
    return SequenceClassifier(find_published("sentiment", SentimentSettings(checkpoint=folder), fetch=False), "cpu")


def passage(text, *names):
    """The text with every place where one of the names stands as a mention of it."""
    found = [(text.find(name, start), name) for name in names for start in range(len(text)) if text.startswith(name, start)]
    return Passage(text, tuple(sorted(Mention(start, start + len(name), name) for start, name in set(found))))


STORY = passage("bank loss\nHalden falls in a queue. Savings gain. Castor rises. The profit of Halden", "Halden", "Castor")


def predict(classifier, *passages):
    return classifier.classify(classifier.prepare(passages))


def close(one, other):
    return one == pytest.approx(other, abs=1e-5)


def test_another_topic_leaves_the_sentiment_to_the_bellwether_checkpoint(classifier, topic):
    both = RolesClassifier(classifier, topic, None)
    (own,), (answer,), (plain,) = predict(classifier, STORY), predict(both, STORY), topic.answer(topic.prepare([STORY]))
    assert both.topics == OTHER_TOPICS
    assert (answer.topic, answer.topic_probabilities) == (plain.label, pytest.approx(plain.probabilities))
    assert close(answer.document.probabilities, own.document.probabilities)
    assert answer.toward.keys() == {"Halden", "Castor"}
    assert all(close(answer.toward[name].probabilities, own.toward[name].probabilities) for name in answer.toward)
    assert answer.out_of_domain == own.out_of_domain


def test_another_sentiment_leaves_the_topic_to_the_bellwether_checkpoint(classifier, sentiment):
    both = RolesClassifier(classifier, None, sentiment)
    (own,), (answer,), (plain,) = predict(classifier, STORY), predict(both, STORY), sentiment.answer(sentiment.prepare([STORY]))
    assert both.topics == TOPICS
    assert close(answer.topic_probabilities, own.topic_probabilities)
    assert answer.document.sentiment == plain.label
    assert close(answer.document.probabilities, plain.probabilities)
    assert not close(answer.document.probabilities, own.document.probabilities)


def test_two_other_checkpoints_need_no_third(topic, sentiment):
    both = RolesClassifier(None, topic, sentiment)
    (answer,), (about,), (said,) = (
        predict(both, STORY),
        topic.answer(topic.prepare([STORY])),
        sentiment.answer(sentiment.prepare([STORY])),
    )
    assert (answer.topic, answer.document.sentiment) == (about.label, said.label)
    assert (both.topics, both.device, answer.out_of_domain) == (OTHER_TOPICS, "cpu", False)


def test_a_question_that_nobody_answers_is_no_classifier(topic):
    with pytest.raises(AssertionError):
        RolesClassifier(None, topic, None)


def test_the_opinion_of_an_entity_is_that_of_the_sentences_that_name_it(topic, sentiment):
    (answer,) = predict(RolesClassifier(None, topic, sentiment), STORY)
    for name, said in (("Castor", "Castor rises."), ("Halden", "Halden falls in a queue. The profit of Halden")):
        (alone,) = sentiment.answer(sentiment.prepare([Passage(said)]))
        assert close(answer.toward[name].probabilities, alone.probabilities)
        assert answer.toward[name].sentiment == alone.label
    assert not close(answer.toward["Castor"].probabilities, answer.document.probabilities)


def test_where_all_of_a_text_names_an_entity_it_is_the_opinion_of_the_text_and_nothing_is_read_twice(topic, sentiment):
    one = passage("halden falls , castor rises", "halden", "castor")
    (asked,) = ask([one], sentiment)
    assert (len(asked.rows), asked.toward) == (1, (("halden", 0), ("castor", 0)))
    (answer,) = predict(RolesClassifier(None, topic, sentiment), one)
    assert answer.toward == {"halden": answer.document, "castor": answer.document}


def test_a_sentence_about_two_entities_is_read_once_for_both(sentiment):
    (asked,) = ask([passage("bank loss\nhalden falls , castor rises", "halden", "castor")], sentiment)
    assert (len(asked.rows), asked.toward) == (2, (("halden", 1), ("castor", 1)))


def test_only_the_first_sentences_of_very_many_are_read():
    text = " ".join(f"Halden loses {number}." for number in range(40))
    said = sentences_about(passage(text, "Halden"), "Halden")
    assert said == " ".join(f"Halden loses {number}." for number in range(8))


def test_of_a_very_long_sentence_what_stands_around_the_name_is_read_once():
    text = "a " * 300 + "halden and halden " + "b " * 300
    said = sentences_about(passage(text, "halden"), "halden")
    assert said.count("halden") == 2
    assert 200 < len(said) < 500


def test_a_passage_weighs_what_all_checkpoints_read_of_it(classifier, topic, sentiment):
    both, other = RolesClassifier(None, topic, sentiment), RolesClassifier(classifier, None, sentiment)
    (row,) = both.prepare([STORY])
    assert row.tokens == topic.prepare([STORY])[0].tokens + sum(one.tokens for one in row.sentiment.rows)
    assert len(row.sentiment.rows) == 3
    (beside,) = other.prepare([STORY])
    assert beside.own.targets == ()
    assert beside.tokens == beside.own.tokens + sum(one.tokens for one in row.sentiment.rows)


def test_a_passage_is_cut_when_any_of_them_cannot_read_all_of_it(classifier, sentiment):
    other = RolesClassifier(classifier, None, sentiment)
    lengths = {count: other.prepare([Passage("bank " * count)])[0].truncated for count in (10, 30, 90)}
    assert lengths == {10: False, 30: True, 90: True}


def test_the_version_follows_who_answers_what(classifier, topic, sentiment):
    ways = [(classifier, topic, None), (classifier, None, sentiment), (classifier, topic, sentiment), (None, topic, sentiment)]
    versions = {RolesClassifier(*way).version for way in ways} | {classifier.version}
    assert len(versions) == 5
    assert {len(version) for version in versions} == {12}


def test_what_all_of_them_did_is_told_once(classifier, topic, sentiment):
    both = RolesClassifier(classifier, topic, sentiment)
    both.effort()
    prepared = both.prepare([STORY, Passage("bank")])
    both.classify(prepared)
    effort = both.effort()
    assert sum(effort.pass_tokens) == sum(row.tokens for row in prepared)
    assert (effort.undefined, effort.halvings, both.effort().pass_tokens) == (0, 0, ())
    assert both.engine == classifier.engine


def test_what_another_classifier_prepared_is_refused(classifier, topic, sentiment):
    with pytest.raises(TypeError, match="by the classifier that prepared it"):
        RolesClassifier(None, topic, sentiment).classify(classifier.prepare([STORY]))


def test_no_number_for_a_text_makes_its_sentiment_neutral_and_uncertain(topic, sentiment, monkeypatch):
    import torch

    monkeypatch.setattr(sentiment, "_model", lambda packed: torch.full((packed.rows, 3), torch.nan))
    (answer,) = predict(RolesClassifier(None, topic, sentiment), STORY)
    assert (answer.document.sentiment, answer.document.tone) == ("neutral", "uncertain")
    assert answer.toward["Castor"].tone == "uncertain"


def test_a_prepared_passage_has_no_tokens_but_those_of_its_parts():
    assert PreparedForRoles(()).tokens == 0
