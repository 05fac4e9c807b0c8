"""The nearest of many vectors: a matrix product, or FAISS where it is asked for."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..vectors import Vectors

Places = NDArray[np.int64]


def check_faiss(factory: str | None) -> None:
    """Raise `ImportError` if FAISS is asked for and not installed."""
    if factory is not None and importlib.util.find_spec("faiss") is None:
        raise ImportError(f"faiss={factory!r} needs FAISS: pip install faiss-cpu")


class Nearest:
    """Search over unit vectors by their inner product."""

    def __init__(self, matrix: Vectors, factory: str | None = None) -> None:
        """Take vectors.

        Args:
            matrix: `[n, dim]`, float32.
            factory: None = exact; else for `faiss.index_factory`.

        Raises:
            ValueError: FAISS knows no such index, or cannot train it on so few vectors.
        """
        self._matrix, self._faiss = matrix, None
        if factory is not None and len(matrix):
            self._faiss = _faiss_index(matrix, factory)

    def __call__(self, queries: Vectors, k: int) -> Iterator[tuple[Vectors, Places]]:
        """Scores and places of the nearest `k` to each query `[n, dim]`, best first."""
        k = min(k, len(self._matrix))
        if self._faiss is not None:
            for scores, places in zip(*self._faiss.search(queries, k), strict=True):
                found = places >= 0  # approximate indexes may find fewer
                yield scores[found], places[found]
            return
        for scores in queries @ self._matrix.T:
            best = np.argpartition(-scores, k - 1)[:k] if k else np.empty(0, np.int64)
            best = best[np.lexsort((best, -scores[best]))]
            yield scores[best], best


def _faiss_index(matrix: Vectors, factory: str) -> Any:
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
