"""Weights of a model in training: loaded, with adapters, head and new tokens, and saved again."""
