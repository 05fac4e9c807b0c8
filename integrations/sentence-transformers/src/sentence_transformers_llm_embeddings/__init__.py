"""LLM embedders in sentence-transformers: the same vectors, its API, its trainer."""

from importlib.metadata import version

from .module import EncoderModule
from .wrapping import as_sentence_transformer

__version__ = version("sentence-transformers-llm-embeddings")
__all__ = ["EncoderModule", "__version__", "as_sentence_transformer"]
