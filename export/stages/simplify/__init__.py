"""The same computation with fewer nodes: `stages.simplify`."""
