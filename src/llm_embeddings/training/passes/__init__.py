"""Forward passes with gradients."""
