"""The whole path once around: records become documents, scored documents, one transaction; the leader places and judges them."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from monitor.batches import Batch, Batcher
from monitor.classifier.protocol import Accountable, Classifier
from monitor.classifying import Answers, Classifying
from monitor.errors import Fenced, SourceUnavailable, StoreUnavailable
from monitor.intake import Intake
from monitor.leading import Leading
from monitor.metrics import Metrics
from monitor.scoring import score
from monitor.starvation import Starvation
from monitor.store.ledger import Advance, Ledger, Saving
from monitor.types import Document, Partition, Rejected
from monitor.view import Viewer
from monitor.watermark import Silence

log = structlog.get_logger(__name__)

_POLL_S: Final = 0.25
_POLL_WHILE_CLASSIFYING_S: Final = 0.05
_ASK_FOR_ENDS_EVERY_S: Final = 1.0
_SHOW_LAG_EVERY_S: Final = 10.0
_LOOK_EVERY_S: Final = 1.0
_RETRY_SAVE_AFTER_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Asked:
    """A batch that the classifier has and that is not saved."""

    batch: Batch
    answers: Answers


@dataclass(slots=True)
class Loop:
    """One thread turns it; everything it touches is passed in.

    While the classifier has a batch, the loop reads, decodes and tokenises the next. Batches are saved in the order in which they
    were read, each before the classifier gets another; what is not saved when claims change is forgotten, and read again.
    `clock_s` is monotonic. `stop` ends the wait for a database.
    """

    open_intake: Callable[[], Intake]
    batcher: Batcher
    classifier: Classifier
    silence: Silence
    starvation: Starvation
    ledger: Ledger
    leading: Leading
    viewer: Viewer
    metrics: Metrics
    stop: threading.Event
    clock_s: Callable[[], float] = time.monotonic
    intake: Intake | None = None
    turned_s: float = field(default_factory=time.monotonic)
    _classifying: Classifying = field(init=False)
    _asked: _Asked | None = None
    _asked_for_ends_s: float = float("-inf")
    _looked_s: float = float("-inf")
    _more_to_place: bool = False

    def __post_init__(self) -> None:
        self._classifying = Classifying(self.classifier)
        if isinstance(self.classifier, Accountable):
            self.metrics.set_engine(self.classifier.engine)

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The source, open while the context lasts. Raises SourceUnavailable when it cannot be opened."""
        self._forget_unsaved()
        self.starvation.forget()
        self.intake = self.open_intake()
        try:
            yield
        finally:
            self._classifying.close()
            self.intake.source.close()
            self.intake = None

    def turn(self) -> None:
        """Once around.

        Raises SourceUnavailable when the source must be opened again, and StoreUnavailable when the database does not answer;
        what is saved stays saved, and what is not saved is read again.
        """
        if self._asked is None:
            # A classifier that never answers must not be hidden by a loop that goes on turning.
            self.beat()
        try:
            self._take_in()
            self._process_due()
        except Fenced as error:
            self._give_up_claims(error)
        self._confirm_ends()
        self._lead()
        self._look()

    def drain(self) -> None:
        """Processes what was read, without waiting for a batch to fill, and lets another instance lead."""
        try:
            self._process_all()
        except Fenced as error:
            self._give_up_claims(error)
        try:
            self._lead()
            while self._more_to_place:
                self.beat()
                self._lead()
            self._look(now=True)
            self.leading.resign()
        except StoreUnavailable as error:
            # What is saved stays saved, and the lease ends by itself.
            log.warning("store.unavailable", reason=str(error))

    def beat(self) -> None:
        """Says that the loop is alive."""
        self.turned_s = self.clock_s()

    def exhausted(self) -> bool:
        """Whether the source has no more to give, ever: a file that is not followed."""
        return self._intake.source.exhausted

    def partitions(self) -> int:
        """How many partitions are ours now; safe from any thread."""
        intake = self.intake
        return 0 if intake is None else len(intake.held)

    @property
    def _intake(self) -> Intake:
        if self.intake is None:
            raise SourceUnavailable("the source is not open")
        return self.intake

    def _take_in(self) -> None:
        try:
            with self.metrics.timed("poll"):
                arrived = self._intake.read(self._wait_s())
        except StoreUnavailable:
            # The claims are gone, and new ones could not be made: what was read under them is read again.
            self._forget_unsaved()
            raise
        self.starvation.polled(empty=not arrived.records)
        if arrived.assigned is not None:
            # What was read under earlier claims and is not saved is read again under the new ones.
            self._forget_unsaved()
            self.silence.assign(arrived.assigned)
            # Of a partition that went to another instance that one tells: the last number of ours would stand for ever.
            self.metrics.lag_records.clear()
        if arrived.interruptions:
            self._process_all()
            self._intake.record_interruptions(arrived.interruptions)
            for found in arrived.interruptions:
                self.metrics.interruptions.labels(found.kind).inc()
        with self.metrics.timed("decode"):
            entries = self._intake.decode(arrived.records)
        self._collect(entries)

    def _wait_s(self) -> float:
        if self._more_to_place:
            return 0.0
        if self._asked is not None:
            return _POLL_WHILE_CLASSIFYING_S
        remaining_s = self.batcher.remaining_s(self.clock_s())
        return _POLL_S if remaining_s is None else min(_POLL_S, max(0.0, remaining_s))

    def _collect(self, entries: Sequence[Document | Rejected]) -> None:
        """Tokenises what arrived and lays it into the batcher."""
        documents = [entry for entry in entries if isinstance(entry, Document)]
        with self.metrics.timed("prepare"):
            prepared = iter(self.classifier.prepare([document.passage for document in documents]))
        now_s = self.clock_s()
        for entry in entries:
            if isinstance(entry, Rejected):
                self.batcher.add(entry, 0, now_s)
                continue
            tokens = next(prepared)
            self.batcher.add((entry, tokens), tokens.tokens, now_s)
            self.metrics.truncated.inc(tokens.truncated)

    def _process_due(self) -> None:
        """Saves what is classified and hands over what is due. While the classifier is busy a batch waits until it is full."""
        if self._asked is not None and self._asked.answers.done():
            self._finish()
        while (self._asked is None or self.batcher.full) and (batch := self.batcher.take(self.clock_s())):
            self._process(batch)

    def _process_all(self) -> None:
        for batch in self.batcher.take_all():
            self._process(batch)
        self._finish()

    def _process(self, batch: Batch) -> None:
        """Hands a batch to the classifier, once the one before it is saved. Raises what `_finish` does."""
        self._finish()
        # One poll may bring many batches: a slow classifier is not a loop that stands still.
        self.beat()
        self._asked = _Asked(batch, self._classifying.ask([prepared for _, prepared in batch.documents]))

    def _finish(self) -> None:
        """Waits for the batch that the classifier has, and saves it in one transaction.

        Raises Fenced or StoreUnavailable: then nothing of it was saved, and nothing that was read after it may be; and what the
        classifier raised.
        """
        if self._asked is None:
            return
        batch = self._asked.batch
        with self.metrics.timed("classify"):
            predictions = self._asked.answers.result()
        self._asked = None
        if isinstance(self.classifier, Accountable):
            self.metrics.count_effort(self.classifier.effort())
        with self.metrics.timed("score"):
            scored = score([document for document, _ in batch.documents], predictions, self.classifier.version)
        saving = Saving(self._advances(batch), tuple(scored), batch.rejected)
        try:
            self._save_patiently(saving)
        except StoreUnavailable:
            self._forget_unsaved()
            raise
        for advance in saving.advances:
            self._intake.saved(advance)
            self.silence.observe(advance.partition, self.clock_s())
        self._intake.source.hint({advance.partition: advance.next_offset for advance in saving.advances})
        self._count(batch, saving.advances)

    def _forget_unsaved(self) -> None:
        """Lets go of everything that was read and not saved; whoever has the claims reads it again."""
        self.batcher.take_all()
        if self._asked is not None:
            self._asked.answers.result()
            self._asked = None

    def _save_patiently(self, saving: Saving) -> None:
        """Saves; while the database does not answer, waits with the source paused, so that the group keeps us."""
        source, paused = self._intake.source, False
        try:
            while True:
                try:
                    with self.metrics.timed("save"):
                        return self.ledger.save(saving)
                except StoreUnavailable as error:
                    if self.stop.is_set():
                        raise
                    if not paused:
                        log.warning("save.waiting", reason=str(error))
                        source.pause()
                        paused = True
                    self.metrics.store_retries.inc()
                    self.beat()
                    source.poll(0)
                    self.stop.wait(_RETRY_SAVE_AFTER_S)
        finally:
            if paused:
                source.resume()

    def _advances(self, batch: Batch) -> tuple[Advance, ...]:
        """How far the batch takes each of its partitions."""
        rejected = Counter(item.partition for item in batch.rejected)
        times: dict[Partition, int] = {}
        consumed: Counter[Partition] = Counter()
        for entry in batch.entries:
            item = entry if isinstance(entry, Rejected) else entry[0]
            times[item.partition] = max(item.received_ms, times.get(item.partition, item.received_ms))
            consumed[item.partition] += 1
        advances = []
        for partition, next_offset in batch.next_offsets.items():
            claim = self._intake.held[partition].claim
            advances.append(
                Advance(
                    partition=partition,
                    epoch=claim.epoch,
                    expected_offset=claim.next_offset,
                    next_offset=next_offset,
                    identity=self._intake.source.identity(partition),
                    time_ms=times[partition],
                    consumed=consumed[partition],
                    rejected=rejected[partition],
                )
            )
        return tuple(advances)

    def _give_up_claims(self, error: Fenced) -> None:
        self.metrics.fenced.inc()
        self._forget_unsaved()
        self._intake.forget(error)

    def _confirm_ends(self) -> None:
        """Asks the log where it ends: for the lag, and to know silence from a backlog."""
        now_s = self.clock_s()
        quiet = self.silence.candidates(now_s)
        if now_s - self._asked_for_ends_s < (_ASK_FOR_ENDS_EVERY_S if quiet else _SHOW_LAG_EVERY_S):
            return
        self._asked_for_ends_s = now_s
        source = self._intake.source
        # Asked first: what the log then says is true for this moment at the least.
        newest_ms = self.ledger.newest_ms()
        try:
            ends, positions = source.end_offsets(), source.positions()
        except SourceUnavailable as error:
            # Without an answer nothing is known to be quiet: time stands still, and nothing fires or resolves.
            log.info("source.silent", reason=str(error))
            return
        for partition, end_offset in ends.items():
            position = positions.get(partition)
            if position is None or partition not in self._intake.held:
                continue
            saved_offset = self._intake.held[partition].claim.next_offset
            self.metrics.set_lag(partition, max(0, end_offset - (position if saved_offset is None else saved_offset)))
            if self.starvation.starves(partition, position, end_offset, now_s):
                raise SourceUnavailable(f"{partition} has records that do not come: the client has stopped fetching")
            # At a turn's end there may be what was read of the partition and is not saved.
            if position >= end_offset and len(self.batcher) == 0 and self._asked is None:
                self.silence.confirm_end(partition, now_s, newest_ms)
        if quiet:
            self.ledger.report([held.claim for held in self._intake.held.values()], self.silence.reports())

    def _lead(self) -> None:
        self._more_to_place = self.leading.turn(self._intake.source.partitions())

    def _look(self, *, now: bool = False) -> None:
        """Renews the picture that metrics and terminal show."""
        now_s = self.clock_s()
        if not now and now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        self.metrics.view = self.viewer.view()

    def _count(self, batch: Batch, advances: Sequence[Advance]) -> None:
        """Tells the metrics, after the commit, what it made true."""
        self.metrics.count_consumed(sum(advance.consumed for advance in advances), [item.reason for item in batch.rejected])
        self.metrics.batch_documents.observe(len(batch.documents))
        self.metrics.batch_tokens.observe(batch.tokens)
        self.metrics.last_commit_seconds.set_to_current_time()
        for document, _ in batch.documents:
            self.metrics.clamped.inc(document.clamped)
            if document.published_ms is not None:
                self.metrics.collection_delay_seconds.observe((document.received_ms - document.published_ms) / 1000)
        log.debug("batch.saved", documents=len(batch.documents), rejected=len(batch.rejected), tokens=batch.tokens)
