"""Vectors kept on disk between calls, runs and processes."""

from .store import VectorCache

__all__ = ["VectorCache"]
