"""Slice, Gather and a table's rows: what becomes of a map where only some elements are taken."""

import numpy as np
import onnx_ir as ir

from ....graph.exact import exact, is_constant
from ..algebra.affine import Affine, constant_along
from ..algebra.rearranging import placed, taken
from ..edits import Edit, New
from ..maps import mapped
from ..reason import NotExactError, Reason
from ..tensors import integers, known_sizes
from .ways import Maps, Move, Rule, passing

__all__ = ["TAKING"]


LONGEST = 2**31 - 1  # an end from here on is the end, whatever the size


def _slices(node: ir.Node) -> dict[int, tuple[np.ndarray, int]]:
    """Return, by axis, the indices that a Slice takes and the size of the axis, -1 if unknown.

    An axis of which it takes everything, in order, is not among them.
    """
    sizes = known_sizes(node.inputs[0])
    starts, ends = integers(node, 1, "starts"), integers(node, 2, "ends")
    axes = integers(node, 3, "axes") or list(range(len(starts or [])))
    steps = integers(node, 4, "steps") or [1] * len(axes)
    if starts is None or ends is None:
        raise NotExactError(Reason.PARAMETERS_NOT_CONSTANT, "")
    taken_along: dict[int, tuple[np.ndarray, int]] = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = sizes[axis % len(sizes)]
        if isinstance(size, int):
            indices = np.arange(size)[slice(start, end, step)]
            if len(indices) < size or step < 0:
                taken_along[axis % len(sizes)] = indices, size
        elif start != 0 or end < LONGEST or step != 1:
            taken_along[axis % len(sizes)] = np.arange(0), -1
    return taken_along


def _slice(node: ir.Node, a: Affine) -> Affine:
    for axis, (indices, size) in _slices(node).items():
        a = constant_along(a, {axis}) if size < 0 else taken(a, axis, indices)
    return a


def _slicing(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    """Let a map through a Slice; what it drops is mapped alike, or not at all."""
    if demanded is None or pending:
        return passing(_slice, _slice)(node, pending, demanded)
    taken_along = _slices(node)
    moves = []
    if not demanded.axes.intersection(taken_along):
        moves.append(Move(demands={0: demanded}))
    known = {axis: cut for axis, cut in taken_along.items() if cut[1] >= 0}
    if known and demanded.axes.isdisjoint(taken_along.keys() - known.keys()):
        elsewhere = demanded
        for axis, (indices, size) in known.items():
            elsewhere = placed(elsewhere, axis, indices, size)
        moves.append(Move(demands={0: elsewhere}))
    if not moves:
        raise NotExactError(Reason.SHAPE_UNKNOWN, "")
    return moves


def _gather(node: ir.Node, pending: Maps, demanded: Affine | None) -> list[Move]:
    """Let a map through a Gather of indices along an axis, or into a constant table."""
    table, ids = node.inputs[0], node.inputs[1]
    if is_constant(table) and not pending and demanded is not None:
        return _into_table(node, demanded)
    sizes = known_sizes(table)
    axis = node.attributes.get_int("axis", 0) % len(sizes)
    size = sizes[axis]
    if not is_constant(ids) or ids is None or set(pending) - {0} or not isinstance(size, int):
        raise NotExactError(Reason.PARAMETERS_NOT_CONSTANT, "")
    if exact(ids).ndim > 1:
        raise NotExactError(Reason.OPERATOR_UNKNOWN, f"indices of rank {exact(ids).ndim}")
    loses_axis = exact(ids).ndim == 0
    indices = np.atleast_1d(exact(ids)) % size

    def forward(_: ir.Node, a: Affine) -> Affine:
        a = taken(a, axis, indices)
        return a.moved(lambda array: array.squeeze(axis)) if loses_axis else a

    def backward(_: ir.Node, a: Affine) -> Affine:
        if loses_axis:
            a = a.moved(lambda array: np.expand_dims(array, axis))
        if len(set(indices)) != len(indices):
            constant_along(a, {axis})
            return a
        return placed(a, axis, indices, size)

    return passing(forward, backward)(node, pending, demanded)


def _into_table(node: ir.Node, demanded: Affine) -> list[Move]:
    """Map every row of a table: A (T[ids]) = (A T)[ids]."""
    table, ids = node.inputs[0], node.inputs[1]
    if table is None or table.const_value is None or not is_constant(table):
        raise NotExactError(Reason.WEIGHT_NOT_CONSTANT, "")
    rank = len(table.const_value.shape)
    axis = node.attributes.get_int("axis", 0) % rank
    of_ids = range(axis, axis + len(known_sizes(ids)))
    constant_along(demanded, set(of_ids))
    kept = [n for n in range(demanded.rank) if n not in of_ids]
    order = [*kept[:axis], None, *kept[axis:]]

    def to_table(array: np.ndarray) -> np.ndarray:
        return array.reshape([1 if n is None else array.shape[n] for n in order])

    of_table = demanded.moved(to_table)
    axes = tuple(of_table.only_scale().axes) if of_table.is_scale else ()
    return [Move(edit=Edit(node, "Gather", (New(mapped(table, of_table), table, "", axes), ids)))]


TAKING: dict[str, Rule] = {"Gather": _gather, "Slice": _slicing}
