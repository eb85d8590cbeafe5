"""Each text is classified once, over all runs and watch lists; what was interrupted goes on."""

import sqlite3
from dataclasses import replace

import pytest

from monitor.config import Settings
from monitor.errors import PipelineError
from monitor.types import Mention, Partition, Passage, Record
from monitor.watchlist import Entity, WatchList
from pipelines.backtest.scores import RememberingClassifier, ScoreCache, passage_key
from pipelines.backtest.scoring import score
from tests.fakes import FakeClassifier

TEXTS = ("Halden loses credit", "Norvik gains earnings", "perhaps other")


def passages(*texts, entity="halden"):
    return [Passage(text, (Mention(0, 6, entity),)) if text.startswith("Halden") else Passage(text) for text in texts]


@pytest.fixture
def remembering(tmp_path):
    opened = []

    def open_one(fake=None, version="one"):
        fake = fake or FakeClassifier(version=version)
        cache = ScoreCache(tmp_path / "scores.db", fake.version)
        opened.append(cache)
        return fake, RememberingClassifier(fake, cache)

    yield open_one
    for cache in opened:
        cache.close()


def ask(classifier, asked):
    return classifier.classify(classifier.prepare(asked))


def test_what_is_remembered_is_exactly_what_was_answered_and_the_classifier_is_not_asked_again(remembering):
    fake, first = remembering()
    direct = FakeClassifier().classify(FakeClassifier().prepare(passages(*TEXTS, TEXTS[0])))
    assert ask(first, passages(*TEXTS, TEXTS[0])) == direct
    assert fake.batches == [list(TEXTS)]
    fake, second = remembering()
    prepared = second.prepare(passages(*TEXTS))
    assert second.classify(prepared) == direct[:3]
    assert (fake.batches, second.asked, [one.tokens for one in prepared]) == ([], 0, [0, 0, 0])


def test_another_model_or_other_names_in_the_text_are_asked_about_anew_but_another_id_is_not(remembering):
    _, first = remembering()
    ask(first, passages(TEXTS[0]))
    _, other_model = remembering(version="two")
    ask(other_model, passages(TEXTS[0]))
    assert other_model.asked == 1
    _, again = remembering()
    (renamed,) = ask(again, passages(TEXTS[0], entity="halden-bank"))
    assert again.asked == 0
    assert list(renamed.toward) == ["halden-bank"]
    ask(again, [Passage(TEXTS[0])])
    assert again.asked == 1


def test_the_key_of_a_text_says_where_each_entity_stands():
    whole = Passage("AB AB", (Mention(0, 2, "a"), Mention(3, 5, "b")))
    keys = {
        passage_key(whole),
        passage_key(Passage("AB AB")),
        passage_key(replace(whole, mentions=(Mention(0, 2, "a"), Mention(3, 5, "a")))),
        passage_key(replace(whole, mentions=(Mention(0, 2, "a"),))),
        passage_key(Passage("AB A", whole.mentions)),
    }
    assert len(keys) == 5
    assert passage_key(whole) == passage_key(replace(whole, mentions=(Mention(0, 2, "x"), Mention(3, 5, "y"))))


def records(*headlines):
    for place, headline in enumerate(headlines):
        value = b"{" if headline is None else b'{"uri": "u%d", "headline": "%s"}' % (place, headline.encode())
        yield Record(Partition("archive", 0), place, place + 1, 1_000 * place, value)


class Interrupted(FakeClassifier):
    """Is pulled away at its third batch."""

    def classify(self, prepared):
        if len(self.batches) == 2:
            raise KeyboardInterrupt
        return super().classify(prepared)


def test_scoring_that_was_interrupted_goes_on_behind_its_last_batch(remembering):
    headlines = [f"Halden loses number {place:02}" for place in range(25)]
    settings = Settings(batch={"max_documents": 5, "max_tokens": 10_000})
    watchlist = WatchList([Entity("halden", "Halden")])
    _, first = remembering(Interrupted(version="one"))
    with pytest.raises(KeyboardInterrupt):
        score(records(*headlines), first, settings, watchlist, lambda read: None)
    fake, second = remembering()
    told = []
    scored = score(records(*headlines, None, headlines[0]), second, settings, watchlist, told.append)
    assert second.asked == 15
    assert max(len(batch) for batch in fake.batches) <= 5
    assert (scored.documents, dict(scored.rejected), told) == (26, {"not_json": 1}, [27])


def test_a_batch_weighs_no_more_than_the_daemons(remembering):
    fake, classifier = remembering()
    headlines = [f"number {place:02} {'of many ' * 20}".strip() for place in range(20)]
    score(records(*headlines), classifier, Settings(batch={"max_tokens": 512}), WatchList(), lambda read: None)
    assert sorted(text for batch in fake.batches for text in batch) == headlines
    assert max(sum(map(len, batch)) for batch in fake.batches) <= 512


def test_a_file_that_holds_no_scores_is_refused(tmp_path):
    (tmp_path / "notes").write_text("not a database, and long enough to be one" * 40)
    with pytest.raises(PipelineError, match="cannot be used"):
        ScoreCache(tmp_path / "notes", "one")
    with sqlite3.connect(tmp_path / "newer") as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(PipelineError, match="has format 99"):
        ScoreCache(tmp_path / "newer", "one")
