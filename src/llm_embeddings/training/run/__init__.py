"""The loop that all stages share: updates, state, checkpoints, metrics, the model card."""
