"""Rules for Reshape and Flatten: which dimensions become which.

A Reshape keeps the elements in row-major order, so its dimensions fall into groups of equal
product on both sides, cut wherever the products from the left agree:

    (N, T, H, W, C) -> (-1, H, W, C):    {N, T} {H} {W} {C}  ->  {N*T} {H} {W} {C}

If every group lies in one piece and in order in what is stored, reshaping that gives the groups of
the result in the same order. Dimensions of size 1 belong to no group and stand anywhere. A group
in one piece but out of order that becomes one dimension leaves that dimension `Shuffled`, and the
same backward. An unknown dimension matches itself; a -1 is the quotient of all the others.
"""

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import onnx_ir as ir

from ..move import Move, flag, numbers, rank_of
from ..permutation import Layout, Permutation, Shuffled, identity, insert, order

__all__ = ["RULES", "SHUFFLED_RULES"]


class _Dimension(NamedTuple):
    """A known factor times the unknown dimensions of the input at these axes."""

    factor: Fraction
    unknown: tuple[int, ...] = ()

    @property
    def size(self) -> int | None:
        return int(self.factor) if not self.unknown and self.factor.denominator == 1 else None

    def times(self, other: "_Dimension") -> "_Dimension":
        unknown = tuple(sorted(self.unknown + other.unknown))
        return _Dimension(self.factor * other.factor, unknown)


ONE = _Dimension(Fraction(1))
Group = tuple[tuple[int, ...], tuple[int, ...]]  # the axes before and after


class _Reshaping(NamedTuple):
    before: tuple[_Dimension, ...]
    after: tuple[_Dimension, ...]
    groups: tuple[Group, ...]

    @property
    def backward(self) -> "_Reshaping":
        return _Reshaping(self.after, self.before, tuple((b, a) for a, b in self.groups))


def _product(dimensions: Sequence[_Dimension]) -> _Dimension:
    result = ONE
    for dimension in dimensions:
        result = result.times(dimension)
    return result


def _reshaping(node: ir.Node) -> _Reshaping | None:
    """Find the groups of a Reshape or Flatten, or None if they cannot be known."""
    data = node.inputs[0]
    if data is None or data.shape is None or not data.shape:
        return None
    before = tuple(
        _Dimension(Fraction(size)) if isinstance(size, int) else _Dimension(Fraction(1), (axis,))
        for axis, size in enumerate(data.shape)
    )
    after = _flattened(node, before) if node.op_type == "Flatten" else _target(node, before)
    if after is None or not all(dimension.factor for dimension in before + after):
        return None
    groups = _groups(before, after)
    return None if groups is None else _Reshaping(before, after, groups)


def _flattened(node: ir.Node, before: tuple[_Dimension, ...]) -> tuple[_Dimension, ...]:
    attribute = node.attributes.get("axis")
    axis = 1 if attribute is None else attribute.as_int()
    axis += len(before) if axis < 0 else 0
    return _product(before[:axis]), _product(before[axis:])


def _target(node: ir.Node, before: tuple[_Dimension, ...]) -> tuple[_Dimension, ...] | None:
    """Read a Reshape's constant shape: 0 copies a dimension, -1 is what is left."""
    shape = numbers(node, 1)
    if not shape or (0 in shape and flag(node, "allowzero", default=False)):
        return None
    if any(size == 0 and axis >= len(before) for axis, size in enumerate(shape)):
        return None
    after = [
        before[axis] if size == 0 else ONE if size == -1 else _Dimension(Fraction(size))
        for axis, size in enumerate(shape)
    ]
    if -1 in shape:
        total, rest = _product(before), _product(after)
        unknown = list(total.unknown)
        for axis in rest.unknown:
            if axis not in unknown:
                return None
            unknown.remove(axis)
        if not rest.factor:
            return None
        after[shape.index(-1)] = _Dimension(total.factor / rest.factor, tuple(unknown))
    return tuple(after)


def _cuts(dimensions: tuple[_Dimension, ...]) -> list[tuple[int, _Dimension]]:
    """Return each axis that is not of size 1 with the product up to and including it."""
    cuts, product = [], ONE
    for axis, dimension in enumerate(dimensions):
        if dimension != ONE:
            product = product.times(dimension)
            cuts.append((axis, product))
    return cuts


def _groups(
    before: tuple[_Dimension, ...], after: tuple[_Dimension, ...]
) -> tuple[Group, ...] | None:
    first, second = _cuts(before), _cuts(after)
    ends = {product: position for position, (_, product) in enumerate(second)}
    groups, start, other = [], 0, 0
    for position, (_, product) in enumerate(first):
        end = ends.get(product, -1)
        if end >= other:
            axes = tuple(axis for axis, _ in first[start : position + 1])
            groups.append((axes, tuple(axis for axis, _ in second[other : end + 1])))
            start, other = position + 1, end + 1
    return tuple(groups) if (start, other) == (len(first), len(second)) else None


def _carried(reshaping: _Reshaping, layout: Permutation) -> Layout | None:
    """Return the layout of the result of reshaping what is stored by `layout`, if there is one."""
    stored = order(layout, _ones(reshaping.before))
    owner = {axis: group for group in reshaping.groups for axis in group[0]}
    position = 0
    result: list[int] = []
    shuffled: Shuffled | None = None
    while position < len(stored):
        axes, becomes = owner[stored[position]]
        piece = stored[position : position + len(axes)]
        if piece != axes:
            sizes = [reshaping.before[axis].size for axis in axes]
            if set(piece) != set(axes) or len(becomes) != 1 or shuffled or None in sizes:
                return None
            factors = tuple(axes.index(axis) for axis in piece)
            shuffled = Shuffled(becomes[0], tuple(size for size in sizes if size), factors)
        result.extend(becomes)
        position += len(axes)
    if shuffled is not None:
        return shuffled if result == sorted(result) else None
    ones, rank = _ones(reshaping.after), len(reshaping.after)
    left = [axis for axis in range(rank) if axis not in ones]
    if result == left and (rank < 3 or layout == identity(len(layout))):
        return identity(rank)
    return insert(tuple(left.index(axis) for axis in result), ones, rank)


def _ones(dimensions: tuple[_Dimension, ...]) -> frozenset[int]:
    return frozenset(axis for axis, dimension in enumerate(dimensions) if dimension == ONE)


def _reshape(node: ir.Node, at: int, layout: Permutation) -> Move | None:
    if at > 0 or (reshaping := _reshaping(node)) is None:
        return None
    if at == 0:
        before: Layout | None = layout
        after = _carried(reshaping, layout)
    else:
        before = _carried(reshaping.backward, layout)
        after = layout
    return _moved(node, reshaping, before, after)


def _reshape_shuffled(node: ir.Node, at: int, layout: Shuffled) -> Move | None:
    """Take a shuffled dimension apart again: in what is stored, its factors are permuted."""
    if at > 0 or (reshaping := _reshaping(node)) is None:
        return None
    facing = reshaping if at == 0 else reshaping.backward
    for axes, becomes in facing.groups:
        sizes = tuple(facing.after[axis].size for axis in becomes)
        if axes == (layout.axis,) and sizes == layout.sizes:
            perm = list(identity(len(facing.after)))
            for axis, factor in zip(becomes, layout.factors, strict=True):
                perm[axis] = becomes[factor]
            other = tuple(perm)
            before, after = (layout, other) if at == 0 else (other, layout)
            return _moved(node, reshaping, before, after)
    return None


def _moved(
    node: ir.Node, reshaping: _Reshaping, before: Layout | None, after: Layout | None
) -> Move | None:
    if before is None or after is None:
        return None
    stored = before if not isinstance(before, Shuffled) else identity(len(reshaping.before))
    wanted = after if not isinstance(after, Shuffled) else identity(len(reshaping.after))
    shape = _shape(reshaping, stored, wanted, node.outputs[0].shape)
    if shape is None or rank_of(node.outputs[0]) != len(wanted):
        return None
    op_type = "Reshape" if node.op_type == "Flatten" else None
    inputs = (before, *[None] * (len(node.inputs) - 1))
    return Move(inputs, (after,), constants={1: shape}, op_type=op_type)


def _shape(
    reshaping: _Reshaping, before: Permutation, after: Permutation, known: ir.Shape | None
) -> tuple[int, ...] | None:
    """Write the shape of what is stored after the Reshape: at most one -1, 0 for a copy."""
    shape: list[int] = []
    for position, axis in enumerate(after):
        dimension = reshaping.after[axis]
        size = dimension.size
        if size is None and known is not None and isinstance(known[axis], int):
            size = int(known[axis])  # type: ignore[arg-type]
            if size == 0:  # which would copy
                return None
        if size is None:
            source = before[position] if position < len(before) else None
            copies = source is not None and reshaping.before[source] == dimension
            size = 0 if copies and (-1 in shape or _unknown(reshaping.after) > 1) else -1
        shape.append(size)
    return tuple(shape) if shape.count(-1) <= 1 else None


def _unknown(dimensions: tuple[_Dimension, ...]) -> int:
    return sum(dimension.size is None for dimension in dimensions)


RULES = {"Flatten": _reshape, "Reshape": _reshape}
SHUFFLED_RULES = {"Flatten": _reshape_shuffled, "Reshape": _reshape_shuffled}
