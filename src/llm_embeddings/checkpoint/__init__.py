"""A hub id or a directory -> a checked model: files, recipe, weights, adapters; and back."""
