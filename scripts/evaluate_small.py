"""Measure a small model on STS-B and five retrieval sets, beside BM25 and other models.

    python scripts/evaluate_small.py src/llm_embeddings/data/small build/small/mean

prints one Markdown table: STS-B dev Spearman (document side on both sentences) and nDCG@10.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from llm_embeddings import Encoder
from llm_embeddings.evaluation import evaluate
from llm_embeddings.evaluation.measures import bm25
from llm_embeddings.evaluation.scores import Bootstrap
from llm_embeddings.evaluation.sets import read_retrieval

PAIRS = "sts/stsb_en_dev.jsonl"
RETRIEVAL = ("dbpedia_5k", "cranfield", "vaswani", "xquad_en", "xquad_en_sent")
COLUMNS = ("stsb_en_dev/spearman", *(f"{name}/ndcg@10" for name in RETRIEVAL))


def table(rows: dict[str, dict[str, float]]) -> str:
    """Markdown: one line a model, one column a set."""
    names = [column.split("/")[0] for column in COLUMNS]
    lines = ["| model | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for name, values in rows.items():
        cells = (f"{values[column]:.3f}" if column in values else "-" for column in COLUMNS)
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="*", type=Path, help="model directories")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    args = parser.parse_args()

    folders = [args.data / "retrieval" / name for name in RETRIEVAL]
    cuts, none = [("ndcg", 10)], Bootstrap(resamples=0)
    rows: dict[str, dict[str, float]] = {"BM25": {}}
    for folder in folders:
        score = bm25(read_retrieval(folder), cuts=cuts, bootstrap=none)["ndcg@10"]
        rows["BM25"][f"{folder.name}/ndcg@10"] = score.value
    for path in args.models:
        encoder = Encoder.from_pretrained(path, dtype="float32")
        scores = evaluate(encoder, [args.data / PAIRS, *folders], cuts=cuts, resamples=0)
        rows[path.name] = {name: score.value for name, score in scores.items()}
    print(table(rows))


if __name__ == "__main__":
    main()
