"""Embedding on a cluster with Ray Data.

`EmbedBatch` is for `Dataset.map_batches` in pipelines of one's own. `embed_dataset` reads files or
a Ray Dataset and writes numbered Parquet files; after a crash, the same call goes on from there.
"""

from __future__ import annotations

from .batch import EmbedBatch
from .options import EmbeddingOptions
from .output.result import Embedded, read_embeddings
from .run import embed_dataset

__all__ = ["EmbedBatch", "Embedded", "EmbeddingOptions", "embed_dataset", "read_embeddings"]
