"""The training loop that all stages share, with its checkpoints, metrics and model card."""
