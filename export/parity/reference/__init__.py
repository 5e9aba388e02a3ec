"""What a Keras model computes: as it is, in float64, and rounded otherwise."""
