"""What ONNX Runtime would make one operator of, as it is written, and no fold may take apart."""

import onnx_ir as ir

from .editor import Editor
from .fused_gelus import fused_gelus
from .fused_norms import fused_norms
from .shapes.inference import known_shapes

__all__ = ["fused"]


def fused(graph: ir.Graph) -> frozenset[ir.Node]:
    """Return the operators of a graph that must stay as they are for that."""
    editor = Editor(graph, known_shapes(graph))
    return fused_gelus(editor) | fused_norms(editor)
