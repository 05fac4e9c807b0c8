"""Text from the weights that embed."""

from .generator import GenerateOptions, Generation, Generator, Pieces

__all__ = ["GenerateOptions", "Generation", "Generator", "Pieces"]
