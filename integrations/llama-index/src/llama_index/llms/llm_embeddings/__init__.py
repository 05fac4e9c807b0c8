"""LlamaIndex answers from models that embed and generate, computed by `llm-embeddings`."""

from .base import GritLM
from .query import DocumentQueryEngine, DocumentRetriever, DocumentSynthesizer

__all__ = ["DocumentQueryEngine", "DocumentRetriever", "DocumentSynthesizer", "GritLM"]
