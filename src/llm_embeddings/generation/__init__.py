"""Text generation with the weights of an encoder that was trained for both, such as GritLM."""

from .generator import GenerateOptions, Generation, Generator, Pieces

__all__ = ["GenerateOptions", "Generation", "Generator", "Pieces"]
