"""Prepared passages in, their predictions later: the classifier on a thread of its own, so that the loop reads on meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from queue import SimpleQueue
from typing import TypeAlias

from monitor.classifier.protocol import Classifier, Prepared
from monitor.types import Prediction

Answers: TypeAlias = Future[list[Prediction]]


class Classifying:
    """One thread that asks the classifier, in the order in which it is asked itself. The thread starts with the first question.

    It does not keep a process alive: a device that hangs must not keep us from ending.
    """

    def __init__(self, classifier: Classifier) -> None:
        self._classifier = classifier
        self._asked: SimpleQueue[tuple[Sequence[Prepared], Answers] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def ask(self, prepared: Sequence[Prepared]) -> Answers:
        """What `Classifier.classify` will give back, or raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="classify", daemon=True)
            self._thread.start()
        answers: Answers = Future()
        self._asked.put((prepared, answers))
        return answers

    def close(self) -> None:
        """Ends the thread once it has answered what it was asked."""
        if self._thread is not None:
            self._asked.put(None)
            self._thread = None

    def _run(self) -> None:
        while asked := self._asked.get():
            prepared, answers = asked
            try:
                answers.set_result(self._classifier.classify(prepared))
            except BaseException as error:  # noqa: BLE001 (the thread's boundary: whoever asked gets it)
                answers.set_exception(error)
