"""Training: each stage takes one model to the next (extra `train`)."""
