"""Filters that decide which synthetic rows are good enough to train on."""
