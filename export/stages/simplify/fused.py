"""What ONNX Runtime would make one operator of, as it is written, and no fold may take apart."""

import onnx_ir as ir

from .fused_gelus import fused_gelus
from .fused_norms import fused_norms

__all__ = ["fused"]


def fused(graph: ir.Graph) -> frozenset[ir.Node]:
    """Return the operators of a graph that must stay as they are for that."""
    return fused_gelus(graph) | fused_norms(graph)
