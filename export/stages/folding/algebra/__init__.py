"""The laws of affine maps, without any graph."""
