"""What is known of every shape in a graph, and of every integer that is computed from shapes.

One walk down the graph. A dimension that varies is an unknown of its own, and each operator says
what its outputs' sizes are in terms of its inputs' (`rules.py`, `windows.py`), so that two
dimensions that are equal in every run are found equal: behind a Conv1DTranspose of stride 2 and a
Slice, 2*n.

ONNX's own inference forgets: a dimension that it cannot write as a number or as an existing name
gets a new name. Where an operator is unknown here, what the graph declares is taken.
"""

import onnx_ir as ir

from ....graph.operators import is_standard
from . import rules, windows
from .integers import integers_of
from .known import INTEGER, LARGEST, Integers, KnownShapes

__all__ = ["known_shapes"]

RULES = {**rules.RULES, **windows.RULES}


def known_shapes(graph: ir.Graph) -> KnownShapes:
    """Find the shapes and the integers of a graph whose nodes are in topological order."""
    known = KnownShapes()
    for node in graph:
        _follow(known, node)
    return known


def _follow(known: KnownShapes, node: ir.Node) -> None:
    """Learn the shapes, and the integers, of a node's outputs."""
    rule = RULES.get(node.op_type) if is_standard(node) else None
    try:
        shape = rule(known, node) if rule is not None else None
    except Exception as e:  # operands that do not fit together: the caller tells the model's origin
        e.add_note(f"{node.op_type} {node.name}")
        raise
    for i, output in enumerate(node.outputs):
        known.learn(output, shape if i == 0 else None)
    if rule is not None and node.outputs[0].dtype in INTEGER:
        integers = integers_of(known, node)
        if integers is not None and _fits(integers, node.outputs[0].dtype):
            known.learn_integers(node.outputs[0], integers)


def _fits(integers: Integers, dtype: ir.DataType | None) -> bool:
    """Say whether integers are few, and none has wrapped around."""
    bits = 31 if dtype is ir.DataType.INT32 else 63
    numbers = (n for n in integers.ravel() if isinstance(n, int))
    return integers.size <= LARGEST and all(-(1 << bits) <= n < 1 << bits for n in numbers)
