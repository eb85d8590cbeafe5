"""Documents and predictions in, scored documents out: all that is kept of a text once it is judged."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final

from monitor.fingerprints import fingerprints, normalise
from monitor.severe_events import shipped_events
from monitor.types import Document, Prediction, Scored

_HEADLINE_CHARACTERS: Final = 400


def score(documents: Sequence[Document], predictions: Sequence[Prediction], model: str) -> list[Scored]:
    """One scored document for each document and its prediction, in order; `model` is the version that predicted."""
    events = shipped_events()
    prints = fingerprints([normalise(document.headline, document.body, document.source) for document in documents])
    return [
        Scored(
            partition=document.partition,
            offset=document.offset,
            received_ms=document.received_ms,
            document_key=document_key(document.uri, document.version),
            uri=document.uri,
            version=document.version,
            source=document.source,
            language=document.language,
            status=document.status,
            published_ms=document.published_ms,
            stale=document.stale,
            headline=(document.headline or document.body)[:_HEADLINE_CHARACTERS],
            topic=prediction.topic,
            stance=prediction.document.stance,
            toward=tuple((entity, prediction.opinion(entity).stance) for entity in dict.fromkeys(document.entities)),
            shingles=own.shingles,
            keys=own.keys,
            model=model,
            events=events.tell(document.passage, prediction),
        )
        for document, prediction, own in zip(documents, predictions, prints, strict=True)
    ]


def document_key(uri: str, version: str) -> int:
    """63 bits that name a document by its uri and version. The first document's key names the story."""
    name = f"{len(uri)}:{uri}{version}".encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(name, digest_size=8).digest()) >> 1
