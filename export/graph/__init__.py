"""What all stages share: constants, names, shapes and families of operators in a graph."""
