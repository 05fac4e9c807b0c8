"""The output folder: numbered parts, whose they are, and how they are read back."""
