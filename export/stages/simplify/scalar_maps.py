"""Nodes that map each element of a float32 tensor by numbers.

    Add, Sub, Mul, Div, Neg        y = factor * x + offset; an Identity, which an exporter may leave
                                   in between, likewise
    Clip, Max, Min, Relu           y = clip(x, low, high)

A number is a finite constant whose elements are all the same, which adds no axis to x and repeats
none of it. Any other operand, such as numbers that differ from channel to channel, makes it no such
node. The bounds of Clip are attributes before opset 11.
"""

import math
from typing import NamedTuple

import onnx_ir as ir

from ...graph.exact import exact, is_constant
from ...graph.operators import is_standard
from .editor import Editor

__all__ = ["CLAMPS", "ScalarMap", "ScalarMaps"]

INFINITY = float("inf")
CLAMPS = ("Clip", "Max", "Min", "Relu")
OPERATORS = frozenset({*CLAMPS, "Add", "Div", "Identity", "Mul", "Neg", "Sub"})


class ScalarMap(NamedTuple):
    """What one node makes of each element: factor * x + offset, or clip(x, low, high)."""

    node: ir.Node
    x: ir.Value
    factor: float = 1.0
    offset: float = 0.0
    low: float = -INFINITY
    high: float = INFINITY

    @property
    def is_clamp(self) -> bool:
        """Whether it is a clamp rather than an affine map."""
        return self.node.op_type in CLAMPS


class ScalarMaps:
    """Finds such nodes in a graph, and their neighbours where nobody else reads what is between.

    Attributes:
        editor: The graph.
    """

    def __init__(self, editor: Editor) -> None:
        self.editor = editor
        self._numbers: dict[ir.Value, float | None] = {}

    def of(self, node: ir.Node | None) -> ScalarMap | None:
        """Return what a node makes of each element, or None if it is no such node."""
        if node is None or node.op_type not in OPERATORS or not is_standard(node):
            return None
        numbers = [self._number(value) for value in node.inputs]
        varying = [
            value
            for value, number in zip(node.inputs, numbers, strict=True)
            if value is not None and number is None
        ]
        if len(varying) != 1 or node.graph is not self.editor.graph:
            return None
        x = varying[0]
        if any(value.dtype is not ir.DataType.FLOAT for value in (x, node.outputs[0])):
            return None
        return _read(node, x, numbers) if self._keeps_shape(node, x) else None

    def above(self, value: ir.Value) -> ScalarMap | None:
        """Return the map that makes a value, if one node alone reads that."""
        return self.of(value.producer()) if self.editor.is_read_once(value) else None

    def below(self, node: ir.Node) -> ScalarMap | None:
        """Return the map that alone reads a node's output."""
        return self.of(self.editor.only_reader(node))

    def _number(self, value: ir.Value | None) -> float | None:
        if value is None or not is_constant(value):
            return None
        if value not in self._numbers:
            self._numbers[value] = _finite_number(value)
        return self._numbers[value]

    def _keeps_shape(self, node: ir.Node, x: ir.Value) -> bool:
        """Say whether the numbers of a node broadcast to x, and x to none of them."""
        shape = self.editor.known.shape(x) or ()
        for value in node.inputs:
            if value is None or value is x:
                continue
            sizes = value.const_value.shape.numpy()  # type: ignore[union-attr]  # is a number
            if len(sizes) > len(shape):
                return False
            if any(n not in (1, size) for n, size in zip(sizes[::-1], shape[::-1], strict=False)):
                return False
        return True


def _finite_number(value: ir.Value) -> float | None:
    tensor = value.const_value
    if tensor is None or tensor.dtype is not ir.DataType.FLOAT or tensor.size == 0:
        return None
    elements = exact(value)
    number = float(elements.flat[0])
    return number if math.isfinite(number) and (elements == number).all() else None


def _read(node: ir.Node, x: ir.Value, numbers: list[float | None]) -> ScalarMap | None:
    leads = node.inputs[0] is x
    if node.op_type == "Clip":
        return _clip(node, x, numbers[1:]) if leads else None
    if node.op_type == "Relu":
        return ScalarMap(node, x, low=0.0)
    if node.op_type == "Identity":
        return ScalarMap(node, x)
    if node.op_type == "Neg":
        return ScalarMap(node, x, factor=-1.0)
    number = numbers[leads] if len(numbers) == 2 else None
    return None if number is None else _by_number(node, x, number, leads=leads)


def _clip(node: ir.Node, x: ir.Value, numbers: list[float | None]) -> ScalarMap | None:
    bounds = [-INFINITY, INFINITY]
    for i, name in enumerate(("min", "max")):
        if name in node.attributes:
            bounds[i] = node.attributes.get_float(name, bounds[i])
            if not math.isfinite(bounds[i]):
                return None
        elif i < len(numbers):
            number = numbers[i]
            bounds[i] = bounds[i] if number is None else number
    return ScalarMap(node, x, low=bounds[0], high=bounds[1])


def _by_number(node: ir.Node, x: ir.Value, number: float, *, leads: bool) -> ScalarMap | None:
    match node.op_type:
        case "Add":
            return ScalarMap(node, x, offset=number)
        case "Sub":
            offset = -number if leads else number
            return ScalarMap(node, x, factor=1.0 if leads else -1.0, offset=offset)
        case "Max":
            return ScalarMap(node, x, low=number)
        case "Min":
            return ScalarMap(node, x, high=number)
        case "Mul" if number:
            return ScalarMap(node, x, factor=number)
        case "Div" if number and leads:
            return ScalarMap(node, x, factor=1.0 / number)
    return None
