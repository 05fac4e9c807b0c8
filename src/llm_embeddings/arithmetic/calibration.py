"""Measured on passages of this package: ranges of int8 vectors, closeness of quantised ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..corpus import load_corpus
from ..vectors import Vectors
from .precision import measure_ranges

_PASSAGES = 64
_CHARACTERS = 300
_MARGIN = 0.25

Encode = Callable[..., Any]  # `Encoder.encode`


def sample(encode: Encode, **options: Any) -> Vectors:
    """Vectors `[128, dim]` of titles (as queries) and openings (as documents) of 64 passages."""
    corpus = load_corpus()
    chosen = corpus[:: max(1, len(corpus) // _PASSAGES)][:_PASSAGES]
    queries = encode([document.title for document in chosen], "query", **options)
    openings = [document.text[:_CHARACTERS] for document in chosen]
    found: Vectors = np.concatenate([queries, encode(openings, "document", **options)])
    return found


def default_ranges(encode: Encode, dim: int, normalize: bool) -> Vectors:
    """Ranges `[2, dim]` of int8 and uint8 where nobody has calibrated them.

    The sample's, widened by a quarter on both sides: other texts will reach further than these.
    """
    return measure_ranges(sample(encode, normalize=normalize, truncate_dim=dim), _MARGIN)
