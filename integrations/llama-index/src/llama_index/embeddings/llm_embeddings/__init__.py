"""LlamaIndex embeddings from decoder LLMs, computed by `llm-embeddings`."""

from ._version import __version__
from .base import LLMEmbedding

__all__ = ["LLMEmbedding", "__version__"]
