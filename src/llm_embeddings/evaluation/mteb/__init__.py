"""MTEB: encoders for its tasks, one's own files as tasks, and published scores to compare with."""
