"""LLM embedders in sentence-transformers: the same vectors, its API, its trainer."""

from ._version import __version__
from .module import EncoderModule, as_sentence_transformer

__all__ = ["EncoderModule", "__version__", "as_sentence_transformer"]
