"""Which precision a graph computes in: `choice.set_precision`."""
