"""Operators that change nothing -> nothing.

Identity, Dropout in inference, Cast to the dtype it has, Concat, Max, Mean, Min, Sum of one
Cast(Cast(x, b), c)                      =  Cast(x, c)     if b holds every value of x's dtype
Transpose(Transpose(x, p), q)            =  Transpose(x, p[q])
Expand, Pad, Slice, Tile, Transpose      =  x              if every size, or every axis, stays
"""

from collections.abc import Callable

import onnx_ir as ir

from ...graph.exact import is_constant
from .editor import Editor

__all__ = ["drop_noops"]

D = ir.DataType
UNSIGNED = (D.UINT8, D.UINT16, D.UINT32, D.UINT64)
SIGNED = (D.INT8, D.INT16, D.INT32, D.INT64)
FLOATING = {D.FLOAT16: 11, D.BFLOAT16: 8, D.FLOAT: 24, D.DOUBLE: 53}  # bits of the significand


def drop_noops(editor: Editor) -> bool:
    """Let the readers of an operator that changes nothing read its input."""
    changed = False
    for node in editor.nodes(*_RULES):
        source = node.inputs[0] if node.inputs else None
        if source is None:
            continue
        if _RULES[node.op_type](editor, node):
            changed |= editor.bypass(node, source)
        elif node.op_type == "Cast":
            changed |= _merge_casts(editor, node)
        elif node.op_type == "Transpose":
            changed |= _merge_transposes(editor, node)
    return changed


def _always(editor: Editor, node: ir.Node) -> bool:
    return True


def _of_one(editor: Editor, node: ir.Node) -> bool:
    return len(node.inputs) == 1


def _in_inference(editor: Editor, node: ir.Node) -> bool:
    if len(node.outputs) > 1 and (node.outputs[1].uses() or node.outputs[1].is_graph_output()):
        return False
    training = node.inputs[2] if len(node.inputs) > 2 else None
    if training is None:
        return True
    tensor = training.const_value if is_constant(training) else None
    return tensor is not None and not tensor.numpy().any()


def _keeps_dtype(editor: Editor, node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype == node.attributes.get_int("to")


def _keeps_shape(editor: Editor, node: ir.Node) -> bool:
    shape = editor.known.shape(node.inputs[0])
    return shape is not None and shape == editor.known.shape(node.outputs[0])


def _slices_nothing(editor: Editor, node: ir.Node) -> bool:
    steps = editor.known.constant_integers(node.inputs[4]) if len(node.inputs) > 4 else [1]
    return _keeps_shape(editor, node) and steps is not None and all(step == 1 for step in steps)


def _pads_nothing(editor: Editor, node: ir.Node) -> bool:
    pads = editor.known.constant_integers(node.inputs[1])
    return pads is not None and not any(pads)


def _repeats_nothing(editor: Editor, node: ir.Node) -> bool:
    repeats = editor.known.constant_integers(node.inputs[1])
    return repeats is not None and all(times == 1 for times in repeats)


def _keeps_order(editor: Editor, node: ir.Node) -> bool:
    perm = node.attributes.get_ints("perm")
    if perm is None:
        shape = editor.known.shape(node.inputs[0])
        return shape is not None and len(shape) < 2
    return list(perm) == list(range(len(perm)))


_RULES: dict[str, Callable[[Editor, ir.Node], bool]] = {
    **dict.fromkeys(("Concat", "Max", "Mean", "Min", "Sum"), _of_one),
    "Cast": _keeps_dtype,
    "Dropout": _in_inference,
    "Expand": _keeps_shape,
    "Identity": _always,
    "Pad": _pads_nothing,
    "Slice": _slices_nothing,
    "Tile": _repeats_nothing,
    "Transpose": _keeps_order,
}


def _merge_casts(editor: Editor, node: ir.Node) -> bool:
    inner = editor.producer(node.inputs[0], "Cast")
    first = inner.inputs[0] if inner is not None else None
    if inner is None or first is None or first.dtype is None:
        return False
    if not _holds(D(inner.attributes.get_int("to")), first.dtype):
        return False
    node.replace_input_with(0, first)
    if _keeps_dtype(editor, node):
        editor.bypass(node, first)
    return True


def _merge_transposes(editor: Editor, node: ir.Node) -> bool:
    inner = editor.producer(node.inputs[0], "Transpose")
    second = node.attributes.get_ints("perm")
    first = inner.attributes.get_ints("perm") if inner is not None else None
    if inner is None or inner.inputs[0] is None or first is None or second is None:
        return False
    node.attributes["perm"] = ir.AttrInt64s("perm", [first[axis] for axis in second])
    node.replace_input_with(0, inner.inputs[0])
    if _keeps_order(editor, node):
        editor.bypass(node, inner.inputs[0])
    return True


def _holds(wide: ir.DataType, narrow: ir.DataType) -> bool:
    """Say whether every value of one dtype is a value of another."""
    if wide == narrow or (narrow == D.BOOL and wide in {*UNSIGNED, *SIGNED, *FLOATING}):
        return True
    if narrow in FLOATING:
        return wide in FLOATING and (
            FLOATING[wide] >= FLOATING[narrow] and (wide, narrow) != (D.FLOAT16, D.BFLOAT16)
        )
    for family in (UNSIGNED, SIGNED):
        if narrow not in family:
            continue
        rank = family.index(narrow)
        bits = 8 << rank
        if wide in family:
            return family.index(wide) >= rank
        if wide in SIGNED:  # an unsigned integer in a wider signed one
            return SIGNED.index(wide) > rank
        return bits <= FLOATING.get(wide, 0)
    return False
