"""The passages that score best for each query: by an encoder's cosine, or by BM25."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ...ranking.bm25 import BM25
from ...ranking.nearest import Places, approximate, best, exact
from ...vectors import Vectors

if TYPE_CHECKING:
    from ...encoder import Encoder

WatchMining = Callable[[str, int, int], None]  # "embedded" or "compared", done, of how many

FAISS_FROM = 1_000_000  # passages; below, comparing with each is fast enough, and exact
_IN_MEMORY = 2**30  # bytes of vectors; more are kept in a file that is mapped into memory
_EMBEDDED_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best passages of some queries.

    Attributes:
        places: Their numbers in the corpus, best first, `[queries, depth]`; -1 = no more.
        scores: Their scores, `[queries, depth]`.
        positive: The score of the best of each query's positives, `[queries]`.
    """

    places: Places
    scores: NDArray[np.float32]
    positive: NDArray[np.float32]


def dense(
    encoder: Encoder,
    queries: Vectors,
    corpus: Sequence[str],
    positives: Sequence[Sequence[int]],
    depth: int,
    watch: WatchMining = lambda what, done, total: None,
) -> Candidates:
    """The best passages by cosine.

    From `FAISS_FROM` passages on the search is approximate, through an inverted index.

    Args:
        encoder: Embeds the corpus.
        queries: Unit vectors, `[queries, dim]`, float32.
        corpus: All passages.
        positives: Numbers of each query's positives in the corpus.
        depth: Passages per query.
        watch: Told how far it is.

    Raises:
        ImportError: faiss is needed and missing.
    """
    with tempfile.TemporaryDirectory(prefix="mining-") as folder:
        vectors = _embed(encoder, corpus, Path(folder), watch)
        positive = np.array(
            [max(queries[i] @ vectors[place] for place in own) for i, own in enumerate(positives)],
            np.float32,
        )
        search = exact if len(corpus) < FAISS_FROM else approximate
        count = min(depth, len(corpus))
        places, scores = search(vectors, queries, count, partial(watch, "compared"))
    return Candidates(places, scores, positive)


def lexical(
    queries: Sequence[str],
    corpus: Sequence[str],
    positives: Sequence[Sequence[int]],
    depth: int,
    watch: WatchMining = lambda what, done, total: None,
) -> Candidates:
    """The best passages by BM25, of those that share a word with the query.

    Args:
        queries: Texts.
        corpus: As in `dense`, like the arguments that follow.
        positives: See `dense`.
        depth: See `dense`.
        watch: See `dense`.

    Raises:
        ImportError: bm25s is not installed.
    """
    depth = min(depth, len(corpus))
    index = BM25(corpus)
    places = np.full((len(queries), depth), -1, np.int64)
    scores = np.zeros((len(queries), depth), np.float32)
    positive = np.zeros(len(queries), np.float32)
    for number, query in enumerate(queries):
        found = index.scores(query)
        ranked = best(found[None], depth)[0]
        ranked = ranked[found[ranked] > 0]
        places[number, : len(ranked)] = ranked
        scores[number, : len(ranked)] = found[ranked]
        positive[number] = max(found[place] for place in positives[number])
        watch("compared", number + 1, len(queries))
    return Candidates(places, scores, positive)


def _embed(encoder: Encoder, corpus: Sequence[str], folder: Path, watch: WatchMining) -> Vectors:
    """Unit vectors of all passages, `[n, dim]`; large ones in a file in `folder`."""
    shape = len(corpus), encoder.dimension
    vectors: Vectors
    if math.prod(shape) * 4 <= _IN_MEMORY:
        vectors = np.empty(shape, np.float32)
    else:
        vectors = np.memmap(folder / "vectors", np.float32, "w+", shape=shape)
    for start in range(0, len(corpus), _EMBEDDED_AT_ONCE):
        texts = list(corpus[start : start + _EMBEDDED_AT_ONCE])
        vectors[start : start + len(texts)] = encoder.encode_document(texts, normalize=True)
        watch("embedded", start + len(texts), len(corpus))
    return vectors
