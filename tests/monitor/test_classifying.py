"""The classifier's own thread: asked at once, answered in order, its failures handed to whoever asked."""

import threading

import pytest

from monitor.classifier.protocol import Prepared
from monitor.classifying import Classifying
from monitor.errors import DeviceLost
from tests.fakes import FakeClassifier


class Slow(FakeClassifier):
    """Answers once it may, and remembers on which thread; fails on a text "lost"."""

    def __init__(self):
        super().__init__()
        self.may = threading.Event()
        self.threads = []

    def classify(self, prepared):
        assert self.may.wait(10)
        self.threads.append(threading.current_thread())
        answers = super().classify(prepared)
        if self.batches[-1] == ["lost"]:
            raise DeviceLost("gone")
        return answers


def rows(*texts):
    return [Prepared(tuple(map(ord, text))) for text in texts]


def test_asking_does_not_wait_and_answers_come_in_order():
    slow = Slow()
    classifying = Classifying(slow)
    first, second = classifying.ask(rows("gains")), classifying.ask(rows("loses", "gains"))
    assert not first.done()
    slow.may.set()
    assert [answer.document.sentiment for answer in second.result(10)] == ["negative", "positive"]
    assert first.done()
    assert slow.batches == [["gains"], ["loses", "gains"]]
    assert len(set(slow.threads)) == 1
    assert slow.threads[0] is not threading.current_thread()
    classifying.close()


def test_a_failure_reaches_who_asked_and_no_one_else():
    slow = Slow()
    slow.may.set()
    classifying = Classifying(slow)
    lost, kept = classifying.ask(rows("lost")), classifying.ask(rows("gains"))
    with pytest.raises(DeviceLost, match="gone"):
        lost.result(10)
    assert len(kept.result(10)) == 1
    classifying.close()


def test_a_closed_one_ends_its_thread_and_begins_anew_when_it_is_asked():
    slow = Slow()
    slow.may.set()
    classifying = Classifying(slow)
    classifying.close()
    assert len(classifying.ask(rows("gains")).result(10)) == 1
    classifying.close()
    slow.threads[0].join(10)
    assert not slow.threads[0].is_alive()
    assert len(classifying.ask(rows("gains")).result(10)) == 1
    classifying.close()


def test_its_thread_does_not_keep_a_process_alive():
    slow = Slow()
    classifying = Classifying(slow)
    classifying.ask(rows("gains"))
    assert [thread.daemon for thread in threading.enumerate() if thread.name == "classify" and thread.is_alive()].count(False) == 0
    slow.may.set()
    classifying.close()
