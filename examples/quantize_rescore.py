"""Small vectors: int8 and one bit per dimension, and how rescoring brings the quality back.

Binary codes find candidates by Hamming distance; the float32 query against the candidates' int8
vectors then puts them in order (Yamada et al., arXiv 2106.00882, for the two steps).
"""

import numpy as np

from llm_embeddings import Encoder
from llm_embeddings.corpus import load_corpus

CANDIDATES = 10


def mean_reciprocal_rank(scores: np.ndarray) -> float:
    """Of the right document, the one with the query's own number; ties count against it."""
    right = np.diag(scores)[:, None]
    return float((1 / (scores >= right).sum(1)).mean())


def main() -> None:
    encoder = Encoder.from_pretrained()
    corpus = load_corpus()[:60]
    queries, texts = encoder.encode_query([p.title for p in corpus]), [p.text for p in corpus]
    encoder.calibrate(texts)  # int8 ranges that fit these texts
    full = encoder.encode_document(texts)
    small = encoder.encode_document(texts, precision="int8")
    bits = np.packbits(full > 0, axis=1)  # what precision="ubinary" gives

    low, high = encoder.ranges[encoder.dimension, True]
    restored = (small.astype(np.float32) + 128.5) * (high - low) / 255 + low
    query_bits = np.packbits(queries > 0, axis=1)
    hamming = np.bitwise_count(query_bits[:, None] ^ bits[None]).sum(2)
    binary = -hamming.astype(np.float32)

    rescored = np.full_like(binary, -np.inf)
    chosen = hamming.argsort(axis=1, kind="stable")[:, :CANDIDATES]
    for row, candidates in enumerate(chosen):
        rescored[row, candidates] = restored[candidates] @ queries[row]

    print(f"Find the passage of each of {len(corpus)} headings, mean reciprocal rank:")
    for name, size, scores in (
        ("float32", full.nbytes, queries @ full.T),
        ("int8", small.nbytes, queries @ restored.T),
        ("binary", bits.nbytes, binary),
        (f"binary, best {CANDIDATES} by int8", bits.nbytes + small.nbytes, rescored),
    ):
        print(f"  {name:24} {mean_reciprocal_rank(scores):.3f}  {size // len(corpus):5} bytes each")


if __name__ == "__main__":
    main()
