"""Search in one's own files: files -> passages -> an index on disk -> hits.

`llm-embeddings search` is its command line.
"""
