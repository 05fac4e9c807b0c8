"""Ray Data: a map for pipelines of one's own, and whole data sets embedded through any crash.

`EmbedBatch` goes into `Dataset.map_batches`. `embed_dataset` reads files or a Ray Dataset and
writes numbered Parquet files; called again, it goes on where it stopped.
"""

from __future__ import annotations

from .batch import EmbedBatch
from .options import EmbeddingOptions
from .output.result import Embedded, read_embeddings
from .run import embed_dataset

__all__ = ["EmbedBatch", "Embedded", "EmbeddingOptions", "embed_dataset", "read_embeddings"]
