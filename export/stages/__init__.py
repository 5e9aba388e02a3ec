"""A graph in, a graph out: the stages from a Keras model to what is written, in one order."""
