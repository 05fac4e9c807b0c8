"""What is found in an index of documents: by vectors, by words, or by both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..ranking.fusion import SearchMode, fuse
from ..ranking.nearest import Nearest, best
from ..vectors import Vectors
from .documents import Document
from .table import Table


@dataclass(frozen=True, slots=True)
class Hit(Document):
    """A document that was found.

    Attributes:
        score: What it is ranked by: cosine similarity with the query, BM25, or both in one
            (`ranking.fusion.fuse`).
        cosine: Cosine similarity with the query; None if only words rank.
        words: BM25; None if only vectors rank.
    """

    score: float = 0.0
    cosine: float | None = None
    words: float | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The documents of an index at one time.

    Attributes:
        numbers: Their numbers in the table, ascending, `[n]`.
        vectors: `[n, dim]`, float32.
        nearest: Finds among the vectors.
    """

    numbers: NDArray[np.int64]
    vectors: Vectors
    nearest: Nearest

    def by_vectors(self, table: Table, queries: Vectors, k: int) -> Iterator[list[Hit]]:
        """For each query `[queries, dim]` the `k` nearest documents, best first."""
        for scores, places in self.nearest(queries, k):
            values = [(score, score, None) for score in scores.tolist()]
            yield self._hits(table, places.tolist(), values)

    def by_words(self, table: Table, query: str, vector: Vectors | None, k: int) -> list[Hit]:
        """The `k` best documents by their words, and by their vectors if one `[dim]` is given."""
        words = table.words(query, self.numbers)
        cosines = None if vector is None else self.vectors @ vector
        scores = words if cosines is None else fuse(cosines, words)
        places = best(scores[None], min(k, len(scores)))[0].tolist()
        if cosines is None:
            places = [place for place in places if scores[place] > 0]
        values: list[tuple[float, float | None, float | None]] = [
            (
                float(scores[place]),
                None if cosines is None else float(cosines[place]),
                float(words[place]),
            )
            for place in places
        ]
        return self._hits(table, places, values)

    def _hits(
        self,
        table: Table,
        places: list[int],
        values: Sequence[tuple[float, float | None, float | None]],
    ) -> list[Hit]:
        """Hits at places; those that another thread has just deleted are passed over."""
        numbers = [int(self.numbers[place]) for place in places]
        there = table.at(numbers)
        found = []
        for number, scores in zip(numbers, values, strict=True):
            if (one := there.get(number)) is not None:
                found.append(Hit(one.id, one.text, one.metadata, *scores))
        return found


def check_mode(mode: SearchMode | None, *, approximate: bool) -> SearchMode:
    """What ranks documents, if nobody says: words and vectors, or vectors if FAISS finds them.

    Raises:
        ValueError: an unknown mode, or "hybrid" with FAISS.
    """
    if mode is None:
        return "vector" if approximate else "hybrid"
    if mode not in ("hybrid", "vector", "words"):
        raise ValueError(f'mode={mode!r} is none of "hybrid", "vector" and "words"')
    if mode == "hybrid" and approximate:
        raise ValueError(
            'mode="hybrid" compares a query with every vector, which an index with faiss does not: '
            'use "vector" or "words", or an index without faiss'
        )
    return mode
