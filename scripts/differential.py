"""Random checkpoints against sentence-transformers: `python -m scripts.differential FIRST LAST`.

Prints each one whose vectors differ or that is refused, and counts at the end. Ends with 1 if any
differs.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).parents[1]
_ALLOWED = 2e-4  # float32, two layers of random weights


def main() -> int:
    """Compare the checkpoints of a range of seeds."""
    sys.path.insert(0, str(ROOT / "tests"))
    from sentence_transformers import SentenceTransformer

    from llm_embeddings import Encoder

    random_checkpoints = importlib.import_module("helpers.random_checkpoints")
    texts = random_checkpoints.TEXTS
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for seed in range(*map(int, sys.argv[1:3])):
        with tempfile.TemporaryDirectory() as work:
            made = random_checkpoints.make(seed, Path(work))
            theirs = SentenceTransformer(str(made.path), device="cpu")
            try:
                ours = Encoder.from_pretrained(made.path, dtype="float32")
            except ValueError as error:
                counts["refused"] += 1
                print(f"refused: {made.words}: {str(error).replace(work, '')}", flush=True)
                continue
            pairs = (
                (ours.encode_query(texts), theirs.encode_query(texts, batch_size=1)),
                (ours.encode_document(texts), theirs.encode_document(texts, batch_size=1)),
            )
            most = max(float(np.abs(found - wanted).max()) for found, wanted in pairs)
            counts["equal" if most < _ALLOWED else "WRONG"] += 1
            if most >= _ALLOWED:
                print(f"WRONG by {most:.2g}: {made.words}", flush=True)
    print(dict(counts))
    return int(counts["WRONG"] > 0)


if __name__ == "__main__":
    raise SystemExit(main())
