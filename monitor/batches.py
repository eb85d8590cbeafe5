"""Single entries in, batches out: full when heavy enough, numerous enough or old enough."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from monitor.classifier.protocol import Prepared
from monitor.types import Document, Partition, Rejected

Entry: TypeAlias = Rejected | tuple[Document, Prepared]
"""A dead letter, or a document that is ready for the encoder."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What is classified and saved together, in the order of arrival. `tokens` is its weight."""

    entries: tuple[Entry, ...]
    tokens: int

    @property
    def documents(self) -> tuple[tuple[Document, Prepared], ...]:
        """The documents, ready for the encoder."""
        return tuple(entry for entry in self.entries if not isinstance(entry, Rejected))

    @property
    def rejected(self) -> tuple[Rejected, ...]:
        """The dead letters."""
        return tuple(entry for entry in self.entries if isinstance(entry, Rejected))

    @property
    def next_offsets(self) -> Mapping[Partition, int]:
        """Where reading goes on in each partition once the batch is saved."""
        positions = (_position(entry) for entry in self.entries)
        return {position.partition: position.next_offset for position in positions}


@dataclass(frozen=True, slots=True)
class _Waiting:
    entry: Entry
    tokens: int
    since_s: float


class Batcher:
    """A queue of entries that knows when it is worth taking from.

    An entry is never split, and order is kept. Times are monotonic seconds and do not go back.
    """

    def __init__(self, max_tokens: int, max_documents: int, max_wait_s: float) -> None:
        self._max_tokens = max_tokens
        self._max_documents = max_documents
        self._max_wait_s = max_wait_s
        self._waiting: deque[_Waiting] = deque()
        self._tokens = 0

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether what waits is as much as a batch may hold, or more."""
        return self._tokens >= self._max_tokens or len(self._waiting) >= self._max_documents

    def add(self, entry: Entry, tokens: int, now_s: float) -> None:
        """Queues an entry of this weight (a dead letter weighs 0)."""
        self._waiting.append(_Waiting(entry, tokens, now_s))
        self._tokens += tokens

    def take(self, now_s: float) -> Batch | None:
        """The next batch if one is due; call again until there is none.

        It is due when the queue holds `max_tokens` or `max_documents`, or its oldest entry is `max_wait_s` old. A batch weighs no
        more than `max_tokens`, unless it is a single entry that does.
        """
        remaining_s = self.remaining_s(now_s)
        return self._next() if remaining_s is not None and remaining_s <= 0 else None

    def remaining_s(self, now_s: float) -> float | None:
        """Seconds until a batch is due, 0 if one is; None while the queue is empty."""
        if not self._waiting:
            return None
        if self.full:
            return 0.0
        return max(0.0, self._waiting[0].since_s + self._max_wait_s - now_s)

    def take_all(self) -> tuple[Batch, ...]:
        """Everything that waits, due or not, in batches within the limits."""
        batches = []
        while self._waiting:
            batches.append(self._next())
        return tuple(batches)

    def drop(self, partitions: Collection[Partition]) -> int:
        """Forgets the entries of partitions that are no longer ours; how many they were."""
        kept = deque(item for item in self._waiting if _position(item.entry).partition not in partitions)
        dropped = len(self._waiting) - len(kept)
        self._waiting = kept
        self._tokens = sum(item.tokens for item in kept)
        return dropped

    def _next(self) -> Batch:
        entries = [self._waiting[0].entry]
        tokens = self._waiting.popleft().tokens
        while self._waiting and len(entries) < self._max_documents and tokens + self._waiting[0].tokens <= self._max_tokens:
            item = self._waiting.popleft()
            entries.append(item.entry)
            tokens += item.tokens
        self._tokens -= tokens
        return Batch(tuple(entries), tokens)


def _position(entry: Entry) -> Document | Rejected:
    return entry if isinstance(entry, Rejected) else entry[0]
