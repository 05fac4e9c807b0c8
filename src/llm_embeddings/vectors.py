"""Vectors: their length, their dimension, how alike two are. NumPy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class TokenVectors:
    """Vectors of the tokens of one text.

    Attributes:
        vectors: `[tokens, dim]`, float32: hidden states after the final norm, not normalised.
        offsets: `[tokens, 2]`, int64: character range of each token in the text.
    """

    vectors: Vectors
    offsets: NDArray[np.int64]


def finish(vectors: Vectors, *, normalize: bool, truncate_dim: int | None) -> Vectors:
    """Truncate to the first dimensions, then scale to unit L2 length if wanted.

    Normalising comes last, so truncated vectors are of unit length too (Matryoshka, arXiv
    2205.13147). A zero vector stays zero.
    """
    vectors = vectors[:, :truncate_dim]
    if normalize:
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = vectors / np.maximum(norms, 1e-12)
    return np.ascontiguousarray(vectors, dtype=np.float32)


def cosine(a: Any, b: Any) -> Vectors:
    """Cosine similarity `[n, m]` of the rows of `a` and `b`, in float32; one vector is one row."""
    left, right = (
        finish(
            np.atleast_2d(np.asarray(x.cpu() if hasattr(x, "cpu") else x, np.float32)),
            normalize=True,
            truncate_dim=None,
        )
        for x in (a, b)
    )
    if left.shape[1] != right.shape[1]:
        raise ValueError(
            f"vectors of {left.shape[1]} and {right.shape[1]} dimensions do not compare"
        )
    return left @ right.T
