"""Asking a language model many times: limits, retries, budget, a journal of replies."""
