"""Attacks on what is stored and on what is loaded, with counts."""
