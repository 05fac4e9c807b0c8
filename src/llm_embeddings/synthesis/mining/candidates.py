"""The passages that score best for each query: by an encoder's cosine, or by BM25."""

from __future__ import annotations

import math
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ...encoder import Encoder

Floats = NDArray[np.float32]
Places = NDArray[np.int64]
Watch = Callable[[str, int, int], None]  # what is done, how many, of how many

FAISS_FROM = 1_000_000  # passages; below, comparing with each is fast enough, and exact
_IN_MEMORY = 2**30  # bytes of vectors; more lie in a file, of which memory holds what it likes
_EMBEDDED_AT_ONCE, _SCORED_AT_ONCE, _QUERIES_AT_ONCE = 4096, 16_384, 512
_PROBES, _TRAINED_PER_CELL = 32, 64
_TOKEN = re.compile(r"\w+")
# Scripts without spaces between words: their tokens are pairs of characters.
_UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff]+")


@dataclass(frozen=True, slots=True)
class Candidates:
    """The best passages of some queries.

    Attributes:
        places: Their numbers in the corpus, best first, `[queries, depth]`; -1 = no more.
        scores: Their scores, likewise.
        positive: The score of the best of each query's positives, `[queries]`.
    """

    places: Places
    scores: Floats
    positive: Floats


def dense(
    encoder: Encoder,
    queries: Floats,
    corpus: Sequence[str],
    positives: Sequence[Sequence[int]],
    depth: int,
    watch: Watch = lambda what, done, total: None,
) -> Candidates:
    """By cosine; from `FAISS_FROM` passages on through an inverted index, which is approximate.

    Args:
        encoder: Embeds the corpus.
        queries: Unit vectors, `[queries, dimension]` float32.
        corpus: All passages.
        positives: Numbers of each query's positives.
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
        search = _exact if len(corpus) < FAISS_FROM else _faiss
        places, scores = search(vectors, queries, min(depth, len(corpus)), watch)
    return Candidates(places, scores, positive)


def bm25(
    queries: Sequence[str],
    corpus: Sequence[str],
    positives: Sequence[Sequence[int]],
    depth: int,
    watch: Watch = lambda what, done, total: None,
) -> Candidates:
    """By BM25 (Lucene's variant, k1 1.5, b 0.75); see `dense`.

    Raises:
        ImportError: bm25s is not installed.
    """
    try:
        import bm25s
    except ImportError as error:
        raise ImportError("BM25 needs bm25s: pip install 'llm-embeddings[synth]'") from error
    depth = min(depth, len(corpus))
    known: dict[str, int] = {}
    ids = [[known.setdefault(word, len(known)) for word in words(text)] for text in corpus]
    retriever: Any = bm25s.BM25(method="lucene", k1=1.5, b=0.75)
    retriever.index(bm25s.tokenization.Tokenized(ids, known), show_progress=False)
    places = np.full((len(queries), depth), -1, np.int64)
    scores = np.zeros((len(queries), depth), np.float32)
    positive = np.zeros(len(queries), np.float32)
    for number, query in enumerate(queries):
        asked = [known[word] for word in words(query) if word in known]
        if asked:  # otherwise nothing in the corpus shares a word with it
            found = retriever.get_scores_from_ids(asked)
            best = _best(found[None], depth)[0]
            matched = found[best] > 0
            places[number, : matched.sum()] = best[matched]
            scores[number, : matched.sum()] = found[best][matched]
            positive[number] = max(found[place] for place in positives[number])
        watch("compared", number + 1, len(queries))
    return Candidates(places, scores, positive)


def words(text: str) -> list[str]:
    """Tokens for BM25: words in lower case, pairs of characters in scripts without spaces."""
    found = []
    for token in _TOKEN.findall(text.casefold()):
        if _UNSPACED.search(token):
            found += [token[start : start + 2] for start in range(max(1, len(token) - 1))]
        else:
            found.append(token)
    return found


def _embed(encoder: Encoder, corpus: Sequence[str], folder: Path, watch: Watch) -> Floats:
    """Unit vectors of all passages; in a file if they are large."""
    shape = len(corpus), encoder.dimension
    vectors: Floats
    if math.prod(shape) * 4 <= _IN_MEMORY:
        vectors = np.empty(shape, np.float32)
    else:
        vectors = np.memmap(folder / "vectors", np.float32, "w+", shape=shape)
    for start in range(0, len(corpus), _EMBEDDED_AT_ONCE):
        texts = list(corpus[start : start + _EMBEDDED_AT_ONCE])
        vectors[start : start + len(texts)] = encoder.encode_document(texts, normalize=True)
        watch("embedded", start + len(texts), len(corpus))
    return vectors


def _exact(vectors: Floats, queries: Floats, depth: int, watch: Watch) -> tuple[Places, Floats]:
    """Products with a part of the corpus at a time; what is best so far is carried along."""
    places = np.full((len(queries), depth), -1, np.int64)
    scores = np.full((len(queries), depth), -np.inf, np.float32)
    for first in range(0, len(vectors), _SCORED_AT_ONCE):
        part = vectors[first : first + _SCORED_AT_ONCE]
        for start in range(0, len(queries), _QUERIES_AT_ONCE):
            block = slice(start, start + _QUERIES_AT_ONCE)
            products = queries[block] @ part.T
            fresh = _best(products, min(depth, len(part)))
            merged = np.hstack([scores[block], np.take_along_axis(products, fresh, axis=1)])
            numbers = np.hstack([places[block], fresh + first])
            order = _best(merged, depth)
            scores[block] = np.take_along_axis(merged, order, axis=1)
            places[block] = np.take_along_axis(numbers, order, axis=1)
        watch("compared", first + len(part), len(vectors))
    return places, scores


def _best(scores: Floats, count: int) -> Places:
    """Columns of the highest scores of each row, best first, ties by their order."""
    if count < scores.shape[1]:
        columns = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        columns.sort(axis=1)
    else:
        columns = np.broadcast_to(np.arange(scores.shape[1]), scores.shape)
    order = np.argsort(-np.take_along_axis(scores, columns, axis=1), axis=1, kind="stable")
    return np.take_along_axis(columns, order, axis=1).astype(np.int64)


def _faiss(vectors: Floats, queries: Floats, depth: int, watch: Watch) -> tuple[Places, Floats]:
    """An inverted index of half-precision vectors; searches the `_PROBES` nearest cells."""
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            f"{len(vectors):,} passages need faiss: pip install 'llm-embeddings[synth]'"
        ) from error
    cells = round(4 * math.sqrt(len(vectors)))
    index: Any = faiss.index_factory(
        vectors.shape[1], f"IVF{cells},SQfp16", faiss.METRIC_INNER_PRODUCT
    )
    step = max(1, len(vectors) // (cells * _TRAINED_PER_CELL))
    index.train(np.ascontiguousarray(vectors[::step]))
    for start in range(0, len(vectors), _SCORED_AT_ONCE):
        index.add(np.ascontiguousarray(vectors[start : start + _SCORED_AT_ONCE]))
    index.nprobe = _PROBES
    scores, places = index.search(queries, depth)
    watch("compared", len(vectors), len(vectors))
    return places.astype(np.int64), scores.astype(np.float32)
