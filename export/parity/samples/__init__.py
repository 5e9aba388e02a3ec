"""The inputs that a file and its model are compared on."""
