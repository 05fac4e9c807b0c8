"""How good vectors are: sentence similarity and retrieval, with confidence intervals."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..recipe import Role
from .lines import read_rows

Floats = NDArray[np.floating[Any]]
Encode = Callable[[list[str], Role], Floats]
_CUT, _DEEP = 10, 100
_QUERIES_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class Score:
    """A metric.

    Attributes:
        value: On all pairs or queries.
        low: 2.5th percentile over resamples of them.
        high: 97.5th percentile.
        count: How many there are.
    """

    value: float
    low: float
    high: float
    count: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def evaluate(
    encode: Encode, paths: Sequence[str | Path], *, resamples: int = 1000, seed: int = 0
) -> dict[str, Score]:
    """Every metric of every set, as "<set>/<metric>".

    Args:
        encode: Texts and their role ("query" or "document") -> vectors `[n, dimension]`;
            `Encoder.encode` is one.
        paths: Files of sentence pairs for `similarity`, directories for `retrieval`.
        resamples: How many for the confidence intervals.
        seed: Of the resamples.

    Raises:
        OSError: a file is missing.
        ValueError: a file that does not fit.
    """
    scores: dict[str, Score] = {}
    for path in map(Path, paths):
        if path.is_dir():
            found = retrieval(encode, path, resamples=resamples, seed=seed)
            scores |= {f"{path.name}/{metric}": score for metric, score in found.items()}
        else:
            name = path.name.split(".")[0]
            scores[f"{name}/spearman"] = similarity(encode, path, resamples=resamples, seed=seed)
    return scores


def similarity(
    encode: Encode, path: Path, *, role: Role = "document", resamples: int = 1000, seed: int = 0
) -> Score:
    """Spearman correlation of cosine similarity with people's scores.

    Args:
        encode: See `evaluate`.
        path: Rows with the columns a, b and score.
        role: Of both sentences: neither asks for the other.
        resamples: How many for the confidence interval.
        seed: Of the resamples.

    Raises:
        OSError: the file is missing.
        ValueError: a row that does not fit, or fewer than three rows.
    """
    rows = [(row.place, row.values) for row in read_rows(path)]
    for place, values in rows:
        if not all(isinstance(values.get(column), str) for column in "ab"):
            raise ValueError(
                f"{place}: a pair has the texts a and b, and a score, not {values!r:.60}"
            )
        if not isinstance(values.get("score"), int | float):
            raise ValueError(f"{place}: score is {values.get('score')!r}, not a number")
    if len(rows) < 3:
        raise ValueError(f"{path} has {len(rows)} pairs: a correlation needs at least three")
    # Sets repeat sentences: each is embedded once.
    texts = list(dict.fromkeys(values[column] for column in "ab" for _, values in rows))
    vectors = _unit(encode(texts, role))
    index = {text: place for place, text in enumerate(texts)}
    first, second = (vectors[[index[values[column]] for _, values in rows]] for column in "ab")
    cosines = (first * second).sum(axis=1)
    wanted = np.array([values["score"] for _, values in rows], np.float64)

    def correlation(chosen: NDArray[np.int64]) -> float:
        return spearman(cosines[chosen], wanted[chosen])

    return _bootstrap(correlation, len(rows), resamples, seed)


def retrieval(
    encode: Encode, directory: Path, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Score]:
    """nDCG@10 (linear gains, as trec_eval), recall@100 and MRR@10 by cosine similarity.

    Args:
        encode: See `evaluate`.
        directory: A set in BEIR's form: corpus.jsonl, queries.jsonl, and qrels.tsv or
            qrels/test.tsv. Queries without a relevant document are left out; a document with the
            query's own id is no hit.
        resamples: How many for the confidence intervals.
        seed: Of the resamples.

    Raises:
        OSError: a file is missing.
        ValueError: a row that does not fit, or no query with a relevant document.
    """
    corpus = dict(_texts(directory / "corpus.jsonl"))
    asked = dict(_texts(directory / "queries.jsonl"))
    relevant = _relevant(directory, asked)
    names = list(corpus)
    documents = _unit(encode(list(corpus.values()), "document"))
    queries = _unit(encode([asked[name] for name in relevant], "query"))
    places = {name: place for place, name in enumerate(names)}
    values: dict[str, list[float]] = {"ndcg@10": [], "recall@100": [], "mrr@10": []}
    for (name, gains), ranking in zip(
        relevant.items(), _rankings(queries, documents, _DEEP + 1), strict=True
    ):
        ranked = [gains.get(names[place], 0) for place in ranking if place != places.get(name)]
        values["ndcg@10"].append(ndcg(ranked[:_CUT], list(gains.values())))
        values["recall@100"].append(sum(gain > 0 for gain in ranked[:_DEEP]) / len(gains))
        hits = (1 / rank for rank, gain in enumerate(ranked[:_CUT], 1) if gain > 0)
        values["mrr@10"].append(next(hits, 0.0))
    return {metric: _mean(found, resamples, seed) for metric, found in values.items()}


def ndcg(ranked: Sequence[float], gains: Sequence[float], cut: int = _CUT) -> float:
    """Normalised discounted cumulative gain: gain / log2(rank + 1), over that of the best ranking.

    Args:
        ranked: Gains of what was found, the best first.
        gains: All gains there are; one must be above 0.
        cut: Ranks that count.
    """
    best = sorted(gains, reverse=True)
    return _discounted(ranked[:cut]) / _discounted(best[:cut])


def spearman(first: Floats, second: Floats) -> float:
    """Rank correlation of two `[n]` arrays; equal values share a rank. 0 if one is constant."""
    ranks = [_ranks(values) for values in (first, second)]
    centred = [values - values.mean() for values in ranks]
    scale = float(np.sqrt((centred[0] ** 2).sum() * (centred[1] ** 2).sum()))
    return float((centred[0] * centred[1]).sum()) / scale if scale else 0.0


def _ranks(values: Floats) -> NDArray[np.float64]:
    """Ranks from 1; equal values get the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: NDArray[np.float64] = (last - (counts - 1) / 2)[inverse]
    return ranks


def _discounted(gains: Sequence[float]) -> float:
    return float(sum(gain / np.log2(rank + 1) for rank, gain in enumerate(gains, 1)))


def _unit(vectors: Floats) -> NDArray[np.float32]:
    """Rows of unit length, in float32."""
    rows = np.asarray(vectors, np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all():
        raise ValueError("the model gives vectors that are not finite: nothing to evaluate")
    unit: NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _rankings(queries: Floats, documents: Floats, depth: int) -> Iterator[NDArray[np.int64]]:
    """The best documents of each query; of equal ones the first comes first."""
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        for scores in queries[start : start + _QUERIES_AT_ONCE] @ documents.T:
            least = np.partition(scores, -min(depth, len(scores)))[-min(depth, len(scores))]
            near = np.flatnonzero(scores >= least)
            yield near[np.argsort(-scores[near], kind="stable")][:depth]


def _texts(path: Path) -> Iterator[tuple[str, str]]:
    """Ids and texts of a corpus or of queries; a title goes before its text."""
    for row in read_rows(path):
        name, text = row.values.get("_id"), row.values.get("text")
        if name is None or not isinstance(text, str):
            raise ValueError(f"{row.place}: a row has _id and text, not {', '.join(row.values)}")
        yield str(name), f"{row.values.get('title') or ''} {text}".strip()


def _relevant(directory: Path, asked: Mapping[str, str]) -> dict[str, dict[str, float]]:
    """Query -> its relevant documents and their gains."""
    path = directory / "qrels.tsv"
    path = path if path.exists() else directory / "qrels" / "test.tsv"
    relevant: dict[str, dict[str, float]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()[1:], 2):
        try:
            query, document, gain = line.split("\t")
            score = float(gain)
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number} is not query-id, corpus-id, score with tabs: {line!r:.60}"
            ) from error
        if score > 0 and query in asked:
            relevant.setdefault(query, {})[document] = score
    if not relevant:
        raise ValueError(
            f"{path}: no query of {directory / 'queries.jsonl'} has a relevant document"
        )
    return relevant


def _mean(values: Sequence[float], resamples: int, seed: int) -> Score:
    array = np.asarray(values)
    return _bootstrap(lambda chosen: float(array[chosen].mean()), len(array), resamples, seed)


def _bootstrap(
    metric: Callable[[NDArray[np.int64]], float], count: int, resamples: int, seed: int
) -> Score:
    """The metric on everything, and percentiles over samples with replacement (Efron 1979)."""
    value = metric(np.arange(count))
    if not resamples:
        return Score(value, value, value, count)
    rng = np.random.default_rng(seed)
    found = [metric(rng.integers(0, count, count)) for _ in range(resamples)]
    low, high = np.percentile(found, [2.5, 97.5])
    return Score(value, float(low), float(high), count)
