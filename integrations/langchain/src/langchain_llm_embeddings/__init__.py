"""LangChain embeddings, retrieval and answers from decoder LLMs, computed by `llm-embeddings`."""

from importlib.metadata import version

from .cache import cache_backed
from .chat import GritLMChat
from .embeddings import LLMEmbeddings
from .prompts import DocumentPrompt
from .reranker import DocumentReranker
from .retriever import DocumentRetriever

__version__ = version("langchain-llm-embeddings")
__all__ = [
    "DocumentPrompt",
    "DocumentReranker",
    "DocumentRetriever",
    "GritLMChat",
    "LLMEmbeddings",
    "__version__",
    "cache_backed",
]
