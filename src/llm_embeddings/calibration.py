"""Measured on passages of this package: ranges of int8 vectors, closeness of quantised ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .corpus import load_corpus
from .vectors import Vectors, measure_ranges

if TYPE_CHECKING:
    from .encoder import Encoder
    from .inputs import Quantization

_PASSAGES = 64
_CHARACTERS = 300
_MARGIN = 0.25


def ranges_of(encoder: Encoder, dim: int, normalize: bool) -> Vectors:
    """Stored ranges `[2, dim]`, measured and kept the first time they are needed.

    Measured on titles (as queries) and openings (as documents) of 64 passages in this package, and
    widened by a quarter on both sides: other texts will reach further than these.
    """
    if (dim, normalize) not in encoder.ranges:
        vectors = _sample(encoder, normalize=normalize, truncate_dim=dim)
        encoder.ranges[dim, normalize] = measure_ranges(vectors, _MARGIN)
    return encoder.ranges[dim, normalize]


def quantized(encoder: Encoder, kind: Quantization) -> Encoder:
    """An encoder that computes in `kind`; it takes over the backbone, and the given one is closed.

    Its `quantization_cosine` is the lowest cosine on the sample between vectors before and after.

    Raises:
        ValueError: the device or the backbone cannot be quantized so.
        ImportError: torchao is missing (CUDA).
        RuntimeError: there is no working C++ compiler (CPU).
    """
    from .arithmetic.prepacking import prepack
    from .arithmetic.quantization import quantize, sample_cosine

    before = _sample(encoder)
    encoder.close()
    quantize(encoder.backbone, kind)
    prepack(encoder.backbone)  # what it left
    found = type(encoder)(encoder.backbone, encoder.tokenizer, encoder.recipe)
    found.ranges = encoder.ranges
    found.quantization_cosine = sample_cosine(before, _sample(found))
    return found


def _sample(encoder: Encoder, **options: Any) -> Vectors:
    """Vectors of titles (as queries) and openings (as documents) of 64 passages."""
    corpus = load_corpus()
    chosen = corpus[:: max(1, len(corpus) // _PASSAGES)][:_PASSAGES]
    queries = encoder.encode([document.title for document in chosen], "query", **options)
    openings = [document.text[:_CHARACTERS] for document in chosen]
    found: Vectors = np.concatenate([queries, encoder.encode(openings, "document", **options)])
    return found
