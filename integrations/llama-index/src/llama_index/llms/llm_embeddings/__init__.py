"""LlamaIndex answers from models that embed and generate, computed by `llm-embeddings`."""

from .base import GritLM
from .query import DocumentQueryEngine, DocumentRetriever, DocumentSynthesizer
from .reranker import DocumentReranker

__all__ = [
    "DocumentQueryEngine",
    "DocumentReranker",
    "DocumentRetriever",
    "DocumentSynthesizer",
    "GritLM",
]
