"""Measure a small model on STS-B and five retrieval sets, beside BM25 and other models.

    python scripts/evaluate_small.py src/llm_embeddings/data/small build/small2/contrastive

prints one Markdown table: STS-B dev Spearman (document side on both sentences) and nDCG@10.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

RETRIEVAL = ("dbpedia_5k", "cranfield", "vaswani", "xquad_en", "xquad_en_sent")
Array = npt.NDArray[np.float32]
Encode = Callable[[Sequence[str]], Array]


@dataclass(frozen=True)
class Retrieval:
    """One retrieval set: texts by position, judgements by query position."""

    name: str
    documents: list[str]
    queries: list[str]
    gains: list[dict[int, float]]


def load_retrieval(folder: Path) -> Retrieval:
    """Read a set in BEIR form; a document is its title and its text, joined by a space."""
    corpus = [json.loads(line) for line in (folder / "corpus.jsonl").open(encoding="utf-8")]
    position = {row["_id"]: i for i, row in enumerate(corpus)}
    judged: dict[str, dict[int, float]] = {}
    for line in (folder / "qrels.tsv").read_text(encoding="utf-8").splitlines()[1:]:
        query, document, gain = line.split("\t")
        if float(gain) > 0 and document in position:
            judged.setdefault(query, {})[position[document]] = float(gain)
    rows = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    rows = [row for row in rows if row["_id"] in judged]
    return Retrieval(
        folder.name,
        [f"{row.get('title', '')} {row['text']}".strip() for row in corpus],
        [row["text"] for row in rows],
        [judged[row["_id"]] for row in rows],
    )


def ndcg_at_10(scores: Array, gains: Sequence[dict[int, float]]) -> float:
    """Mean nDCG@10 with linear gains, over queries with at least one relevant document."""
    discount = 1.0 / np.log2(np.arange(2, 12))
    values = []
    for row, gain in zip(scores, gains, strict=True):
        top = np.argsort(-row, kind="stable")[:10]
        found = sum(gain.get(int(i), 0.0) * d for i, d in zip(top, discount, strict=False))
        best = sorted(gain.values(), reverse=True)[:10]
        values.append(found / sum(g * d for g, d in zip(best, discount, strict=False)))
    return float(np.mean(values))


def bm25_scores(data: Retrieval) -> Array:
    """BM25 (bm25s, k1 = 1.5, b = 0.75) over lower-cased runs of word characters."""
    import bm25s

    words = [re.findall(r"\w+", text.lower()) for text in data.documents]
    index = bm25s.BM25(k1=1.5, b=0.75)
    index.index(words, show_progress=False)
    queries = [re.findall(r"\w+", text.lower()) for text in data.queries]
    return np.stack([np.asarray(index.get_scores(query), np.float32) for query in queries])


def sts_spearman(path: Path, encode: Encode) -> float:
    """Spearman correlation of cosine similarity with the human score."""
    rows = [json.loads(line) for line in path.open(encoding="utf-8")]
    a, b = encode([row["a"] for row in rows]), encode([row["b"] for row in rows])
    return float(spearmanr((a * b).sum(axis=1), [row["score"] for row in rows]).statistic)


def evaluate(data: Path, encode_query: Encode, encode_document: Encode) -> dict[str, float]:
    """All six numbers for one model."""
    result = {"stsb_dev": sts_spearman(data / "sts/stsb_en_dev.jsonl", encode_document)}
    for name in RETRIEVAL:
        task = load_retrieval(data / "retrieval" / name)
        scores = encode_query(task.queries) @ encode_document(task.documents).T
        result[name] = ndcg_at_10(scores, task.gains)
    return result


def evaluate_bm25(data: Path) -> dict[str, float]:
    """BM25 on the retrieval sets; it has no number on STS-B."""
    tasks = (load_retrieval(data / "retrieval" / name) for name in RETRIEVAL)
    return {task.name: ndcg_at_10(bm25_scores(task), task.gains) for task in tasks}


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: one line a model, one column a set."""
    columns = ("stsb_dev", *RETRIEVAL)
    lines = ["| model | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name, values in rows.items():
        cells = (f"{values[c]:.3f}" if c in values else "-" for c in columns)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="model directories")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()

    from llm_embeddings import Encoder

    rows = {"BM25": evaluate_bm25(args.data)}
    for path in args.models:
        encoder = Encoder.from_pretrained(str(path), dtype="float32")
        rows[path.name] = evaluate(args.data, encoder.encode_query, encoder.encode_document)
    print(table(rows))


if __name__ == "__main__":
    main()
