"""Which documents come first: nearest vectors, and BM25."""
