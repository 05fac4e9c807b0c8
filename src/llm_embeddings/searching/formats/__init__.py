"""Readers of formats: bytes of a file -> its text in sections."""
