"""What Slice and Pad do at the edges of each axis, read in one place for all who ask.

Whether the axes are named, as newer opsets can, or all are meant, makes no difference here, nor
whether the numbers are inputs or, as in opset 9, attributes.
"""

from typing import NamedTuple

import onnx_ir as ir

from .known import KnownShapes
from .sizes import Size

__all__ = ["Cut", "cuts_of", "pads_of"]


class Cut(NamedTuple):
    """What a Slice takes along an axis, as in Python's [start:end:step]."""

    axis: int
    start: Size
    end: Size
    step: int


def cuts_of(known: KnownShapes, node: ir.Node) -> list[Cut] | None:
    """Return what a Slice takes along each of its axes, or None if that is not known."""
    shape, axes = known.shape(node.inputs[0]), known.axes(node, 3)
    starts, ends = _listed(known, node, 1, "starts"), _listed(known, node, 2, "ends")
    if shape is None or axes is None or starts is None or ends is None:
        return None
    axes = axes or list(range(len(starts)))
    steps = known.constant_integers(node.inputs[4]) if _has(node, 4) else [1] * len(axes)
    if steps is None or not len(starts) == len(ends) == len(axes) == len(steps):
        return None
    columns = zip(axes, starts, ends, steps, strict=True)
    return [Cut(axis % len(shape), start, end, step) for axis, start, end, step in columns]


def pads_of(known: KnownShapes, node: ir.Node) -> tuple[list[Size], list[Size]] | None:
    """Return what a Pad adds at the beginning and at the end of every axis, or None."""
    shape, axes = known.shape(node.inputs[0]), known.axes(node, 3)
    pads = _listed(known, node, 1, "pads")
    if shape is None or axes is None or pads is None:
        return None
    axes = axes if _has(node, 3) else list(range(len(shape)))
    if len(pads) != 2 * len(axes):
        return None
    begins, ends = list[Size]([0] * len(shape)), list[Size]([0] * len(shape))
    for axis, begin, end in zip(axes, pads, pads[len(axes) :], strict=False):
        begins[axis], ends[axis] = begin, end
    return begins, ends


def _has(node: ir.Node, index: int) -> bool:
    return len(node.inputs) > index and node.inputs[index] is not None


def _listed(known: KnownShapes, node: ir.Node, index: int, attribute: str) -> list[Size] | None:
    if attribute in node.attributes:
        return list(node.attributes[attribute].as_ints())
    numbers = known.integers(node.inputs[index]) if _has(node, index) else None
    return None if numbers is None else numbers.ravel().tolist()
