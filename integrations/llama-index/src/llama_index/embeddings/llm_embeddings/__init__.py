"""LlamaIndex embeddings from decoder LLMs, computed by `llm-embeddings`."""

from importlib.metadata import version

from .base import LLMEmbedding

__version__ = version("llama-index-embeddings-llm-embeddings")
__all__ = ["LLMEmbedding", "__version__"]
