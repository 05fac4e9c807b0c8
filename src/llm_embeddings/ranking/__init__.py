"""Which documents come first for a query: by the nearest vectors, or by BM25."""
