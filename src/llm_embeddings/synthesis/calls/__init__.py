"""Many calls of a language model: its kinds, retries, the budget, and a journal of replies."""
