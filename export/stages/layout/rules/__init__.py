"""How each kind of operator works on rearranged tensors."""
