"""LangChain embeddings from decoder LLMs, computed by `llm-embeddings`."""

from ._version import __version__
from .cache import cache_backed
from .embeddings import LLMEmbeddings

__all__ = ["LLMEmbeddings", "__version__", "cache_backed"]
