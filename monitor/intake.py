"""Records of the partitions that are ours in, documents and dead letters in stream time out, read on from where we are saved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from monitor.classifier.text import join
from monitor.decode import Decoder, received_time_ms
from monitor.errors import Fenced
from monitor.sources.protocol import Interruption, Source
from monitor.store.ledger import Advance, Claim, Ledger
from monitor.types import Document, Partition, Passage, Record, Rejected
from monitor.watchlist import WatchList

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Held:
    """A partition that is ours: the claim as it is saved, and the stream time of what was read beyond it."""

    claim: Claim
    time_ms: int | None


@dataclass(frozen=True, slots=True)
class Arrived:
    """What one look at the log brought.

    `assigned` tells the saved stream time of every partition that is ours from now on, when that changed: whatever of other
    partitions, or of these from before, is not saved yet must be dropped. `interruptions` precede the records.
    """

    records: tuple[Record, ...] = ()
    interruptions: tuple[Interruption, ...] = ()
    assigned: Mapping[Partition, int | None] | None = None


@dataclass(slots=True)
class Intake:
    """Claims the partitions that the source assigns, reads them on from their saved positions, decodes what came.

    `wall_ms` is the wall clock in milliseconds; `max_ahead_ms` how far ahead of it a record's time may lie.
    """

    source: Source
    ledger: Ledger
    decoder: Decoder
    watchlist: WatchList
    owner: str
    wall_ms: Callable[[], int]
    max_ahead_ms: int
    held: dict[Partition, Held] = field(default_factory=dict)
    _generation: int | None = None
    _suspect: bool = False

    def read(self, wait_s: float) -> Arrived:
        """The next records, after at most about `wait_s` seconds.

        Raises SourceUnavailable when the source must be opened again, StoreUnavailable when a claim could not be made.
        """
        if self._suspect:
            # We were refused a write: before any new claim the group must have had the chance to tell us that we are out.
            self.source.poll(wait_s)
            self._suspect = False
        assigned = self._claim_what_is_ours()
        polled = self.source.poll(wait_s)
        if self.source.assignment().generation != self._generation:
            # What was polled may belong to another instance by now; the new claims read it again from the saved position.
            return Arrived(assigned=assigned)
        return Arrived(polled.records, polled.interruptions, assigned)

    def decode(self, records: Iterable[Record]) -> list[Document | Rejected]:
        """What the records hold, in their order, in stream time, with the watched entities that each document names."""
        return [self._decode(record) for record in records if record.partition in self.held]

    def record_interruptions(self, interruptions: Iterable[Interruption]) -> None:
        """Saves that the log broke. Everything read before must be saved by now, and nothing after. Raises Fenced."""
        for found in interruptions:
            held = self.held.get(found.partition)
            if held is None:
                continue
            log.warning(
                "source.interrupted",
                partition=str(found.partition),
                kind=str(found.kind),
                expected_offset=found.expected_offset,
                next_offset=found.next_offset,
            )
            held.claim = self.ledger.interrupt(held.claim, found, self.source.identity(found.partition), self.wall_ms())

    def saved(self, advance: Advance) -> None:
        """Remembers how far a batch was saved."""
        held = self.held[advance.partition]
        held.claim = replace(held.claim, next_offset=advance.next_offset, identity=advance.identity, time_ms=advance.time_ms)

    def forget(self, error: Fenced) -> None:
        """Gives all claims up after a refused write; the next read claims afresh what is still ours."""
        log.warning("claim.lost", reason=str(error))
        self.held.clear()
        self._generation = None
        self._suspect = True

    def _claim_what_is_ours(self) -> Mapping[Partition, int | None] | None:
        assignment = self.source.assignment()
        if assignment.generation == self._generation and assignment.partitions == self.held.keys():
            return None
        self.held.clear()
        for partition in sorted(assignment.partitions):
            claim = self.ledger.claim(partition, self.owner)
            self.source.seek(partition, claim.next_offset, claim.identity)
            self.held[partition] = Held(claim, claim.time_ms)
        # Only now: a claim that failed half-way is made again as a whole.
        self._generation = assignment.generation
        if self.held:
            log.info("partitions.claimed", partitions=[str(partition) for partition in sorted(self.held)])
        return {partition: held.time_ms for partition, held in self.held.items()}

    def _decode(self, record: Record) -> Document | Rejected:
        held = self.held[record.partition]
        received_ms, _ = received_time_ms(record.time_ms, held.time_ms, self.wall_ms(), self.max_ahead_ms)
        held.time_ms = received_ms
        decoded = self.decoder.decode(record, received_ms)
        if isinstance(decoded, Rejected):
            return decoded
        text = join(decoded.headline, decoded.body)
        passage = Passage(text, self.watchlist.find(text))
        return replace(decoded, passage=passage, entities=passage.entities)
