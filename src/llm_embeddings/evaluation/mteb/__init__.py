"""MTEB: an encoder that asks as each family's authors did, and own files as tasks."""
