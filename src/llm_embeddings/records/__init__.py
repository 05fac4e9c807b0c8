"""Rows of users' files: lines, columns, sources, examples."""
