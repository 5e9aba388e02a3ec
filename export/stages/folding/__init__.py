"""What the fold is made of: the operators that affine maps pass, and those that absorb them."""
