"""Text generation with the weights of an encoder that was trained for both, such as GritLM."""

from .generator import GenerateOptions, Generation, Generator, Pieces
from .reranking import Ranked, Reranker

__all__ = ["GenerateOptions", "Generation", "Generator", "Pieces", "Ranked", "Reranker"]
