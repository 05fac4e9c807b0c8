"""What the tests of vector stores share: passages, queries, and which are the nearest."""

from __future__ import annotations

from llm_embeddings import Encoder
from llm_embeddings.corpus import load_corpus

K = 5
PASSAGES = [document.passage[:160] for document in load_corpus()[:40]]
QUERIES = [document.title for document in load_corpus()[:40:5]]


def exact_places(encoder: Encoder) -> list[list[int]]:
    """The places of the nearest passages of each query, the nearest first."""
    documents = encoder.encode_document(PASSAGES)
    best, other = (
        encoder.similarity(queries, documents).argsort(axis=1)[:, ::-1][:, :K].tolist()
        for queries in (encoder.encode_query(QUERIES), encoder.encode(QUERIES))
    )
    assert best != other  # a store that embeds queries as documents would be found out
    found: list[list[int]] = best
    return found
