"""GELUs in pieces that ONNX Runtime computes as one operator: they must stay as they are written.

    gelu(x) = x/2 (1 + erf(x / sqrt(2)))                          becomes its Gelu
    gelu(x) ~ x/2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))     becomes its FastGelu

Hendrycks & Gimpel 2016, arXiv:1606.08415. PyTorch writes these pieces before opset 20. ONNX Runtime
finds them by their constants: the division by sqrt(2), the 1, and the half, in front of the product
with x or, of the first, behind it; x x^2 is no x^3 to it. Without one of those the pieces stay
pieces, which take up to 1.35 times as long (1.32, between two convolutions). float32 alone.
"""

import math
from typing import TypeGuard

import numpy as np
import onnx_ir as ir

from ...graph.exact import exact, is_constant
from ...graph.operators import is_standard
from .editor import Editor
from .scalar_maps import ScalarMap, ScalarMaps

__all__ = ["fused_gelus"]

POINTS = np.array([-2.0, -0.7, 0.4, 1.0, 3.0])
INSIDE = {
    "Erf": POINTS / math.sqrt(2),
    "Tanh": math.sqrt(2 / math.pi) * (POINTS + 0.044715 * POINTS**3),
}
CLOSE = 1e-3  # relative; exporters round the constants
DEEPEST = 6  # nodes between x and the tanh, one behind the other
OPERATORS: dict[str, np.ufunc] = {
    "Add": np.add,
    "Div": np.divide,
    "Mul": np.multiply,
    "Pow": np.power,
}


def fused_gelus(editor: Editor) -> frozenset[ir.Node]:
    """Return the nodes of all GELUs in a graph that ONNX Runtime would take for one operator."""
    maps = ScalarMaps(editor)
    return frozenset(node for f in editor.nodes(*INSIDE) for node in _gelu_around(maps, f))


def _gelu_around(maps: ScalarMaps, f: ir.Node) -> set[ir.Node]:
    """Return the nodes of the GELU that a node is the erf or tanh of; none if it is of none."""
    one = maps.below(f)
    product = maps.editor.only_reader(one.node) if one is not None else None
    if one is None or product is None or (one.factor, one.offset) != (1, 1):
        return set()
    if product.op_type != "Mul" or not is_standard(product):
        return set()
    (other,) = (value for value in product.inputs if value is not one.node.outputs[0])
    half = maps.above(other) if other is not None else None
    x = half.x if _is_half(half) else other
    if x is other and f.op_type == "Erf":
        half = maps.below(product)
    if not _is_half(half):
        return set()
    inside: set[ir.Node] = set()
    values = _values(f.inputs[0], x, inside, DEEPEST)
    if values is None or not np.allclose(values, INSIDE[f.op_type], CLOSE, 0):
        return set()
    if f.op_type == "Erf" and [node.op_type for node in inside] != ["Div"]:
        return set()
    return {f, one.node, product, half.node, *inside}


def _is_half(step: ScalarMap | None) -> TypeGuard[ScalarMap]:
    return step is not None and not step.is_clamp and (step.factor, step.offset) == (0.5, 0)


def _values(
    value: ir.Value | None, x: ir.Value | None, nodes: set[ir.Node], depth: int
) -> np.ndarray | None:
    """Return a polynomial of x at `POINTS`, and note its nodes; None for what is none."""
    if value is None or value is x:
        return None if value is None else POINTS
    if is_constant(value):
        tensor = value.const_value
        return exact(value).ravel() if tensor is not None and tensor.size == 1 else None
    node = value.producer()
    operator = OPERATORS.get(node.op_type) if node is not None and is_standard(node) else None
    if node is None or operator is None or not depth or node.inputs[0] is node.inputs[1]:
        return None
    nodes.add(node)
    one, other = (_values(each, x, nodes, depth - 1) for each in node.inputs)
    if one is None or other is None:
        return None
    with np.errstate(all="ignore"):
        return np.asarray(operator(one, other))
