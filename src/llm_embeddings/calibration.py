"""Ranges of int8 and uint8 when nobody measured them on their own texts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .corpus import load_corpus
from .vectors import Vectors, measure_ranges

if TYPE_CHECKING:
    from .encoder import Encoder

_PASSAGES = 64
_CHARACTERS = 300
_MARGIN = 0.25


def ranges_of(encoder: Encoder, dim: int, normalize: bool) -> Vectors:
    """Stored ranges `[2, dim]`, measured and kept the first time they are needed.

    Measured on titles (as queries) and openings (as documents) of 64 passages in this package, and
    widened by a quarter on both sides: other texts will reach further than these.
    """
    if (dim, normalize) not in encoder.ranges:
        corpus = load_corpus()
        chosen = corpus[:: max(1, len(corpus) // _PASSAGES)][:_PASSAGES]
        queries = [document.title for document in chosen]
        documents = [document.text[:_CHARACTERS] for document in chosen]
        vectors = [
            encoder.encode(queries, "query", normalize=normalize, truncate_dim=dim),
            encoder.encode(documents, "document", normalize=normalize, truncate_dim=dim),
        ]
        encoder.ranges[dim, normalize] = measure_ranges(np.concatenate(vectors), _MARGIN)
    return encoder.ranges[dim, normalize]
