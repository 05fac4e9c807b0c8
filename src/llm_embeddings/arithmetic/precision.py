"""Vectors in fewer bits than float32. NumPy only."""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ..vectors import Vectors

Precision = Literal["float32", "float16", "int8", "uint8", "binary", "ubinary"]
NEEDS_RANGES = ("int8", "uint8")


def check_precision(precision: str) -> None:
    """Raise `ValueError` for a precision that does not exist."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision={precision!r} is not one of {get_args(Precision)}")


def quantize(vectors: Vectors, precision: str, ranges: Vectors | None = None) -> NDArray[Any]:
    """Store vectors in fewer bits, spelled and laid out as in sentence-transformers.

    int8 and uint8 split each dimension's calibrated range in 255 steps and clip what lies outside
    (`sentence_transformers.util.quantize_embeddings` lets it wrap around). binary and ubinary keep
    one sign bit per dimension, packed eight to a byte (int8 with offset -128, and uint8).

    Args:
        vectors: `[n, dim]`, float32.
        precision: One of `Precision`.
        ranges: `[2, dim]`, lowest and highest value per dimension; for int8 and uint8.

    Returns:
        `[n, dim]`, or `[n, ceil(dim / 8)]` for the binary ones.
    """
    if precision == "float32":
        return vectors
    if precision == "float16":
        return vectors.astype(np.float16)
    if precision in NEEDS_RANGES:
        if ranges is None:
            raise ValueError(f"precision={precision!r} needs calibration ranges")
        low, high = ranges
        steps = np.maximum((high - low) / 255, 1e-12)
        levels: Vectors = np.clip(np.floor((vectors - low) / steps), 0, 255)
        if precision == "uint8":
            return levels.astype(np.uint8)
        return (levels - 128).astype(np.int8)
    bits: NDArray[np.uint8] = np.packbits(vectors > 0, axis=-1)
    if precision == "ubinary":
        return bits
    return (bits.astype(np.int16) - 128).astype(np.int8)


def measure_ranges(vectors: Vectors, margin: float = 0.0) -> Vectors:
    """Lowest and highest value per dimension, `[2, dim]`, widened by `margin` of their distance."""
    low, high = vectors.min(0), vectors.max(0)
    return np.stack([low - margin * (high - low), high + margin * (high - low)]).astype(np.float32)
