"""Metrics of an encoder on one set: similarity, retrieval, classification, clustering."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..faces import require
from ..ranking.bm25 import BM25
from ..ranking.nearest import best
from ..recipe import Role
from .scores import Bootstrap, Floats, Indices, Score, finite, ndcg, spearman, unit
from .sets import AnySet, Classification, Clustering, Pairs, Retrieval

Encode = Callable[[list[str], Role], Floats]
Scores = dict[str, Score]
# nDCG and MRR at 10 and recall at 100, as BEIR and MS MARCO report them.
CUTS = (("ndcg", 10), ("recall", 100), ("mrr", 10))
_QUERIES_AT_ONCE = 64
ITERATIONS = 1000


def similarity(encode: Encode, pairs: Pairs, *, bootstrap: Bootstrap | None = None) -> Scores:
    """Spearman correlation of cosine similarity with people's scores.

    Args:
        encode: Texts and their role -> vectors `[n, dim]`. Both sentences have the role "document",
            as neither is a query for the other.
        pairs: The sentence pairs.
        bootstrap: How the confidence interval is made; None = with defaults.

    Returns:
        The score "spearman".
    """
    # Sets repeat sentences: each is embedded once.
    texts = list(dict.fromkeys([*pairs.first, *pairs.second]))
    vectors = unit(encode(texts, "document"))
    index = {text: place for place, text in enumerate(texts)}
    first, second = (
        vectors[[index[text] for text in side]] for side in (pairs.first, pairs.second)
    )
    cosines = (first * second).sum(axis=1)

    def correlation(chosen: Indices) -> float:
        return spearman(cosines[chosen], pairs.wanted[chosen])

    return {"spearman": (bootstrap or Bootstrap()).of(correlation, len(cosines))}


def retrieval(
    encode: Encode,
    data: Retrieval,
    *,
    cuts: Sequence[tuple[str, int]] = CUTS,
    bootstrap: Bootstrap | None = None,
) -> Scores:
    """nDCG, recall and MRR of the ranking by cosine similarity; see `ranked_scores`.

    Args:
        encode: See `similarity`; queries have the role "query".
        data: Queries and documents.
        cuts: Metric ("ndcg", "recall" or "mrr") and the rank at which it is cut, each.
        bootstrap: How the confidence intervals are made; None = with defaults.

    Returns:
        The scores as "<metric>@<rank>".
    """
    documents = unit(encode(list(data.documents.values()), "document"))
    queries = unit(encode(list(data.queries.values()), "query"))
    depth = max(cut for _, cut in cuts) + 1  # a query may be its own first hit, which is left out
    return ranked_scores(data, _rankings(queries, documents, depth), cuts=cuts, bootstrap=bootstrap)


def bm25(
    data: Retrieval,
    *,
    cuts: Sequence[tuple[str, int]] = CUTS,
    bootstrap: Bootstrap | None = None,
) -> Scores:
    """nDCG, recall and MRR of the ranking by BM25; arguments as in `retrieval`.

    Raises:
        ImportError: bm25s is not installed.
    """
    documents = list(data.documents.values())
    index, depth = BM25(documents), min(max(cut for _, cut in cuts) + 1, len(documents))
    scores = (index.scores(query) for query in data.queries.values())
    rankings = ((each, best(each[None], depth)[0]) for each in scores)
    matching = (ranked[each[ranked] > 0] for each, ranked in rankings)
    return ranked_scores(data, matching, cuts=cuts, bootstrap=bootstrap)


def ranked_scores(
    data: Retrieval,
    rankings: Iterable[NDArray[np.int64]],
    *,
    cuts: Sequence[tuple[str, int]] = CUTS,
    bootstrap: Bootstrap | None = None,
) -> Scores:
    """Metrics of rankings, means over queries that have a relevant document.

    Args:
        data: Queries and documents.
        rankings: For each query the places of documents, best first.
        cuts: "ndcg" (linear gains, as trec_eval), "recall" or "mrr", and the ranks that count.
        bootstrap: How the confidence intervals are made; None = with defaults.

    Returns:
        The scores as "<metric>@<rank>".
    """
    names = list(data.documents)
    itself = {name: place for place, name in enumerate(names)} if data.shared_ids else {}
    values: dict[str, list[float]] = {f"{metric}@{cut}": [] for metric, cut in cuts}
    for query, ranking in zip(data.queries, rankings, strict=True):
        gains, own = data.relevant[query], itself.get(query)
        ranked = [gains.get(names[place], 0.0) for place in ranking if place != own]
        for metric, cut in cuts:
            values[f"{metric}@{cut}"].append(_RANKED[metric](ranked, gains, cut))
    made = bootstrap or Bootstrap()
    return {metric: made.mean(found) for metric, found in values.items()}


def classification(
    encode: Encode, data: Classification, *, bootstrap: Bootstrap | None = None
) -> Scores:
    """Accuracy of a logistic regression on all training texts (scikit-learn's, C = 1).

    Args:
        encode: See `similarity`; all texts have the role "document". Vectors are taken as they
            come, of unit length or not.
        data: Texts to learn from and texts to be told apart.
        bootstrap: How the confidence interval, over the texts of the test, is made; None = with
            defaults.

    Returns:
        The score "accuracy".

    Raises:
        ImportError: scikit-learn is not installed.
    """
    linear_model: Any = _sklearn("linear_model")
    train = finite(encode(data.train_texts, "document"))
    classifier = linear_model.LogisticRegression(max_iter=ITERATIONS).fit(train, data.train_labels)
    told = classifier.predict(finite(encode(data.texts, "document")))
    right = (told == np.array(data.labels)).astype(np.float64)
    return {"accuracy": (bootstrap or Bootstrap()).mean(right)}


def clustering(encode: Encode, data: Clustering, *, bootstrap: Bootstrap | None = None) -> Scores:
    """V-measure of k-means with as many clusters as there are labels.

    The estimator and its options are those of MTEB's clustering tasks: mini-batches of 500, seed
    42. The interval is over texts; that k-means itself depends on its seed is not in it.

    Args:
        encode: See `classification`.
        data: Texts and their labels.
        bootstrap: How the confidence interval is made; None = with defaults.

    Returns:
        The score "v_measure".

    Raises:
        ImportError: scikit-learn is not installed.
    """
    cluster: Any = _sklearn("cluster")
    metrics: Any = _sklearn("metrics")
    vectors = finite(encode(data.texts, "document"))
    labels = np.unique(data.labels, return_inverse=True)[1]
    found = cluster.MiniBatchKMeans(
        n_clusters=len(set(data.labels)), batch_size=500, n_init="auto", random_state=42
    ).fit_predict(vectors)

    def measure(chosen: Indices) -> float:
        return float(metrics.v_measure_score(labels[chosen], found[chosen]))

    return {"v_measure": (bootstrap or Bootstrap()).of(measure, len(labels))}


def measure(
    encode: Encode,
    data: AnySet,
    *,
    cuts: Sequence[tuple[str, int]] = CUTS,
    bootstrap: Bootstrap | None = None,
) -> Scores:
    """The scores of a set, by the function of its kind.

    Raises:
        ImportError: scikit-learn is needed and not installed.
    """
    if isinstance(data, Retrieval):
        return retrieval(encode, data, cuts=cuts, bootstrap=bootstrap)
    if isinstance(data, Pairs):
        return similarity(encode, data, bootstrap=bootstrap)
    if isinstance(data, Classification):
        return classification(encode, data, bootstrap=bootstrap)
    return clustering(encode, data, bootstrap=bootstrap)


def _ndcg(ranked: Sequence[float], gains: Mapping[str, float], cut: int) -> float:
    return ndcg(ranked, list(gains.values()), cut)


def _recall(ranked: Sequence[float], gains: Mapping[str, float], cut: int) -> float:
    return sum(gain > 0 for gain in ranked[:cut]) / len(gains)


def _mrr(ranked: Sequence[float], gains: Mapping[str, float], cut: int) -> float:
    hits = (1 / rank for rank, gain in enumerate(ranked[:cut], 1) if gain > 0)
    return next(hits, 0.0)


_RANKED = {"ndcg": _ndcg, "recall": _recall, "mrr": _mrr}


def _rankings(queries: Floats, documents: Floats, depth: int) -> Iterator[NDArray[np.int64]]:
    """The places of the `depth` best documents of each query; equal ones keep their order."""
    for start in range(0, len(queries), _QUERIES_AT_ONCE):
        for scores in queries[start : start + _QUERIES_AT_ONCE] @ documents.T:
            least = np.partition(scores, -min(depth, len(scores)))[-min(depth, len(scores))]
            near = np.flatnonzero(scores >= least)
            yield near[np.argsort(-scores[near], kind="stable")][:depth]


def _sklearn(module: str) -> Any:
    """A module of scikit-learn."""
    need = "classification and clustering need scikit-learn"
    return require(f"sklearn.{module}", need, extra="eval")
