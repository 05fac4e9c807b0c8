"""Two rankings of the same texts as one: by their vectors and by the words they share."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

SearchMode = Literal["hybrid", "vector", "words"]
_VECTOR, _WORDS = 0.4, 0.6


def fuse(cosines: NDArray[np.float32], words: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of both kinds in one: the weighted sum of their standard scores.

    A standard score says by how many standard deviations a text is above the mean of all texts that
    are compared. It depends neither on where a model's cosines begin nor on how wide they are
    spread, and the kind that tells texts apart better counts more: where no text stands out by its
    vector, as in a language that the model does not know, words decide, and the other way round.
    The weights are the same for all; `benchmarks/hybrid.py` compares them with other rules.

    Args:
        cosines: Of every text with the query, `[n]`.
        words: BM25 of every text, `[n]`, 0 where it shares no word.

    Returns:
        `[n]`.
    """
    return _VECTOR * _standard(cosines) + _WORDS * _standard(words)


def _standard(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean 0 and deviation 1; all 0 where all are equal."""
    if not len(scores):
        return scores
    found = scores.astype(np.float64)
    found -= found.mean()
    deviation = found.std()
    # Equal scores have a deviation that is nothing but rounding.
    if deviation <= 1e-7 * max(1.0, float(np.abs(scores).max())):
        return np.zeros(len(scores), np.float32)
    return np.asarray(found / deviation, np.float32)
