"""A hub id or a directory -> a checked model: files, recipe, weights, adapters; and back."""

from .options import LoadOptions

__all__ = ["LoadOptions"]
