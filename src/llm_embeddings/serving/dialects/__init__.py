"""What clients of other services send and read; the work is the same service's."""

from __future__ import annotations

from . import cohere, openai, rerank, tei
from .dialect import Dialect

DIALECTS: tuple[Dialect, ...] = (
    openai.EMBEDDINGS,
    cohere.EMBED,
    tei.EMBED,
    tei.EMBED_ALL,
    tei.SIMILARITY,
    *rerank.RERANK,
)
