"""Reshape, Squeeze, Unsqueeze and Flatten only say a shape: in a row, the last one decides.

    g(f(x))  =  Reshape(x, shape of the result), nothing if that is the shape of x

A constant target has a number for each size that is one, 0 for a size that x has at the same axis,
and -1 for at most one other. A tensor without elements decides how: there, -1 next to a dimension
of size 0 can be anything, so -1 stands next to a copied dimension only where it did before.
"""

from collections.abc import Sequence

import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.families import RESHAPING
from .editor import Editor
from .shapes.sizes import Shape, product

__all__ = ["constant_target", "is_expressible", "merge_reshapes"]


def merge_reshapes(editor: Editor) -> bool:
    """Merge chains, drop what keeps the shape, and give every Reshape that can a constant."""
    changed = False
    for node in editor.nodes(*RESHAPING):
        source = node.inputs[0]
        result = editor.known.shape(node.outputs[0])
        if source is None or result is None:
            continue
        before = editor.producer(source, *RESHAPING)
        first = before.inputs[0] if before is not None else None
        if before is not None and first is not None and _write(editor, node, first, result):
            if not source.uses() and not source.is_graph_output():
                editor.graph.remove(before, safe=True)
            changed = True
        elif editor.known.shape(source) == result:
            changed |= editor.bypass(node, source)
        elif node.op_type == "Flatten" or (
            node.op_type == "Reshape" and not is_constant(node.inputs[1])
        ):
            changed |= _write(editor, node, source, result)
    return changed


def constant_target(source: Shape, result: Shape, *, given: int | None = None) -> list[int] | None:
    """Return the target of a Reshape, or None if no constant says it in every run.

    Args:
        source: Shape of the data.
        result: Shape to give it.
        given: Where the target has had -1 so far, if it has.
    """
    target: list[int] = []
    unknown: list[int] = []
    for i, size in enumerate(result):
        if isinstance(size, int):
            if size == 0:
                return None
            target.append(size)
            continue
        unknown.append(i)
        target.append(0 if i < len(source) and source[i] == size else -1)
    others = [i for i in unknown if target[i] == -1]
    if len(unknown) == 1:
        target[unknown[0]] = -1
    elif others and others != [given]:
        return None
    return target


def is_expressible(source: Shape, result: Shape) -> bool:
    """Say whether one reshaping operator with constants, or none, makes one shape of another."""
    return (
        source == result
        or constant_target(source, result) is not None
        or bool(_added(result, source) or _added(source, result))
    )


def _write(editor: Editor, node: ir.Node, source: ir.Value, result: Shape) -> bool:
    """Make `node` a reshape of `source` with constants only, or leave it."""
    shape = editor.known.shape(source)
    if shape is None:
        return False
    if shape == result:
        return editor.bypass(node, source)
    target = constant_target(shape, result, given=_given(editor, node, source))
    if target is not None:
        editor.replace(
            node, "Reshape", [source, editor.integers(f"{node.outputs[0].name}/shape", target)]
        )
        return True
    for op_type, axes in (("Squeeze", _added(result, shape)), ("Unsqueeze", _added(shape, result))):
        if axes:
            editor.replace(
                node, op_type, [source, editor.integers(f"{node.outputs[0].name}/axes", axes)]
            )
            return True
    parts = [i for i in range(1, len(shape)) if _parts(shape, i) == result]
    if parts and node.op_type != "Flatten":
        editor.replace(node, "Flatten", [source], {"axis": parts[0]})
        return True
    return False


def _parts(shape: Shape, axis: int) -> Shape:
    return product(shape[:axis]), product(shape[axis:])


def _given(editor: Editor, node: ir.Node, source: ir.Value) -> int | None:
    """Return the axis where a Reshape's own target says -1."""
    if node.op_type != "Reshape" or node.inputs[0] is not source:
        return None
    target = editor.known.integers(node.inputs[1])
    return target.tolist().index(-1) if target is not None and -1 in target.tolist() else None


def _added(shape: Shape, longer: Shape) -> Sequence[int] | None:
    """Return axes of size 1 that make `shape` into `longer`, or None."""
    axes, rest = [], list(shape)
    for axis, size in enumerate(longer):
        if rest and rest[0] == size:
            rest.pop(0)
        elif size == 1:
            axes.append(axis)
        else:
            return None
    return axes if not rest else None
