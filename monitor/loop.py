"""The whole path once around: records become documents, scores, stories, counts, one transaction, and then judgement."""

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
from monitor.buckets import fold
from monitor.classifier.protocol import Accountable, Classifier
from monitor.classifying import Answers, Classifying
from monitor.errors import Fenced, SourceUnavailable, StoreUnavailable
from monitor.intake import Intake
from monitor.judging import Judging
from monitor.metrics import Balance, Metrics
from monitor.store.ledger import Advance, Ledger, Saving
from monitor.stories import Placement, Standing, Stories
from monitor.types import Bucket, Document, Partition, Rejected, Scored
from monitor.view import Viewer
from monitor.watermark import Watermark
from monitor.windows import Windows

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
    `windows_reach_ms` and `stories_reach_ms` are how far back memory keeps minutes and stories. `clock_s` is monotonic. `stop` ends
    the wait for a database.
    """

    open_intake: Callable[[], Intake]
    batcher: Batcher
    classifier: Classifier
    stories: Stories
    windows: Windows
    watermark: Watermark
    ledger: Ledger
    judging: Judging
    viewer: Viewer
    metrics: Metrics
    windows_reach_ms: int
    stories_reach_ms: int
    stop: threading.Event
    clock_s: Callable[[], float] = time.monotonic
    intake: Intake | None = None
    turned_s: float = field(default_factory=time.monotonic)
    _classifying: Classifying = field(init=False)
    _asked: _Asked | None = None
    _asked_for_ends_s: float = float("-inf")
    _looked_s: float = float("-inf")

    def __post_init__(self) -> None:
        self._classifying = Classifying(self.classifier)
        if isinstance(self.classifier, Accountable):
            self.metrics.set_engine(self.classifier.engine)

    def restore(self) -> None:
        """Rebuilds from the store what memory holds: windows, the index of stories, how far rules were judged."""
        newest_ms = self.ledger.newest_ms()
        self.judging.restore()
        if newest_ms is None:
            return
        begin_ms = newest_ms if self.judging.evaluated_until_ms is None else min(newest_ms, self.judging.evaluated_until_ms)
        self.windows.add(self.ledger.buckets(begin_ms - self.windows_reach_ms))
        self.stories.restore(self.ledger.story_keys(newest_ms - self.stories_reach_ms))

    @contextmanager
    def opened(self) -> Iterator[None]:
        """The source, open while the context lasts. Raises SourceUnavailable when it cannot be opened."""
        self._forget_unsaved()
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
        self.beat()
        try:
            self._take_in()
            self._process_due()
        except Fenced as error:
            self._give_up_claims(error)
        self._confirm_ends()
        self._judge()
        self._look()

    def drain(self) -> None:
        """Processes what was read, without waiting for a batch to fill."""
        try:
            self._process_all()
        except Fenced as error:
            self._give_up_claims(error)
        self._judge()
        self._look(now=True)

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
            with self._timed("poll"):
                arrived = self._intake.read(self._wait_s())
        except StoreUnavailable:
            # The claims are gone, and new ones could not be made: what was read under them is read again.
            self._forget_unsaved()
            raise
        if arrived.assigned is not None:
            # What was read under earlier claims and is not saved is read again under the new ones.
            self._forget_unsaved()
            self.watermark.assign(arrived.assigned)
        if arrived.interruptions:
            self._process_all()
            self._intake.record_interruptions(arrived.interruptions)
            for found in arrived.interruptions:
                self.metrics.interruptions.labels(found.kind).inc()
        with self._timed("decode"):
            entries = self._intake.decode(arrived.records)
        self._collect(entries)

    def _wait_s(self) -> float:
        if self._asked is not None:
            return _POLL_WHILE_CLASSIFYING_S
        remaining_s = self.batcher.remaining_s(self.clock_s())
        return _POLL_S if remaining_s is None else min(_POLL_S, max(0.0, remaining_s))

    def _collect(self, entries: Sequence[Document | Rejected]) -> None:
        """Tokenises what arrived and lays it into the batcher."""
        documents = [entry for entry in entries if isinstance(entry, Document)]
        with self._timed("prepare"):
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
        self._asked = _Asked(batch, self._classifying.ask([prepared for _, prepared in batch.documents]))

    def _finish(self) -> None:
        """Waits for the batch that the classifier has, and saves it in one transaction.

        Raises Fenced or StoreUnavailable: then nothing of it was saved, and nothing that was read after it may be; and what the
        classifier raised.
        """
        if self._asked is None:
            return
        batch = self._asked.batch
        with self._timed("classify"):
            predictions = self._asked.answers.result()
        self._asked = None
        if isinstance(self.classifier, Accountable):
            self.metrics.count_effort(self.classifier.effort())
        scored = [Scored(document, prediction) for (document, _), prediction in zip(batch.documents, predictions, strict=True)]
        try:
            placement, buckets, advances = self._save_patiently(batch, scored)
        except StoreUnavailable:
            self._forget_unsaved()
            raise
        self.stories.accept(placement)
        self.windows.add(buckets)
        for advance in advances:
            self._intake.saved(advance)
            self.watermark.observe(advance.partition, advance.time_ms, self.clock_s())
        self._intake.source.hint({advance.partition: advance.next_offset for advance in advances})
        self._count(batch, placement, advances)

    def _forget_unsaved(self) -> None:
        """Lets go of everything that was read and not saved; whoever has the claims reads it again."""
        self.batcher.take_all()
        if self._asked is not None:
            self._asked.answers.result()
            self._asked = None

    def _save_patiently(self, batch: Batch, scored: Sequence[Scored]) -> tuple[Placement, Sequence[Bucket], Sequence[Advance]]:
        """Places and saves; while the database does not answer, waits with the source paused, so that the group keeps us."""
        source, paused = self._intake.source, False
        try:
            while True:
                try:
                    return self._save(batch, scored)
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

    def _save(self, batch: Batch, scored: Sequence[Scored]) -> tuple[Placement, Sequence[Bucket], Sequence[Advance]]:
        with self._timed("place"):
            placement = self.stories.place(scored)
            buckets = fold(placement)
            advances = self._advances(batch, placement)
        with self._timed("save"):
            self.ledger.save(Saving(advances, placement, buckets, batch.rejected, self.classifier.version))
        return placement, buckets, advances

    def _advances(self, batch: Batch, placement: Placement) -> tuple[Advance, ...]:
        """How far the batch takes each of its partitions, and what became of the records on the way."""
        standings = Counter((item.scored.document.partition, item.standing) for item in placement.placed)
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
                    counted=standings[partition, Standing.STORY] + standings[partition, Standing.COPY],
                    stale=standings[partition, Standing.STALE],
                    duplicate=standings[partition, Standing.DUPLICATE],
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
        quiet = self.watermark.quiet_candidates(now_s)
        if now_s - self._asked_for_ends_s < (_ASK_FOR_ENDS_EVERY_S if quiet else _SHOW_LAG_EVERY_S):
            return
        self._asked_for_ends_s = now_s
        source = self._intake.source
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
            # At a turn's end there may be what was read of the partition and is not saved.
            if position >= end_offset and len(self.batcher) == 0 and self._asked is None:
                self.watermark.confirm_end(partition, now_s)

    def _judge(self) -> None:
        watermark_ms = self.watermark.value_ms()
        if watermark_ms is None:
            return
        with self._timed("judge"):
            self.judging.advance(watermark_ms)
        if self.judging.evaluated_until_ms is not None:
            self.metrics.watermark_seconds.set(self.judging.evaluated_until_ms / 1000)

    def _look(self, *, now: bool = False) -> None:
        """Renews the picture that metrics and terminal show, and lets go of what memory no longer needs."""
        now_s = self.clock_s()
        if not now and now_s - self._looked_s < _LOOK_EVERY_S:
            return
        self._looked_s = now_s
        self.metrics.view = self.viewer.view()
        if self.judging.evaluated_until_ms is not None:
            self.windows.forget_before(self.judging.evaluated_until_ms - self.windows_reach_ms)
            self.stories.forget_before(self.judging.evaluated_until_ms - self.stories_reach_ms)

    def _count(self, batch: Batch, placement: Placement, advances: Sequence[Advance]) -> None:
        """Tells the metrics, after the commit, what it made true."""
        before = self.metrics.balance
        standings = Counter(item.standing for item in placement.placed)
        reasons = Counter(before.rejected)
        reasons.update(item.reason for item in batch.rejected)
        self.metrics.balance = Balance(
            consumed=before.consumed + sum(advance.consumed for advance in advances),
            stories=before.stories + standings[Standing.STORY],
            copies=before.copies + standings[Standing.COPY],
            stale=before.stale + standings[Standing.STALE],
            duplicate=before.duplicate + standings[Standing.DUPLICATE],
            rejected=reasons,
        )
        self.metrics.batch_documents.observe(len(batch.documents))
        self.metrics.batch_tokens.observe(batch.tokens)
        self.metrics.last_commit_seconds.set_to_current_time()
        judged_ms = self.judging.evaluated_until_ms or 0
        for document, _ in batch.documents:
            self.metrics.clamped.inc(document.clamped)
            self.metrics.late.inc(document.received_ms < judged_ms)
            if document.published_ms is not None:
                self.metrics.collection_delay_seconds.observe((document.received_ms - document.published_ms) / 1000)
        log.debug("batch.saved", documents=len(batch.documents), rejected=len(batch.rejected), tokens=batch.tokens)

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        began_s = time.perf_counter()
        try:
            yield
        finally:
            self.metrics.stage_seconds.labels(stage).inc(time.perf_counter() - began_s)
