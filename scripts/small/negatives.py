"""Hard negatives: passages the teacher takes for close to a query, though not too close."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from lessons import Lessons, bare
from pairs import QUERY

Ints = npt.NDArray[np.int64]
CEILING = 0.9  # of the positive's cosine: what is closer may be an answer too
RANKS = slice(5, 30)  # where negatives are drawn from


def retrieval_pairs(lessons: Lessons) -> tuple[Ints, Ints]:
    """Numbers of all queries and of their passages."""
    firsts = lessons.bounds[:-1][np.diff(lessons.bounds) > 1]
    queries = np.array([i for i in firsts if lessons.texts[i].startswith(QUERY)], np.int64)
    return queries, queries + 1


def mine(lessons: Lessons, *, count: int, depth: int, seed: int) -> Iterator[dict[str, object]]:
    """Rows {query, pos, neg} of `count` random queries with `depth` negatives each.

    Queries whose own passage the teacher does not find near (cosine under 0.3) are left out.
    """
    queries, passages = retrieval_pairs(lessons)
    table = lessons.vectors[passages].astype(np.float32)
    rng = np.random.default_rng(seed)
    for chosen in np.array_split(rng.permutation(len(queries))[:count], max(1, count // 512)):
        scores = lessons.vectors[queries[chosen]].astype(np.float32) @ table.T
        for row, place in zip(scores, chosen, strict=True):
            near = np.argpartition(-row, RANKS.stop)[: RANKS.stop]
            near = near[np.argsort(-row[near])][RANKS]
            near = near[(row[near] < CEILING * row[place]) & (near != place)]
            if row[place] < 0.3 or len(near) < depth:
                continue
            wrong = rng.choice(near, depth, replace=False)
            yield {
                "query": bare(lessons.texts[queries[place]]),
                "pos": [lessons.texts[passages[place]]],
                "neg": [lessons.texts[passages[i]] for i in wrong],
            }


def write(lessons: Lessons, path: Path, *, count: int, depth: int, seed: int) -> int:
    """Write mined rows as JSON lines, and say how many."""
    rows = list(mine(lessons, count=count, depth=depth, seed=seed))
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text(lines, encoding="utf-8")
    return len(rows)
