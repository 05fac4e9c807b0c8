"""Two rankings of the same texts as one: by their vectors and by the words they share."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

SearchMode = Literal["hybrid", "vector", "words"]
_FAR = 3.0  # standard deviations of a cosine that count as one of the words


def fuse(cosines: NDArray[np.float32], words: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores of both kinds in one: the standard score of the words, and that of the vectors cubed.

    A standard score says by how many standard deviations a text is above the mean of all texts that
    are compared. It depends neither on where a model's cosines begin nor on how wide they are
    spread. That of the cosines is divided by 3 and cubed: a text that stands out by its vector
    counts much, and where none does, as in a language that the model does not know, words decide.
    Of n texts none can be more than sqrt(n - 1) deviations out, so that of fewer than ten less is
    asked. `benchmarks/hybrid.py` compares the rule with others.

    Args:
        cosines: Of every text with the query, `[n]`.
        words: BM25 of every text, `[n]`, 0 where it shares no word.

    Returns:
        `[n]`.
    """
    far = min(_FAR, max(1.0, len(cosines) - 1.0) ** 0.5)
    return np.asarray((_standard(cosines) / far) ** 3 + _standard(words))


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
