"""Late chunking against chunk-by-chunk encoding: how well chunks are found, and how fast made.

python -m benchmarks.late DOCUMENTS CHUNKS

Both are sets in BEIR's form, such as XQuAD's paragraphs and the sentences of these paragraphs: the
texts of CHUNKS stand in those of DOCUMENTS, in their order, and the queries are those of CHUNKS.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from llm_embeddings import Encoder
from llm_embeddings.evaluation.measures import Encode, retrieval
from llm_embeddings.evaluation.sets import read_retrieval
from llm_embeddings.rag import late_vectors
from llm_embeddings.recipe import Role
from llm_embeddings.vectors import Vectors

Spans = list[tuple[str, list[tuple[int, int]]]]


def texts_of(directory: Path) -> list[str]:
    """The texts of a corpus, with their titles."""
    rows = map(json.loads, (directory / "corpus.jsonl").open(encoding="utf-8"))
    return [f"{row.get('title') or ''} {row['text']}".strip() for row in rows]


def placed(documents: Sequence[str], chunks: Sequence[str]) -> Spans:
    """Each document with where its chunks lie in it.

    Raises:
        SystemExit: a chunk that is in no document.
    """
    found: Spans = []
    rest, at = iter(documents), 0
    for chunk in chunks:
        begin = found[-1][0].find(chunk, at) if found else -1
        while begin < 0:
            document = next(rest, None)
            if document is None:
                raise SystemExit(f"chunk {chunk!r:.60} is in none of the documents")
            found.append((document, []))
            begin = document.find(chunk)
        at = begin + len(chunk)
        found[-1][1].append((begin, at))
    return found


def measured(encoder: Encoder, spans: Spans, *, late: bool, seconds: list[float]) -> Encode:
    """An `encode` that makes documents' vectors one way or the other, and says how long it took."""

    def encode(texts: list[str], role: Role) -> Vectors:
        vectors: Vectors
        if role == "query":
            vectors = encoder.encode_query(texts)
            return vectors
        start = time.perf_counter()
        vectors = (
            np.concatenate([late_vectors(encoder, text, parts) for text, parts in spans if parts])
            if late
            else encoder.encode_document(texts)
        )
        seconds.append(time.perf_counter() - start)
        return vectors

    return encode


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("documents", type=Path)
    parser.add_argument("chunks", type=Path)
    parser.add_argument("--model", help="bidirectional, mean-pooled; default: the bundled one")
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    encoder = Encoder.from_pretrained(options.model)
    chunks = texts_of(options.chunks)
    spans = placed(texts_of(options.documents), chunks)
    lines = []
    for name, late in (("chunk by chunk", False), ("late", True)):
        seconds: list[float] = []
        encode = measured(encoder, spans, late=late, seconds=seconds)
        for _ in range(options.repeats):
            scores = retrieval(encode, read_retrieval(options.chunks))
        values = " | ".join(map(str, scores.values()))
        lines.append(f"| {name} | {values} | {min(seconds):.2f} |")
    print(f"| {len(chunks)} chunks | {' | '.join(scores)} | seconds to embed |")
    print("|---" * (len(scores) + 2) + "|")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
