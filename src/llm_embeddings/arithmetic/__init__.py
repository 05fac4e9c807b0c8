"""What the weights are computed in: dtype, int8 and fp8, the layout a CPU multiplies in."""
