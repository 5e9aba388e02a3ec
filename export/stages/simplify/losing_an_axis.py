"""Operators that do not mix positions along an axis of size 1, and what they are without it.

    window (Conv, pools)   kernel 1, no padding there     its entries for the axis go
    elementwise            operands of size 1 there       constants are squeezed
    Transpose, Concat,     the axis is not the one        the other axes are numbered anew
    Pad, Slice             that they work on

`axes_through` says which tensors have to lose the axis together, `without_axis` makes the operator
that works on them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.families import ELEMENTWISE
from .editor import Editor
from .shapes.sizes import Size

__all__ = ["Lesser", "axes_through", "without_axis"]

Axes = list[tuple[ir.Value, int]]

WINDOWS = frozenset({"AveragePool", "Conv", "ConvTranspose", "MaxPool"})
PER_AXIS = ("dilations", "kernel_shape", "output_padding", "strides")


@dataclass
class Lesser:
    """What stands for tensors, and for constants, without an axis."""

    tensors: dict[ir.Value, ir.Value] = field(default_factory=dict)
    constants: dict[tuple[ir.Value, int], ir.Value] = field(default_factory=dict)

    def of(self, value: ir.Value | None) -> ir.Value:
        """Return the lesser tensor; every input of an operator has one when it is its turn."""
        return self.tensors[value]  # type: ignore[index]

    def of_constant(self, editor: Editor, value: ir.Value, axis: int) -> ir.Value:
        """Return a constant without an axis of size 1, the same for all its readers."""
        key = value, axis
        if key not in self.constants:
            self.constants[key] = editor.rearranged(value, "squeezed", lambda a: a.squeeze(axis))
        return self.constants[key]


def axes_through(editor: Editor, node: ir.Node, value: ir.Value, axis: int) -> Axes | None:
    """Return all tensors of a node that have the axis, with its number, or None if it mixes it.

    Args:
        editor: The graph.
        node: Any node that reads or makes `value`.
        value: A tensor with an axis of size 1.
        axis: That axis.
    """
    rule = _RULES.get(node.op_type)
    if rule is None or editor.producer(node.outputs[0], node.op_type) is not node:
        return None
    if len(node.outputs) != 1:
        return None
    found = rule[0](editor, node, value, axis)
    for tensor, at in found or ():
        shape = editor.known.shape(tensor)
        if shape is None or not at < len(shape) or shape[at] != 1:
            return None
    return found


def without_axis(editor: Editor, node: ir.Node, axis: int, lesser: Lesser) -> ir.Value:
    """Insert the operator without an axis before `node`, and return its output.

    Args:
        editor: The graph.
        node: An operator that `axes_through` accepts.
        axis: The axis of the operator's output.
        lesser: What stands for its inputs without their axis.
    """
    output = node.outputs[0]
    inputs, attributes = _RULES[node.op_type][1](editor, node, axis, lesser)
    shape = editor.known.shape(output)
    without = None if shape is None else shape[:axis] + shape[axis + 1 :]
    name = f"{output.name}/squeezed"
    new = editor.insert(node, node.op_type, inputs, attributes, without, name)
    new.type = output.type
    new.meta.update(output.meta)
    return new


Parts = tuple[Sequence[ir.Value | None], dict[str, Any]]  # inputs and attributes
Through = Callable[[Editor, ir.Node, ir.Value, int], Axes | None]
Without = Callable[[Editor, ir.Node, int, Lesser], Parts]


def _window(editor: Editor, node: ir.Node, value: ir.Value, axis: int) -> Axes | None:
    data, output = node.inputs[0], node.outputs[0]
    shape, weight = editor.known.shape(data), None
    if data is None or shape is None or value not in (data, output) or axis < 2 or len(shape) < 4:
        return None
    kernel: Sequence[Size] | None = node.attributes.get_ints("kernel_shape")
    if node.op_type in ("Conv", "ConvTranspose"):
        weight = node.inputs[1]
        if weight is None or weight.const_value is None or not is_constant(weight):
            return None
        kernel = weight.const_value.shape.numpy()[2:]
    rank, at = len(shape) - 2, axis - 2
    pads = node.attributes.get_ints("pads", (0,) * 2 * rank)
    more = node.attributes.get_ints("output_padding", (0,) * rank)
    if kernel is None or kernel[at] != 1 or pads[at] or pads[rank + at] or more[at]:
        return None
    if "output_shape" in node.attributes:
        return None
    return [(data, axis), (output, axis)]


def _window_without(editor: Editor, node: ir.Node, axis: int, lesser: Lesser) -> Parts:
    inputs = list(node.inputs)
    inputs[0] = lesser.of(inputs[0])
    if len(inputs) > 1 and inputs[1] is not None:
        inputs[1] = lesser.of_constant(editor, inputs[1], axis)
    attributes = dict(node.attributes)
    for name in PER_AXIS:
        if name in attributes:
            left = list(attributes[name].as_ints())
            del left[axis - 2]
            attributes[name] = ir.AttrInt64s(name, left)
    if "pads" in attributes:
        pads = list(attributes["pads"].as_ints())
        rank = len(pads) // 2
        del pads[rank + axis - 2], pads[axis - 2]
        attributes["pads"] = ir.AttrInt64s("pads", pads)
    return inputs, attributes


def _elementwise(editor: Editor, node: ir.Node, value: ir.Value, axis: int) -> Axes | None:
    output = node.outputs[0]
    whole, own = editor.known.shape(output), editor.known.shape(value)
    if whole is None or own is None or len(own) != len(whole):
        return None
    found: Axes = [(output, axis)]
    for operand in node.inputs:
        shape = editor.known.shape(operand)
        if operand is None:
            continue
        if shape is None:
            return None
        at = axis - (len(whole) - len(shape))
        if at < 0:  # it is right of the axis, and stays there
            continue
        if shape[at] != 1 or (len(shape) < len(whole) and not is_constant(operand)):
            return None
        if not is_constant(operand):
            found.append((operand, at))
    return found


def _elementwise_without(editor: Editor, node: ir.Node, axis: int, lesser: Lesser) -> Parts:
    rank = len(editor.known.shape(node.outputs[0]) or ())
    inputs: list[ir.Value | None] = []
    for operand in node.inputs:
        shape = editor.known.shape(operand)
        if operand is None or shape is None or (at := axis - (rank - len(shape))) < 0:
            inputs.append(operand)
        elif is_constant(operand):
            inputs.append(lesser.of_constant(editor, operand, at))
        else:
            inputs.append(lesser.of(operand))
    return inputs, dict(node.attributes)


def _normalization(editor: Editor, node: ir.Node, value: ir.Value, axis: int) -> Axes | None:
    data, output = node.inputs[0], node.outputs[0]
    if data is None or value not in (data, output) or axis < 2:
        return None
    return [(data, axis), (output, axis)]


def _first_without(editor: Editor, node: ir.Node, axis: int, lesser: Lesser) -> Parts:
    return [lesser.of(node.inputs[0]), *node.inputs[1:]], dict(node.attributes)


def _transpose(editor: Editor, node: ir.Node, value: ir.Value, axis: int) -> Axes | None:
    data, output, perm = node.inputs[0], node.outputs[0], node.attributes.get_ints("perm")
    if data is None or perm is None:
        return None
    if value is data:
        return [(data, axis), (output, perm.index(axis))]
    return [(data, perm[axis]), (output, axis)]


def _transpose_without(editor: Editor, node: ir.Node, axis: int, lesser: Lesser) -> Parts:
    perm = list(node.attributes["perm"].as_ints())
    gone = perm.pop(axis)
    return [lesser.of(node.inputs[0])], {"perm": [i - (i > gone) for i in perm]}


def _concat(editor: Editor, node: ir.Node, value: ir.Value, axis: int) -> Axes | None:
    shape = editor.known.shape(value)
    if shape is None or node.attributes.get_int("axis", 0) % len(shape) == axis:
        return None
    operands = [operand for operand in node.inputs if operand is not None]
    if any(is_constant(v) and (editor.known.shape(v) or ())[axis] != 1 for v in operands):
        return None
    return [(v, axis) for v in (*operands, node.outputs[0]) if not is_constant(v)]


def _concat_without(editor: Editor, node: ir.Node, axis: int, lesser: Lesser) -> Parts:
    rank = len(editor.known.shape(node.outputs[0]) or ())
    along = node.attributes.get_int("axis", 0) % rank
    inputs = [
        lesser.of_constant(editor, v, axis) if is_constant(v) else lesser.of(v)
        for v in node.inputs
        if v is not None
    ]
    return inputs, {"axis": along - (along > axis)}


def _pad(editor: Editor, node: ir.Node, value: ir.Value, axis: int) -> Axes | None:
    data, pads = node.inputs[0], editor.known.pads(node)
    if data is None or pads is None or not all(isinstance(n, int) for side in pads for n in side):
        return None
    return None if any(side[axis] for side in pads) else [(data, axis), (node.outputs[0], axis)]


def _pad_without(editor: Editor, node: ir.Node, axis: int, lesser: Lesser) -> Parts:
    sides = editor.known.pads(node) or ()
    pads = [n for side in sides for n in (*side[:axis], *side[axis + 1 :]) if isinstance(n, int)]
    constant = editor.integers(f"{node.outputs[0].name}/pads", pads)
    fill = [node.inputs[2]] if len(node.inputs) > 2 and node.inputs[2] is not None else []
    return [lesser.of(node.inputs[0]), constant, *fill], dict(node.attributes)


def _slice(editor: Editor, node: ir.Node, value: ir.Value, axis: int) -> Axes | None:
    data, cuts = node.inputs[0], editor.known.cuts(node)
    if data is None or cuts is None or not all(isinstance(n, int) for cut in cuts for n in cut):
        return None
    return [(data, axis), (node.outputs[0], axis)]


def _slice_without(editor: Editor, node: ir.Node, axis: int, lesser: Lesser) -> Parts:
    rows = [
        (cut.start, cut.end, cut.axis - (cut.axis > axis), cut.step)
        for cut in editor.known.cuts(node) or ()
        if cut.axis != axis  # one element out of one
    ]
    columns = zip(*rows, strict=True) if rows else [(0,), (np.iinfo(np.int64).max,), (0,), (1,)]
    names = ("starts", "ends", "axes", "steps")
    constants = [
        editor.integers(f"{node.outputs[0].name}/{name}", [int(n) for n in column])
        for name, column in zip(names, columns, strict=True)
    ]
    return [lesser.of(node.inputs[0]), *constants], {}


_RULES: dict[str, tuple[Through, Without]] = {
    **dict.fromkeys(ELEMENTWISE, (_elementwise, _elementwise_without)),
    **dict.fromkeys(WINDOWS, (_window, _window_without)),
    "BatchNormalization": (_normalization, _first_without),
    "Concat": (_concat, _concat_without),
    "Pad": (_pad, _pad_without),
    "Slice": (_slice, _slice_without),
    "Transpose": (_transpose, _transpose_without),
}
