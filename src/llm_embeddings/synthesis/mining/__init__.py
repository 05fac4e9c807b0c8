"""Hard negatives from a corpus."""
