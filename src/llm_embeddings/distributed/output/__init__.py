"""The output of a run: the manifest of its folder, and reading its vectors back."""
