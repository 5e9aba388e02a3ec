"""The shapes of a graph's values and the elements of its small integer tensors, as far as known.

What is asked for before it was learnt is what the graph declares, each dimension without a number
an unknown of its own (`sizes.py`). `inference.py` fills this in.

What a node's operands and attributes say of axes is read here too, for all who ask: axes that are
named, as newer opsets can, or all; numbers that are inputs or, as in opset 9, attributes.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from ....graph.exact import is_constant
from .sizes import Shape, Size, exact_quotient, unknown

__all__ = ["Cut", "Integers", "KnownShapes"]

Integers = np.ndarray[Any, Any]  # of dtype object: `int` or `Polynomial` elements

INTEGER = frozenset({ir.DataType.INT32, ir.DataType.INT64})
LARGEST = 64  # elements of an integer tensor that is followed


class Cut(NamedTuple):
    """What a Slice takes along an axis, as in Python's [start:end:step]."""

    axis: int
    start: Size
    end: Size
    step: int


class KnownShapes:
    """The shapes and the integer tensors of a graph, as sizes.

    Changes to the graph are not followed: whoever makes a value says its shape with `learn`.
    """

    def __init__(self) -> None:
        self._shapes: dict[ir.Value, Shape | None] = {}
        self._integers: dict[ir.Value, Integers | None] = {}
        self._rounded: dict[tuple[str, Size, Size], Size] = {}

    def learn(self, value: ir.Value, shape: Shape | None) -> None:
        """Note a value's shape; what the graph declares as a number is true as well."""
        declared = value.shape
        if declared is None:
            self._shapes[value] = shape
            return
        if shape is None or len(shape) != len(declared):
            shape = tuple(unknown() for _ in declared)
        self._shapes[value] = tuple(
            own if isinstance(own, int) and own >= 0 else size  # some exporters write -1
            for own, size in zip(declared, shape, strict=True)
        )

    def learn_integers(self, value: ir.Value, integers: Integers) -> None:
        """Note the elements of an integer tensor."""
        self._integers[value] = integers

    def shape(self, value: ir.Value | None) -> Shape | None:
        """Return a value's shape, or None if not even its rank is known."""
        if value is None:
            return None
        if value not in self._shapes:  # a constant, a graph input, or made behind our back
            if is_constant(value) and value.const_value is not None:
                self._shapes[value] = tuple(value.const_value.shape.numpy())
            else:
                self.learn(value, None)
        return self._shapes[value]

    def integers(self, value: ir.Value | None) -> Integers | None:
        """Return the elements of a small integer tensor of known shape, or None."""
        if value is None:
            return None
        if value not in self._integers:
            self._integers[value] = self._elements(value)
        return self._integers[value]

    def _elements(self, value: ir.Value) -> Integers | None:
        tensor = value.const_value if is_constant(value) else None
        if value.dtype not in INTEGER or (tensor is not None and tensor.size > LARGEST):
            return None
        if tensor is not None:
            return np.array(tensor.numpy(), dtype=object)
        shape = self.shape(value)
        numbers = [n for n in shape or () if isinstance(n, int)]
        if shape is None or len(numbers) < len(shape) or math.prod(numbers) > LARGEST:
            return None
        elements: Integers = np.empty(math.prod(numbers), dtype=object)
        elements[:] = [unknown(signed=True) for _ in elements]
        return elements.reshape(numbers)

    def constant_integers(self, value: ir.Value | None) -> list[int] | None:
        """Return the elements of an integer tensor if they are the same in every run."""
        integers = self.integers(value)
        if integers is None or integers.ndim > 1:
            return None
        elements = integers.ravel().tolist()
        return elements if all(isinstance(n, int) for n in elements) else None

    def axes(self, node: ir.Node, index: int = 1) -> list[int] | None:
        """Return a node's axes, an attribute or an input by opset; [] if there are none."""
        attribute = node.attributes.get("axes")
        if attribute is not None:
            return list(attribute.as_ints())
        return self.constant_integers(node.inputs[index]) if _has(node, index) else []

    def cuts(self, node: ir.Node) -> list[Cut] | None:
        """Return what a Slice takes along each of its axes, or None if that is not known."""
        shape, axes = self.shape(node.inputs[0]), self.axes(node, 3)
        starts, ends = self._listed(node, 1, "starts"), self._listed(node, 2, "ends")
        if shape is None or axes is None or starts is None or ends is None:
            return None
        axes = axes or list(range(len(starts)))
        steps = self.constant_integers(node.inputs[4]) if _has(node, 4) else [1] * len(axes)
        if steps is None or not len(starts) == len(ends) == len(axes) == len(steps):
            return None
        columns = zip(axes, starts, ends, steps, strict=True)
        return [Cut(axis % len(shape), start, end, step) for axis, start, end, step in columns]

    def pads(self, node: ir.Node) -> tuple[list[Size], list[Size]] | None:
        """Return what a Pad adds at the beginning and at the end of every axis, or None."""
        shape, axes = self.shape(node.inputs[0]), self.axes(node, 3)
        pads = self._listed(node, 1, "pads")
        if shape is None or axes is None or pads is None:
            return None
        axes = axes if _has(node, 3) else list(range(len(shape)))
        if len(pads) != 2 * len(axes):
            return None
        begins, ends = list[Size]([0] * len(shape)), list[Size]([0] * len(shape))
        for axis, begin, end in zip(axes, pads, pads[len(axes) :], strict=False):
            begins[axis], ends[axis] = begin, end
        return begins, ends

    def _listed(self, node: ir.Node, index: int, attribute: str) -> list[Size] | None:
        if attribute in node.attributes:
            return list(node.attributes[attribute].as_ints())
        numbers = self.integers(node.inputs[index]) if _has(node, index) else None
        return None if numbers is None else numbers.ravel().tolist()

    def quotient(self, dividend: Size, divisor: Size, kind: str = "floor") -> Size:
        """Return a quotient of numbers >= 0, rounded down or, for kind="ceil", up."""
        exactly = exact_quotient(dividend, divisor)
        if exactly is not None:
            return exactly
        if isinstance(dividend, int) and isinstance(divisor, int) and divisor > 0:
            return -(-dividend // divisor) if kind == "ceil" else dividend // divisor
        key = (kind, dividend, divisor)
        if key not in self._rounded:
            self._rounded[key] = unknown()
        return self._rounded[key]

    def broadcast(self, shapes: Sequence[Shape]) -> Shape:
        """Return the shape of tensors of these shapes, combined element by element."""
        rank = max(map(len, shapes))
        padded = [(1,) * (rank - len(shape)) + shape for shape in shapes]
        return tuple(self._broadcast(sizes) for sizes in zip(*padded, strict=True))

    def _broadcast(self, sizes: Sequence[Size]) -> Size:
        several = {size for size in sizes if size != 1}
        if not several:
            return 1
        numbers = [size for size in several if isinstance(size, int)]
        if numbers:
            return numbers[0]
        return several.pop() if len(several) == 1 else unknown()


def _has(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None
