"""The nearest of many vectors: by comparing with each, or approximately, by FAISS."""

from __future__ import annotations

import importlib
import importlib.util
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..faces import require
from ..vectors import Vectors

Places = NDArray[np.int64]
Watch = Callable[[int, int], None]  # vectors compared, of how many

_SCORED_AT_ONCE, _QUERIES_AT_ONCE = 16_384, 512
_PROBES, _TRAINED_PER_CELL = 32, 64


def check_faiss(factory: str | None) -> None:
    """Check that FAISS is there if it is asked for.

    Raises:
        ImportError: it is not installed.
    """
    if factory is not None and importlib.util.find_spec("faiss") is None:
        raise ImportError(f"faiss={factory!r} needs FAISS: pip install faiss-cpu")


def best(scores: NDArray[np.float32], count: int) -> Places:
    """Columns of the `count` highest scores of each row, best first, equal ones by their order.

    Args:
        scores: `[rows, columns]`.
        count: At most the number of columns.

    Returns:
        `[rows, count]`, int64.
    """
    if count < scores.shape[1]:
        columns = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        columns.sort(axis=1)
    else:
        columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1).astype(np.int64)


def exact(
    vectors: Vectors, queries: Vectors, count: int, watch: Watch
) -> tuple[Places, NDArray[np.float32]]:
    """The vectors with the highest inner products, found by comparing with each.

    Compares with a part of the vectors at a time, so that they may be a file mapped into memory.

    Args:
        vectors: `[n, dim]`.
        queries: `[queries, dim]`.
        count: Vectors per query, at most `n`.
        watch: Told how far it is.

    Returns:
        Places and scores, `[queries, count]` each, best first.
    """
    places = np.full((len(queries), count), -1, np.int64)
    scores = np.full((len(queries), count), -np.inf, np.float32)
    for first in range(0, len(vectors), _SCORED_AT_ONCE):
        part = vectors[first : first + _SCORED_AT_ONCE]
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = slice(start, start + _QUERIES_AT_ONCE)
            products = queries[block] @ part.T
            fresh = best(products, min(count, len(part)))
            merged = np.hstack([scores[block], np.take_along_axis(products, fresh, axis=1)])
            numbers = np.hstack([places[block], fresh + first])
            order = best(merged, count)
            scores[block] = np.take_along_axis(merged, order, axis=1)
            places[block] = np.take_along_axis(numbers, order, axis=1)
        watch(first + len(part), len(vectors))
    return places, scores


def approximate(
    vectors: Vectors, queries: Vectors, count: int, watch: Watch
) -> tuple[Places, NDArray[np.float32]]:
    """Like `exact`, by FAISS: an inverted index of half-precision vectors, a few cells searched.

    Returns:
        As `exact`; -1 is the place where fewer were found.

    Raises:
        ImportError: faiss is not installed.
    """
    faiss = require("faiss", f"{len(vectors):,} passages need faiss", extra="synth")
    cells = round(4 * math.sqrt(len(vectors)))
    index: Any = faiss.index_factory(
        vectors.shape[1], f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT
    )
    step = max(1, len(vectors) // (cells * _TRAINED_PER_CELL))
    index.train(np.ascontiguousarray(vectors[::step]))
    for start in range(0, len(vectors), _SCORED_AT_ONCE):
        index.add(np.ascontiguousarray(vectors[start : start + _SCORED_AT_ONCE]))
    index.nprobe = _PROBES
    scores, places = index.search(queries, count)
    watch(len(vectors), len(vectors))
    return places.astype(np.int64), scores.astype(np.float32)


class Nearest:
    """An index of unit vectors, searched by inner product: exactly, or by a FAISS index."""

    def __init__(self, matrix: Vectors, factory: str | None = None) -> None:
        """Index vectors.

        Args:
            matrix: `[n, dim]`, float32.
            factory: Description of the index for `faiss.index_factory`; None = exact search.

        Raises:
            ValueError: FAISS knows no such index, or cannot train it on so few vectors.
        """
        self._matrix, self._faiss = matrix, None
        if factory is not None and len(matrix):
            self._faiss = _faiss_index(matrix, factory)

    def __call__(self, queries: Vectors, k: int) -> Iterator[tuple[Vectors, Places]]:
        """Find the `k` nearest vectors of each query.

        Args:
            queries: `[queries, dim]`, float32.
            k: How many for each.

        Yields:
            For each query, scores and places of the nearest, best first; fewer than `k` if there
            are not as many, or an approximate index finds fewer.
        """
        k = min(k, len(self._matrix))
        if self._faiss is not None:
            for scores, places in zip(*self._faiss.search(queries, k), strict=True):
                found = places >= 0
                yield scores[found], places[found]
            return
        for scores in queries @ self._matrix.T:
            places = best(scores[None], k)[0] if k else np.empty(0, np.int64)
            yield scores[places], places


def _faiss_index(matrix: Vectors, factory: str) -> Any:
    """A FAISS index of the vectors `[n, dim]`, trained if its kind needs that."""
    faiss = importlib.import_module("faiss")
    matrix = np.ascontiguousarray(matrix)
    try:
        index = faiss.index_factory(matrix.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(matrix)
        index.add(matrix)
    except RuntimeError as error:
        raise ValueError(f"FAISS cannot make faiss={factory!r} of {len(matrix)} vectors") from error
    return index
