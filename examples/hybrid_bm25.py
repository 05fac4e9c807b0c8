"""Hybrid search: BM25 and vectors, their standard scores added.

Word matching finds exact phrases and names, vectors find what is said in other words. Users type
both kinds of queries; the sum of the two standard scores is good at either.
"""

import bm25s
import numpy as np

from llm_embeddings import Encoder
from llm_embeddings.corpus import load_corpus


def standard(scores: np.ndarray) -> np.ndarray:
    """Mean 0 and deviation 1 over the documents, for each query: `[queries, documents]`."""
    spread = np.maximum(scores.std(axis=1, keepdims=True), 1e-9)
    result: np.ndarray = (scores - scores.mean(axis=1, keepdims=True)) / spread
    return result


def mean_reciprocal_rank(scores: np.ndarray) -> float:
    """Of the right document, the one with the query's own number; ties count against it."""
    return float((1 / (scores >= np.diag(scores)[:, None]).sum(1)).mean())


def main() -> None:
    corpus = load_corpus()[:60]
    texts = [p.text for p in corpus]
    kinds = {
        "headings": [p.title for p in corpus],
        "quotes": [" ".join(text.split()[20:25]) for text in texts],  # five words of each
    }
    encoder = Encoder.from_pretrained()
    documents = encoder.encode_document(texts)
    options = {"stopwords": [], "show_progress": False}
    index = bm25s.BM25()
    index.index(bm25s.tokenize(texts, **options), show_progress=False)

    print(f"Find the right one of {len(corpus)} passages, mean reciprocal rank:")
    table = []
    for queries in kinds.values():
        words = bm25s.tokenize(queries, return_ids=False, **options)
        sparse = np.stack([index.get_scores(query) for query in words])
        dense = encoder.similarity(encoder.encode_query(queries), documents)
        hybrid = standard(sparse) + standard(dense)
        table.append([mean_reciprocal_rank(scores) for scores in (sparse, dense, hybrid)])
    print(f"  {'queries':10}{'BM25':>8}{'vectors':>9}{'hybrid':>8}")
    for name, row in zip([*kinds, "both"], [*table, np.mean(table, axis=0)], strict=True):
        print(f"  {name:10}{row[0]:8.3f}{row[1]:9.3f}{row[2]:8.3f}")


if __name__ == "__main__":
    main()
