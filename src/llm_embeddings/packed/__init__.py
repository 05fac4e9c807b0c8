"""Many texts in one row without padding: their layout, attention, shared first tokens."""
