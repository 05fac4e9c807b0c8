"""LangChain embeddings from decoder LLMs, computed by `llm-embeddings`."""

from importlib.metadata import version

from .cache import cache_backed
from .embeddings import LLMEmbeddings

__version__ = version("langchain-llm-embeddings")
__all__ = ["LLMEmbeddings", "__version__", "cache_backed"]
