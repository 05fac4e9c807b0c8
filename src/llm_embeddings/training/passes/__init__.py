"""Forward and backward passes: rows of token ids -> vectors, states, losses and gradients."""
