"""How each operator lets an affine map through; `table.py` says which is whose."""
