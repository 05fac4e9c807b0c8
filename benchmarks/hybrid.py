"""Vectors, words and both on retrieval sets: nDCG@10 of the rule in use beside other rules.

    python -m benchmarks.hybrid SET ... [--model MODEL]

A set is a directory in BEIR's form. Documents are ranked whole, by the parts that `search` and
`DocumentIndex` rank with: the model's cosines, SQLite's BM25, `llm_embeddings.ranking.fusion.fuse`.
"""

from __future__ import annotations

import argparse
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from llm_embeddings import Encoder
from llm_embeddings.evaluation.measures import ranked_scores
from llm_embeddings.evaluation.sets import Retrieval, read_retrieval
from llm_embeddings.ranking import fulltext
from llm_embeddings.ranking.fusion import fuse
from llm_embeddings.ranking.nearest import best

Scores = NDArray[np.float32]
Rule = Callable[[Scores, Scores], Scores]
_DEPTH = 10


def reciprocal_ranks(constant: int) -> Rule:
    """Reciprocal rank fusion (Cormack et al., SIGIR 2009)."""

    def part(leg: Scores) -> Scores:
        return np.asarray(1 / (constant + 1 + np.argsort(np.argsort(-leg, kind="stable"))))

    return lambda cosines, words: part(cosines) + np.where(words > 0, part(words), 0)


def standard_scores(cosines: Scores, words: Scores) -> Scores:
    """Distances from the mean in standard deviations, weighted."""
    first, second = ((leg - leg.mean()) / (leg.std() + 1e-9) for leg in (cosines, words))
    return np.asarray(0.4 * first + 0.6 * second)


def between_least_and_most(cosines: Scores, words: Scores) -> Scores:
    """Each from 0 for the least to 1 for the most, and added."""
    first, second = ((leg - leg.min()) / (np.ptp(leg) + 1e-9) for leg in (cosines, words))
    return np.asarray(first + second)


def parts_of_the_most(cosines: Scores, words: Scores) -> Scores:
    """Each divided by the most (the theoretical minimum, Bruch et al. 2023), and added."""
    first, second = (leg / (leg.max() + 1e-9) for leg in (np.maximum(cosines, 0), words))
    return np.asarray(first + second)


RULES: dict[str, Rule] = {
    "vector": lambda cosines, words: cosines,
    "words": lambda cosines, words: words,
    "hybrid": fuse,
    "standard scores, 0.4 and 0.6": standard_scores,
    "reciprocal ranks, 60": reciprocal_ranks(60),
    "reciprocal ranks, 10": reciprocal_ranks(10),
    "least to most": between_least_and_most,
    "parts of the most": parts_of_the_most,
}


def legs(encoder: Encoder, data: Retrieval) -> list[tuple[Scores, Scores]]:
    """Cosines and BM25 of every document, for each query."""
    documents, queries = list(data.documents.values()), list(data.queries.values())
    vectors = encoder.encode_document(documents, normalize=True)
    cosines = encoder.encode_query(queries, normalize=True) @ vectors.T
    numbers = np.arange(len(documents))
    with closing(sqlite3.connect(":memory:")) as sql:
        sql.execute(fulltext.SCHEMA)
        fulltext.add(sql, enumerate(documents))
        words = [fulltext.scores(sql, query, numbers) for query in queries]
    return list(zip(cosines, words, strict=True))


def main() -> None:
    """Print a table, one line per rule."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--model", help="the bundled model if left out")
    options = parser.parse_args()
    encoder = Encoder.from_pretrained(options.model)
    sets = [read_retrieval(path) for path in options.sets]
    found: dict[str, list[float]] = {name: [] for name in RULES}
    for data in sets:
        pairs = legs(encoder, data)
        for name, rule in RULES.items():
            rankings = (best(rule(*pair)[None], _DEPTH)[0] for pair in pairs)
            scores = ranked_scores(data, rankings, cuts=(("ndcg", _DEPTH),))
            found[name].append(scores[f"ndcg@{_DEPTH}"].value)
    print("| nDCG@10 |", " | ".join(data.name for data in sets), "| mean |")
    print("|---|" + "---|" * (len(sets) + 1))
    for name, values in found.items():
        cells = [f"{value:.4f}" for value in [*values, float(np.mean(values))]]
        print(f"| {name} |", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
