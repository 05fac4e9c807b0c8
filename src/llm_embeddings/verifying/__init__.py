"""Is a loaded model what its authors published? Their numbers, sentence-transformers, itself."""

from .report import Check, Verification

__all__ = ["Check", "Verification"]
