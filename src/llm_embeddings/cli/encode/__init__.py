"""`llm-embeddings encode`: texts from files -> vectors in files, through any interruption."""
