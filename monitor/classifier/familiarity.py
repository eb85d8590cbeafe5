"""Token ids of texts in, how unlike the texts of training each is out: how surprising the rarer half of its tokens is.

The states of an encoder that was trained to tell topics and sentiments apart say little about what it was not trained on: measured
with sentences about sport, films, cooking and the weather, neither the energy of its logits nor distances between its states told
them from news better than chance. Which words a text is made of does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final

import numpy as np
from numpy.typing import NDArray

Surprisals = NDArray[np.float64]
"""-log P of each token of the vocabulary in the texts of training, in nats."""

_SMOOTHING: Final = 0.1
_SPECIAL: Final = 1
"""So many special tokens stand before a row's text, and after it."""


def learn_surprisals(rows: Iterable[Sequence[int]], vocabulary: int) -> Surprisals:
    """The surprisal of each of `vocabulary` tokens in rows of token ids; one that is in no row has been seen a tenth of a time."""
    counts = np.bincount(np.fromiter(chain.from_iterable(rows), dtype=np.int64), minlength=vocabulary) + _SMOOTHING
    learned: Surprisals = np.log(counts.sum()) - np.log(counts)
    return learned


def unfamiliarity(rows: Sequence[Sequence[int]], surprisals: Surprisals) -> NDArray[np.float64]:
    """The mean surprisal of the rarer half of each row's tokens, special tokens left out (rows); infinite for a row without any.

    The half and not all of them: words that every text has tell nothing, and dilute what the others tell.
    """
    texts = [row[_SPECIAL:-_SPECIAL] for row in rows]
    lengths = np.array([len(text) for text in texts], dtype=np.int64)
    found = surprisals[np.fromiter(chain.from_iterable(texts), dtype=np.int64, count=int(lengths.sum()))]
    rising = found[np.lexsort((found, np.repeat(np.arange(len(texts)), lengths)))]
    sums = np.concatenate(([0.0], rising.cumsum()))
    ends, kept = lengths.cumsum(), (lengths + 1) // 2
    means: NDArray[np.float64] = np.divide(sums[ends] - sums[ends - kept], kept, out=np.full(len(texts), np.inf), where=kept > 0)
    return means
