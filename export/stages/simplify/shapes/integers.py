"""Integer tensors that are computed from shapes: what each element is, as a size.

TensorFlow computes the target of a Reshape at run time, element by element: Shape, Cast, Slice,
Squeeze, Mul, Concat, and so on. Here the same operators run on arrays of sizes (`sizes.py`): the
tensor [n, 2*n + 1, 8] is known although n is not.

An element is followed only as far as it is certain; int32 and int64 count as whole numbers.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from .known import INTEGER, KnownShapes
from .sizes import Size, is_nonnegative, product, unknown

__all__ = ["integers_of"]


def integers_of(known: KnownShapes, node: ir.Node) -> np.ndarray | None:
    """Return the elements of a node's first output, or None if nothing is known of them."""
    rule = _RULES.get(node.op_type)
    result = rule(known, node) if rule is not None else None
    return None if result is None else np.asarray(result, dtype=object)


def _operands(known: KnownShapes, node: ir.Node) -> list[np.ndarray] | None:
    found = [known.integers(value) for value in node.inputs]
    return None if any(array is None for array in found) else found  # type: ignore[return-value]


def _shape(known: KnownShapes, node: ir.Node) -> Any:
    shape = known.shape(node.inputs[0])
    if shape is None:
        return None
    start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(shape))
    sizes = shape[start:end]
    elements = np.empty(len(sizes), dtype=object)
    elements[:] = sizes
    return elements


def _count(known: KnownShapes, node: ir.Node) -> Any:
    shape = known.shape(node.inputs[0])
    return None if shape is None else _scalar(product(shape))


def _identity(known: KnownShapes, node: ir.Node) -> Any:
    return known.integers(node.inputs[0])


def _cast(known: KnownShapes, node: ir.Node) -> Any:
    value = node.inputs[0]
    return known.integers(value) if value is not None and value.dtype in INTEGER else None


def _elementwise(combine: Callable[[KnownShapes, Size, Size], Size]) -> Any:
    def rule(known: KnownShapes, node: ir.Node) -> Any:
        operands = _operands(known, node)
        if not operands:
            return None
        result = operands[0]
        for operand in operands[1:]:
            pairs = np.broadcast(result, operand)
            combined = np.empty(pairs.shape, dtype=object)
            combined.ravel()[:] = [combine(known, a, b) for a, b in pairs]
            result = combined
        return result

    return rule


def _maximum(known: KnownShapes, a: Size, b: Size) -> Size:
    if is_nonnegative(a - b):
        return a
    if is_nonnegative(b - a):
        return b
    either = is_nonnegative(a) or is_nonnegative(b)
    return unknown(signed=not either)


def _minimum(known: KnownShapes, a: Size, b: Size) -> Size:
    if is_nonnegative(a - b):
        return b
    if is_nonnegative(b - a):
        return a
    return unknown(signed=not (is_nonnegative(a) and is_nonnegative(b)))


def _divide(known: KnownShapes, a: Size, b: Size) -> Size:
    if is_nonnegative(a) and isinstance(b, int) and b > 0:
        return known.quotient(a, b)
    return unknown(signed=True)


def _negate(known: KnownShapes, node: ir.Node) -> Any:
    operand = known.integers(node.inputs[0])
    return None if operand is None else -operand


def _concat(known: KnownShapes, node: ir.Node) -> Any:
    operands = _operands(known, node)
    return np.concatenate(operands, node.attributes.get_int("axis", 0)) if operands else None


def _slice(known: KnownShapes, node: ir.Node) -> Any:
    data, cuts = known.integers(node.inputs[0]), known.cuts(node)
    if data is None or cuts is None:
        return None
    index = [slice(None)] * data.ndim
    for axis, start, end, step in cuts:
        if not isinstance(start, int) or not isinstance(end, int) or step < 0:
            return None
        index[axis] = slice(start, end, step)
    return data[tuple(index)]


def _gather(known: KnownShapes, node: ir.Node) -> Any:
    data, value = known.integers(node.inputs[0]), node.inputs[1]
    indices = known.integers(value)
    if data is None or indices is None or not all(isinstance(i, int) for i in indices.ravel()):
        return None
    axis = node.attributes.get_int("axis", 0)
    size = data.shape[axis]
    if any(not -size <= i < size for i in indices.ravel()):
        return None
    return np.take(data, indices.astype(np.int64), axis)


def _reshaped(known: KnownShapes, node: ir.Node) -> Any:
    data, shape = known.integers(node.inputs[0]), known.shape(node.outputs[0])
    if data is None or shape is None or not all(isinstance(n, int) for n in shape):
        return None
    return data.reshape(shape) if product(shape) == data.size else None


def _reduce(known: KnownShapes, node: ir.Node) -> Any:
    data, axes = known.integers(node.inputs[0]), known.axes(node)
    if data is None or data.ndim != 1 or axes is None:
        return None
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0) != 0:
        return data
    elements = data.tolist()
    total: Size
    if node.op_type == "ReduceProd":
        total = product(elements)
    elif node.op_type == "ReduceSum":
        total = sum(elements)
    elif len(elements) == 1:
        total = elements[0]
    else:
        return None
    return _scalar(total, (1,) if node.attributes.get_int("keepdims", 1) else ())


def _scalar(size: Size, shape: tuple[int, ...] = ()) -> np.ndarray:
    array = np.empty(shape, dtype=object)
    array[...] = size
    return array


_RULES: dict[str, Callable[[KnownShapes, ir.Node], Any]] = {
    "Add": _elementwise(lambda known, a, b: a + b),
    "Cast": _cast,
    "Concat": _concat,
    "Div": _elementwise(_divide),
    "Gather": _gather,
    "Identity": _identity,
    "Max": _elementwise(_maximum),
    "Min": _elementwise(_minimum),
    "Mul": _elementwise(lambda known, a, b: a * b),
    "Neg": _negate,
    "ReduceMax": _reduce,
    "ReduceMin": _reduce,
    "ReduceProd": _reduce,
    "ReduceSum": _reduce,
    "Reshape": _reshaped,
    "Shape": _shape,
    "Size": _count,
    "Slice": _slice,
    "Squeeze": _reshaped,
    "Sub": _elementwise(lambda known, a, b: a - b),
    "Unsqueeze": _reshaped,
}
