"""Rows of a batch: mixtures, pairs, masks, passages, conversations."""
