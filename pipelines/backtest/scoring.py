"""Records in, scores of all of them kept: the part of a backtest that takes long, by itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

from monitor.batches import Batch, Batcher
from monitor.classifier.protocol import Classifier
from monitor.classifier.text import join
from monitor.config import Settings
from monitor.decode import Decoder
from monitor.types import Document, Passage, Record, Rejected, RejectReason
from monitor.watchlist import WatchList

_RECORDS_AT_ONCE: Final = 2_000


@dataclass(slots=True)
class Scored:
    """What was scored: documents, and records that are none, by reason."""

    documents: int = 0
    rejected: Counter[RejectReason] = field(default_factory=Counter)


def score(
    records: Iterable[Record],
    classifier: Classifier,
    settings: Settings,
    watchlist: WatchList,
    progress: Callable[[int], None],
) -> Scored:
    """Asks the classifier about every record, in batches as the daemon makes them; what is remembered is the classifier's affair.

    `progress` hears how many records were read so far. Raises what the classifier raises.
    """
    batcher = Batcher(settings.batch.max_tokens, settings.batch.max_documents, 0.0)
    decoder = Decoder(settings.documents)
    scored, read = Scored(), 0
    for some in _parts(records):
        entries = [decoder.decode(record, max(record.time_ms, 0)) for record in some]
        documents = [_with_passage(entry, watchlist) for entry in entries if isinstance(entry, Document)]
        scored.documents += len(documents)
        scored.rejected.update(entry.reason for entry in entries if isinstance(entry, Rejected))
        for document, prepared in zip(documents, classifier.prepare([one.passage for one in documents]), strict=True):
            batcher.add((document, prepared), prepared.tokens, 0.0)
        while batcher.full and (batch := batcher.take(0.0)):
            _ask(batch, classifier)
        read += len(some)
        progress(read)
    for batch in batcher.take_all():
        _ask(batch, classifier)
    return scored


def _ask(batch: Batch, classifier: Classifier) -> None:
    classifier.classify([prepared for _, prepared in batch.documents])


def _with_passage(document: Document, watchlist: WatchList) -> Document:
    text = join(document.headline, document.body)
    return replace(document, passage=Passage(text, watchlist.find(text)))


def _parts(records: Iterable[Record]) -> Iterator[list[Record]]:
    rest = iter(records)
    while some := list(islice(rest, _RECORDS_AT_ONCE)):
        yield some
