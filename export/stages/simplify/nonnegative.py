"""Whether a tensor is >= 0 whatever the input is, as behind a Relu.

Some operators make it so (Relu, Sigmoid, Exp, ...), some keep it so (pools, Concat, Mul, ...). The
question goes up the graph from operator to operator until every way ends at one of the first kind,
or at constants without a negative element.
"""

from collections.abc import Callable

import onnx_ir as ir

from ...graph.exact import FLOATING, exact, is_constant
from ...graph.families import REARRANGING, TAKING
from .editor import Editor

__all__ = ["is_never_negative"]

LARGEST = 1 << 16  # elements of a constant that is looked at
MAKING = frozenset(
    "Abs Exp HardSigmoid Relu ReduceL1 ReduceL2 ReduceSumSquare Sigmoid Softmax Softplus".split()
)
KEEPING = frozenset(
    """Add Concat Div GlobalAveragePool GlobalMaxPool Max Mean Min Mul ReduceMax ReduceMean
    ReduceMin ReduceProd ReduceSum Sqrt Sum""".split()
)
KEEPING_FIRST = (REARRANGING | TAKING | {"Dropout"}) - KEEPING  # the other inputs are no data


def is_never_negative(editor: Editor, value: ir.Value) -> bool:
    """Say whether every element of a tensor is >= 0 in every run; False where it is not clear."""
    if value.dtype not in FLOATING:  # integers wrap around
        return False
    pending, seen = [value], {value}
    while pending:
        value = pending.pop()
        for source in _needed(editor, value):
            if source is None:
                return False
            if source not in seen:
                seen.add(source)
                pending.append(source)
    return True


def _needed(editor: Editor, value: ir.Value) -> list[ir.Value | None]:
    """Return the tensors that must be >= 0 for a value to be; [None] if there is no telling."""
    if is_constant(value):
        return [] if _has_no_negative(value) else [None]
    node = value.producer()
    if node is None or editor.producer(value, node.op_type) is None or node.outputs[0] is not value:
        return [None]
    if node.op_type in MAKING or (node.op_type in _MAKING_IF and _MAKING_IF[node.op_type](node)):
        return []
    if node.op_type in KEEPING:
        return list(node.inputs)
    if node.op_type in KEEPING_FIRST or (
        node.op_type in _KEEPING_IF and _KEEPING_IF[node.op_type](node)
    ):
        return [node.inputs[0]]
    return [None]


def _has_no_negative(value: ir.Value) -> bool:
    tensor = value.const_value if is_constant(value) else None
    return tensor is not None and tensor.size <= LARGEST and bool((exact(value) >= 0).all())


def _clips_below(node: ir.Node) -> bool:
    """Clip(x, 0, 6); with max < min all of it is max, so that has to be >= 0 too."""
    low = node.inputs[1] if len(node.inputs) > 1 else None
    high = node.inputs[2] if len(node.inputs) > 2 else None
    if low is None or not _has_no_negative(low):
        return False
    return high is None or _has_no_negative(high)


def _is_square(node: ir.Node) -> bool:
    return node.inputs[0] is node.inputs[1]


def _has_a_floor(node: ir.Node) -> bool:
    return any(value is not None and _has_no_negative(value) for value in node.inputs)


def _covers_data(node: ir.Node) -> bool:
    """Say whether every window of a pool holds an element of the data."""
    dilations = node.attributes.get_ints("dilations", ())
    kernel = node.attributes.get_ints("kernel_shape", ())
    pads = node.attributes.get_ints("pads", (0,) * 2 * len(kernel))
    if node.attributes.get_int("ceil_mode", 0) or any(d != 1 for d in dilations):
        return False
    rank = len(kernel)
    return all(pads[i] + pads[rank + i] < size for i, size in enumerate(kernel))


def _pads_with_data(node: ir.Node) -> bool:
    fill = node.inputs[2] if len(node.inputs) > 2 else None
    return fill is None or _has_no_negative(fill)


def _is_floating(node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype in FLOATING and node.outputs[0].dtype in FLOATING


def _interpolates(node: ir.Node) -> bool:
    return node.attributes.get_string("mode", "nearest") in ("linear", "nearest") and (
        node.attributes.get_float("extrapolation_value", 0.0) >= 0
    )


_MAKING_IF: dict[str, Callable[[ir.Node], bool]] = {
    "Clip": _clips_below,
    "Max": _has_a_floor,
    "Mul": _is_square,
}
_KEEPING_IF: dict[str, Callable[[ir.Node], bool]] = {
    "AveragePool": _covers_data,
    "Cast": _is_floating,
    "MaxPool": _covers_data,
    "Pad": _pads_with_data,
    "Resize": _interpolates,
}
