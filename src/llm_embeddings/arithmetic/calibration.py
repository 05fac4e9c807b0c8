"""Measured on passages of this package: ranges of int8 vectors, closeness of quantised ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..corpus import load_corpus
from ..vectors import Vectors
from .precision import measure_ranges

_PASSAGES = 64
_FEWEST, _MOST_WORK = 4, 2**34  # passages, and passages times weights
_CHARACTERS = 300
_MARGIN = 0.25

Encode = Callable[..., Any]  # `Encoder.encode`


def sample(encode: Encode, passages: int = _PASSAGES, **options: Any) -> Vectors:
    """Vectors `[2 * passages, dim]` of titles (as queries) and openings (as documents)."""
    corpus = load_corpus()
    chosen = corpus[:: max(1, len(corpus) // passages)][:passages]
    queries = encode([document.title for document in chosen], "query", **options)
    openings = [document.text[:_CHARACTERS] for document in chosen]
    found: Vectors = np.concatenate([queries, encode(openings, "document", **options)])
    return found


def passages_for(weights: int) -> int:
    """How many passages show what quantising does to so many weights: fewer where each costs more.

    64 up to 270 million, 4 from 4.3 billion.
    """
    return min(_PASSAGES, max(_FEWEST, _MOST_WORK // weights))


def default_ranges(encode: Encode, dim: int, normalize: bool) -> Vectors:
    """Ranges `[2, dim]` of int8 and uint8 where nobody has calibrated them.

    The sample's, widened by a quarter on both sides: other texts will reach further than these.
    """
    return measure_ranges(sample(encode, normalize=normalize, truncate_dim=dim), _MARGIN)
