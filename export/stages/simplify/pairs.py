"""What one operator does to the order or the shape and the next takes back -> nothing.

    Transpose(Transpose(x, p), q)      =  x     if q undoes p
    Reshape(Reshape(x, s), shape of x) =  x     Flatten, Squeeze and Unsqueeze likewise

They meet where the batch norm between them has gone into the weights.
"""

import onnx_ir as ir

from ...graph.families import RESHAPING
from .editor import Editor

__all__ = ["cancel_pairs"]


def cancel_pairs(editor: Editor) -> bool:
    """Let the readers of such a pair read what goes into it."""
    changed = False
    for node in editor.nodes("Transpose", *RESHAPING):
        kinds = ("Transpose",) if node.op_type == "Transpose" else RESHAPING
        first = editor.producer(node.inputs[0], *kinds)
        source = first.inputs[0] if first is not None else None
        if first is None or source is None or not _undoes(editor, node, first):
            continue
        between = first.outputs[0]
        changed |= editor.bypass(node, source)
        if not between.uses() and not between.is_graph_output():
            editor.graph.remove(first, safe=True)
    return changed


def _undoes(editor: Editor, node: ir.Node, first: ir.Node) -> bool:
    if node.op_type == "Transpose":
        p, q = (n.attributes.get_ints("perm", None) for n in (first, node))
        if p is None or q is None:
            shape = editor.known.shape(node.inputs[0])
            return p is q and shape is not None
        return len(p) == len(q) and [p[axis] for axis in q] == list(range(len(p)))
    shape = editor.known.shape(first.inputs[0])
    return shape is not None and shape == editor.known.shape(node.outputs[0])
