"""Sizes that are computed at run time -> constants, and the chains that computed them go.

    Slice(x, starts, n + c)   =  Slice(x, starts, c)            n the size of x, c < 0, n + c >= 0
    Expand(x, (n, 8))         =  Expand(x, (1, 8))              n the size of x at that axis
    Resize(x, sizes=(n, 2*m)) =  Resize(x, scales=(1, 2))       (n, m) the shape of x
    Reshape(Reshape(x, s) @ w, t)  =  x @ w                     s joins and t parts the same axes
    any integers that are the same in every run  =  those integers

A number that depends on a dynamic dimension in any other way is left to be computed.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.operators import is_standard
from .editor import Editor
from .shapes.known import INTEGER
from .shapes.sizes import Size, exact_quotient, is_nonnegative, product

__all__ = ["drop_flattening", "fix_integers"]

TO_THE_END = np.iinfo(np.int64).max


def fix_integers(editor: Editor) -> bool:
    """Replace integer inputs that are known, or that a constant can stand for."""
    changed = False
    fixed: dict[ir.Value, ir.Value] = {}
    for node in list(editor.graph):
        if not is_standard(node) or _is_known(editor, node.outputs[0]):
            continue
        for index, value in enumerate(node.inputs):
            if value is not None and not is_constant(value) and _is_known(editor, value):
                if value not in fixed:
                    fixed[value] = _as_constant(editor, value)
                node.replace_input_with(index, fixed[value])
                changed = True
        rule = _RULES.get(node.op_type)
        changed |= rule is not None and rule(editor, node)
    return changed


def _is_known(editor: Editor, value: ir.Value) -> bool:
    if value.dtype not in INTEGER or value.is_graph_output():
        return False
    integers = editor.known.integers(value)
    return integers is not None and all(isinstance(n, int) for n in integers.ravel())


def _as_constant(editor: Editor, value: ir.Value) -> ir.Value:
    dtype = value.dtype.numpy() if value.dtype is not None else np.int64
    return editor.integers(f"{value.name}/constant", editor.known.integers(value), dtype)


def _fix_slice(editor: Editor, node: ir.Node) -> bool:
    """Write ends, and starts, that follow the size of the data as distances from its end."""
    known, changed = editor.known, False
    shape = known.shape(node.inputs[0])
    axes = known.axes(node, 3)
    steps = known.constant_integers(node.inputs[4]) if len(node.inputs) > 4 else [1]
    if shape is None or axes is None or steps is None or any(step != 1 for step in steps):
        return False
    for index in (1, 2):
        value = node.inputs[index]
        integers = known.integers(value)
        if value is None or integers is None or is_constant(value):
            continue
        at = [shape[axis] for axis in axes or range(integers.size)]
        found = [_distance(n, size, index) for n, size in zip(integers, at, strict=True)]
        if all(distance is not None for distance in found):
            dtype = value.dtype.numpy() if value.dtype is not None else np.int64
            limit = np.iinfo(dtype).max
            elements = [min(distance, limit) for distance in found if distance is not None]
            constant = editor.integers(f"{value.name}/constant", elements, dtype)
            node.replace_input_with(index, constant)
            changed = True
    return changed


def _distance(position: Size, size: Size, index: int) -> int | None:
    if isinstance(position, int):
        return position
    beyond = position - size
    if not isinstance(beyond, int) or not is_nonnegative(position):
        return None
    if beyond >= 0:
        return TO_THE_END if index == 2 else None
    return beyond


def _fix_expand(editor: Editor, node: ir.Node) -> bool:
    shape, target = editor.known.shape(node.inputs[0]), editor.known.integers(node.inputs[1])
    if shape is None or target is None or is_constant(node.inputs[1]):
        return False
    elements = []
    for i, size in enumerate(reversed(target.tolist())):
        own = shape[-1 - i] if i < len(shape) else None
        if not isinstance(size, int) and size != own:
            return False
        elements.append(size if isinstance(size, int) else 1)
    name = f"{node.outputs[0].name}/shape"
    node.replace_input_with(1, editor.integers(name, list(reversed(elements))))
    return True


def _fix_resize(editor: Editor, node: ir.Node) -> bool:
    shape = editor.known.shape(node.inputs[0])
    sizes = editor.known.integers(node.inputs[3]) if len(node.inputs) > 3 else None
    unusual = {"axes", "keep_aspect_ratio_policy"} & set(node.attributes)
    if shape is None or sizes is None or is_constant(node.inputs[3]) or unusual:
        return False
    if sizes.size != len(shape):
        return False
    scales = [exact_quotient(size, n) for size, n in zip(sizes, shape, strict=True)]
    if not all(isinstance(scale, int) and scale > 0 for scale in scales):
        return False
    constant = editor.constant(
        f"{node.outputs[0].name}/scales", ir.tensor(np.array(scales, np.float32))
    )
    node.replace_input_with(2, constant)
    node.resize_inputs(3)
    return True


_RULES = {"Expand": _fix_expand, "Resize": _fix_resize, "Slice": _fix_slice}


def drop_flattening(editor: Editor) -> bool:
    """Multiply by a matrix without joining the other axes first and parting them again."""
    changed = False
    for matmul in editor.nodes("MatMul"):
        joined, after = matmul.inputs[0], editor.only_reader(matmul)
        before = editor.producer(joined, "Reshape", "Flatten")
        if before is None or after is None:
            continue
        if editor.producer(after.outputs[0], "Reshape") is None:
            continue
        x, shape = before.inputs[0], editor.known.shape(before.inputs[0])
        flat, result = editor.known.shape(joined), editor.known.shape(after.outputs[0])
        weight = editor.known.shape(matmul.inputs[1])
        if x is None or shape is None or flat is None or weight is None or len(weight) != 2:
            continue
        if len(shape) < 3 or flat != (product(shape[:-1]), shape[-1]):
            continue
        if result != (*shape[:-1], weight[1]):
            continue
        _multiply(editor, after, x, matmul)
        changed = True
    return changed


def _multiply(editor: Editor, after: ir.Node, x: ir.Value, matmul: ir.Node) -> None:
    inputs: Sequence[ir.Value | None] = [x, matmul.inputs[1]]
    new = editor.replace(after, "MatMul", inputs)
    new.name = matmul.name
    editor.graph.remove(matmul, safe=True)
