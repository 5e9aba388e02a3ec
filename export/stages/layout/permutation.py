"""How a tensor may be stored: with its axes in another order, or one axis shuffled inside.

A layout says how the stored tensor follows from the original one. A permutation p stores

    stored = transpose(original, p),   axis i of `stored` is axis p[i] of `original`.

A `Shuffled` layout stores what flattening a permuted tensor gives: one axis is taken apart into
`sizes`, those are reordered, and put together again. (N, H*W*C) flattened from a channels-first
tensor is Shuffled(1, (H, W, C), (2, 0, 1)).

Dimensions of size 1 hold no order: two permutations that differ only in where those are describe
the same bytes, and a Reshape leads from one to the other. `order` is what is left without them.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import onnx_ir as ir

__all__ = [
    "Layout",
    "Permutation",
    "Shuffled",
    "channels_second",
    "compose",
    "identity",
    "insert",
    "inverse",
    "order",
    "units",
    "without",
]

Permutation = tuple[int, ...]


class Shuffled(NamedTuple):
    """One axis reordered inside: stored factor i is factor `factors[i]` of the original."""

    axis: int
    sizes: tuple[int, ...]
    factors: tuple[int, ...]


Layout = Permutation | Shuffled


def identity(rank: int) -> Permutation:
    """Return the layout of the original itself."""
    return tuple(range(rank))


def channels_second(rank: int) -> Permutation:
    """Return the layout that stores a channels-last tensor as convolutions want it.

    >>> channels_second(4)
    (0, 3, 1, 2)
    """
    return (0, rank - 1, *range(1, rank - 1))


def inverse(perm: Permutation) -> Permutation:
    """Return q with q[p[i]] = i.

    >>> inverse((0, 3, 1, 2))
    (0, 2, 3, 1)
    """
    result = [0] * len(perm)
    for position, axis in enumerate(perm):
        result[axis] = position
    return tuple(result)


def compose(first: Permutation, second: Permutation) -> Permutation:
    """Return the permutation of transpose(transpose(x, first), second)."""
    return tuple([first[axis] for axis in second])


def order(perm: Iterable[int], ones: Collection[int]) -> Permutation:
    """Return a permutation's axes without those of size 1."""
    return tuple([axis for axis in perm if axis not in ones])


def units(shape: ir.Shape | None) -> frozenset[int]:
    """Return the axes that are known to have size 1."""
    if shape is None:
        return frozenset()
    return frozenset([axis for axis, size in enumerate(shape) if size == 1])


def without(perm: Permutation, axes: Collection[int]) -> Permutation:
    """Return the order of the axes left once `axes` are removed, counted anew.

    >>> without((0, 3, 1, 2), {1, 2})
    (0, 1)
    """
    left = sorted(set(perm) - set(axes))
    number = {axis: i for i, axis in enumerate(left)}
    return tuple([number[axis] for axis in perm if axis in number])


def insert(left: Sequence[int], axes: Collection[int], rank: int) -> Permutation:
    """Return a permutation of `rank` axes in which those not in `axes` are ordered as in `left`.

    Of the many, the channels-second one if it is among them, else each inserted axis goes before
    the axis that it precedes in the original.

    >>> insert((0, 1), {1, 2}, 4), insert((0, 2, 1), {1}, 4)
    ((0, 3, 1, 2), (0, 3, 1, 2))
    """
    kept = [axis for axis in range(rank) if axis not in axes]
    wanted = tuple([kept[i] for i in left])
    if rank > 2 and order(channels_second(rank), axes) == wanted:
        return channels_second(rank)
    result = list(wanted)
    for axis in sorted(axes, reverse=True):
        result.insert(result.index(axis + 1) if axis + 1 < rank else len(result), axis)
    return tuple(result)
