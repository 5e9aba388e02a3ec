"""Pad: its constant is mapped too, so that P^-1 v, or A v, has to be one number."""

import numpy as np
import onnx_ir as ir

from ....graph.exact import ExactTensor, exact, is_constant
from ..algebra.affine import Affine, constant_along, padding_after, padding_before
from ..edits import Edit, New
from ..reason import NotExactError, Reason
from ..tensors import integers, name_of
from .ways import Maps, Move, Rule

__all__ = ["PADDING"]


def _pad(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    """Let a map through a Pad, whose constant is mapped too."""
    a = pending.get(0, demanded)
    if a is None or set(pending) - {0} or (pending and demanded is not None):
        raise NotExactError(Reason.USED_ELSEWHERE, "two maps meet there")
    mode = node.attributes.get_string("mode", "constant")
    constant_along(a, _padded_axes(node, a.rank))
    edit = None
    if mode == "constant" and not (a.is_scale and _pad_value(node) == 0):
        change = padding_before if pending else padding_after
        edit = _with_pad_value(node, change(a, _pad_value(node)))
    if pending:
        return [Move(pendings={0: a}, edit=edit)]
    return [Move(demands={0: a}, edit=edit)]


def _padded_axes(node: ir.Node, rank: int) -> set[int]:
    """Return the axes that a Pad moves, whatever their sizes: all that may be if it is not known.

    A Pad by 1 in front and by -1 behind keeps the size.
    """
    try:
        pads, axes = integers(node, 1, "pads"), integers(node, 3, "axes")
    except NotExactError:
        return set(range(rank))
    if pads is None:
        return set(range(rank))
    axes = list(range(rank)) if axes is None else [axis % rank for axis in axes]
    pairs = zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True)
    return {axis for axis, front, back in pairs if front or back}


def _pad_value(node: ir.Node) -> float:
    if "value" in node.attributes:
        return node.attributes.get_float("value", 0.0)
    operand = node.inputs[2] if len(node.inputs) > 2 else None
    if operand is None:
        return 0.0
    if not is_constant(operand):
        raise NotExactError(Reason.PARAMETERS_NOT_CONSTANT, f"tensor {operand.name!r}")
    return float(exact(operand).item())


def _with_pad_value(node: ir.Node, number: float) -> Edit:
    if "pads" in node.attributes:  # before opset 11
        if not np.isfinite(np.float32(number)):
            raise NotExactError(Reason.NOT_FINITE, f"padding with {number:.3g}")
        return Edit(node, "Pad", tuple(node.inputs), {"value": ir.AttrFloat32("value", number)})
    inputs: list[ir.Value | New | None] = list(node.inputs)
    inputs += [None] * (3 - len(inputs))
    like = node.inputs[2] if len(node.inputs) > 2 else None
    data = node.inputs[0]
    dtype = like.dtype if like is not None else data.dtype if data is not None else None
    if dtype is None:
        raise NotExactError(Reason.SHAPE_UNKNOWN, f"the type of {name_of(node)}")
    inputs[2] = New(ExactTensor(np.float64(number), dtype), like, f"{name_of(node)}/constant_value")
    return Edit(node, "Pad", tuple(inputs))


PADDING: dict[str, Rule] = {"Pad": _pad}
