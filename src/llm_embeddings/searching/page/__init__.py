"""A local web page over an index: `llm-embeddings search FOLDER --serve`."""
