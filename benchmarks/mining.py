"""`python -m benchmarks.mining`: hard negatives for many queries, with time and peak memory.

Passages and queries are cut from a file of texts, one document a line (gzip is read too).
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import torch

from llm_embeddings import Encoder
from llm_embeddings.records.lines import read_rows
from llm_embeddings.synthesis.mining.mine import Mining, mine

_WORDS, _QUERY_WORDS = 60, 12


def passages(path: Path) -> Iterator[str]:
    """Runs of words of each document, all different."""
    seen = set()
    for row in read_rows(path):
        words = row.values["text"].split()
        for start in range(0, len(words), _WORDS):
            text = " ".join(words[start : start + _WORDS])
            if text not in seen:
                seen.add(text)
                yield text


def main() -> None:
    """Mine with the bundled model, or BM25, and say what it took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("texts", type=Path)
    parser.add_argument("--queries", type=int, default=5000)
    parser.add_argument("--passages", type=int, default=100_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bm25", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    with tempfile.TemporaryDirectory() as folder:
        corpus, pairs = Path(folder) / "corpus.jsonl", Path(folder) / "pairs.jsonl"
        with corpus.open("w", encoding="utf-8") as lines, pairs.open("w", encoding="utf-8") as out:
            for number, text in enumerate(islice(passages(given.texts), given.passages)):
                lines.write(json.dumps({"text": text}) + "\n")
                if number < given.queries:
                    query = " ".join(text.split()[:_QUERY_WORDS])
                    out.write(json.dumps({"query": query, "positive": text}) + "\n")
        encoder = None if given.bm25 else Encoder.from_pretrained()
        marks: dict[str, float] = {}
        started = time.perf_counter()

        def watch(what: str, done: int, total: int) -> None:
            marks[what] = time.perf_counter() - started

        mined = mine([pairs], Path(folder) / "out", encoder, Mining(), corpus=[corpus], watch=watch)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    reached = ", ".join(f"{what} after {seconds:.1f} s" for what, seconds in marks.items())
    print(f"{mined.queries:,} queries over {mined.passages:,} passages: {mined.seconds:.1f} s")
    print(f"{reached}; peak memory {peak:,.0f} MiB")
    print(f"{mined.full:,} with all negatives, {mined.short:,} with fewer, {mined.dropped:,} none")


if __name__ == "__main__":
    main()
