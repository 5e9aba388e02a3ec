"""What is known of the shapes in a graph, and of integers computed from them."""
