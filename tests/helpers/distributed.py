"""What the tests of llm_embeddings.distributed share; also a driver process that they kill.

`python -m helpers.distributed ADDRESS INPUT OUTPUT` embeds with a tiny model on a cluster.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from helpers import BUNDLED
from llm_embeddings.distributed import Embedded, embed_dataset

MODEL = BUNDLED / "e5-mistral" / "model"
ROWS_PER_BLOCK = 8


def texts(count: int) -> list[str]:
    """Different texts of different lengths."""
    return [f"Text number {i} is about {'very ' * (i % 23)}different things." for i in range(count)]


def write_tables(folder: Path, sizes: tuple[int, ...] = (53, 40), group: int = 20) -> list[str]:
    """Parquet files of ids and texts; returns the ids in order."""
    folder.mkdir(parents=True, exist_ok=True)
    ids = [f"id-{i:05d}" for i in range(sum(sizes))]
    every, first = texts(sum(sizes)), 0
    for number, size in enumerate(sizes):
        rows = slice(first, first + size)
        table = pa.table({"id": ids[rows], "text": every[rows]})
        pq.write_table(table, folder / f"{number:02d}.parquet", row_group_size=group)
        first += size
    return ids


def read_parts(output: Path) -> pa.Table:
    """All rows of an output folder, in the order of the parts' names."""
    return pa.concat_tables(pq.read_table(path) for path in sorted(output.glob("part-*.parquet")))


def vectors_of(table: pa.Table) -> Any:
    """The vectors `[n, dim]` of a table."""
    return np.stack(table.column("embedding").to_numpy())


def run(data: Any, output: Path, **options: Any) -> Embedded:
    """`embed_dataset` with the tiny model."""
    chosen = {"rows_per_block": ROWS_PER_BLOCK, "show_progress": False, **options}
    return embed_dataset(data, output=output, model=MODEL, dtype="float32", **chosen)


if __name__ == "__main__":
    address, data, output = sys.argv[1:]
    run(data, Path(output), address=address)
