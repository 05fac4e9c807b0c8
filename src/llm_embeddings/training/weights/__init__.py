"""A model on disk -> one to train, and back."""
