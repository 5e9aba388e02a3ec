"""What moves elements lets every map through, moved alike: f(A x) = A' f(x)."""

import math
from collections.abc import Sequence
from itertools import islice
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from ..reason import NotExactError, Reason
from .affine import Affine, Array, constant_along, same

__all__ = "joined placed repeated reshaped split taken transposed unrepeated".split()

Indices = NDArray[np.integer[Any]]
Sizes = Sequence[int | str | None]


def transposed(a: Affine, perm: Sequence[int]) -> Affine:
    """Return A' of a Transpose; the inverse permutation gives A from A'."""
    return a.moved(lambda array: array.transpose(perm))


def reshaped(a: Affine, before: Sizes, after: Sizes) -> Affine:
    """Return A' of a Reshape; with the sizes exchanged, A from A'.

    Args:
        a: A map of a tensor with the sizes `before`.
        before: An integer for each axis, or a name, or None if unknown.
        after: Likewise; a name stands for the same size in both.

    Raises:
        NotExactError: If the map differs along an axis of which it is not known where it goes.
    """
    expanded: list[int] = []  # the sizes of the map before
    new: list[int] = []  # and after
    for olds, news in _groups(before, after):
        sizes, targets = [before[i] for i in olds], [after[j] for j in news]
        if not a.axes.intersection(olds):
            expanded += [1] * len(sizes)
            new += [1] * len(targets)
        elif len(sizes) == len(targets) == 1:
            size = max(a.scale.shape[olds[0]], a.shift.shape[olds[0]])
            expanded.append(size)
            new.append(size)
        elif _known(sizes) and _known(targets) and math.prod(sizes) == math.prod(targets):
            expanded += sizes
            new += targets
        else:
            raise NotExactError(Reason.SHAPE_UNKNOWN, f"reshape of {before} to {after}")
    return a.moved(lambda array: np.broadcast_to(array, expanded).reshape(new))


def taken(a: Affine, axis: int, indices: Indices) -> Affine:
    """Return A' of an operator that takes some indices along an axis, such as a Slice."""
    return a.moved(lambda array: array if array.shape[axis] == 1 else array.take(indices, axis))


def placed(a: Affine, axis: int, indices: Indices, size: int) -> Affine:
    """Return the map A that a Slice turns into A', and that leaves alone what the Slice drops.

    Raises:
        NotExactError: If an index is taken twice, and mapped in two ways.
    """

    def place(array: Array, elsewhere: float) -> Array:
        shape = (*array.shape[:axis], size, *array.shape[axis + 1 :])
        whole = np.full(shape, elsewhere)
        whole[(slice(None),) * axis + (indices,)] = array
        return whole

    whole = Affine(place(a.scale, 1.0), place(a.shift, 0.0))
    if not same(taken(whole, axis, indices), a):
        raise NotExactError(Reason.NOT_PER_CHANNEL, f"axis {axis} repeats what differs")
    return whole


def joined(parts: Sequence[Affine], axis: int, sizes: Sizes) -> Affine:
    """Return A' of a Concat whose inputs, of the given sizes along the axis, have these maps.

    Raises:
        NotExactError: If the maps differ, from each other or along the axis, and a size is not
            known.
    """
    if all(axis not in part.axes and same(part, parts[0]) for part in parts):
        return parts[0]
    if not _known(sizes):
        raise NotExactError(Reason.SHAPE_UNKNOWN, f"concatenation of sizes {list(sizes)}")

    def join(arrays: Sequence[Array]) -> Array:
        shape = np.broadcast_shapes(
            *((*array.shape[:axis], 1, *array.shape[axis + 1 :]) for array in arrays)
        )
        widths = [(*shape[:axis], size, *shape[axis + 1 :]) for size in sizes]
        pairs = zip(arrays, widths, strict=True)
        return np.concatenate([np.broadcast_to(array, width) for array, width in pairs], axis)

    return Affine(join([part.scale for part in parts]), join([part.shift for part in parts]))


def split(a: Affine, axis: int, sizes: Sizes) -> list[Affine]:
    """Return the map of each part of a Concat's result, or of each output of a Split.

    Raises:
        NotExactError: If the map differs along the axis and a size is not known.
    """
    if axis not in a.axes:
        return [a] * len(sizes)
    if not _known(sizes):
        raise NotExactError(Reason.SHAPE_UNKNOWN, f"split into sizes {list(sizes)}")
    ends = np.cumsum(sizes)
    pairs = zip(sizes, ends, strict=True)
    return [taken(a, axis, np.arange(end - size, end)) for size, end in pairs]


def repeated(a: Affine, axis: int, blocks: int, channels_first: bool) -> Affine:
    """Return A of a DepthToSpace, whose input has `blocks` channels for each channel of A'.

    Args:
        a: A map A' that differs along `axis` at most.
        axis: The channels.
        blocks: Channels of the input for each of the output.
        channels_first: Whether those of one channel are neighbours ("CRD").

    Raises:
        NotExactError: If it differs along another axis.
    """
    constant_along(a, set(range(a.rank)) - {axis})
    move = np.repeat if channels_first else lambda array, n, axis: np.concatenate([array] * n, axis)
    return a.moved(lambda array: array if array.size == 1 else move(array, blocks, axis))


def unrepeated(a: Affine, axis: int, blocks: int, channels_first: bool) -> Affine:
    """Return A' of a DepthToSpace whose input has the map A.

    Raises:
        NotExactError: If the channels that become one differ, or it differs along another axis.
    """
    size = max(a.scale.shape[axis], a.shift.shape[axis])
    first = np.arange(0, size, blocks) if channels_first else np.arange(size // blocks)
    one = a if size == 1 else taken(a, axis, first)
    if not same(repeated(one, axis, blocks, channels_first), a):
        raise NotExactError(Reason.NOT_PER_CHANNEL, "channels that become one differ")
    return one


def _known(sizes: Sizes) -> TypeGuard[Sequence[int]]:
    return all(isinstance(size, int) for size in sizes)


def _groups(before: Sizes, after: Sizes) -> list[tuple[list[int], list[int]]]:
    """Return which axes of a Reshape become which, in groups of the same number of elements.

    One group in the middle holds what the known sizes do not tell.
    """
    front = _matching(before, after)
    i, j = (sum(pair[side] for pair in front) for side in (0, 1))
    back = _matching(before[i:][::-1], after[j:][::-1])[::-1]
    k, m = (sum(pair[side] for pair in back) for side in (0, 1))
    olds, news = iter(range(len(before))), iter(range(len(after)))
    counts = [*front, (len(before) - i - k, len(after) - j - m), *back]
    return [([*islice(olds, old)], [*islice(news, new)]) for old, new in counts]


def _matching(before: Sizes, after: Sizes) -> list[tuple[int, int]]:
    """Return how many leading axes become how many, as far as their sizes tell."""
    counts: list[tuple[int, int]] = []
    i = j = 0
    while i < len(before) and j < len(after):
        first, left, right = (i, j), before[i], after[j]
        i, j = i + 1, j + 1
        while left != right:
            if not isinstance(left, int) or not isinstance(right, int):
                return counts
            following = before[i : i + 1] if left < right else after[j : j + 1]
            if not following or not isinstance(following[0], int):
                return counts
            if left < right:
                left, i = left * following[0], i + 1
            else:
                right, j = right * following[0], j + 1
        if not isinstance(left, int | str):
            return counts
        counts.append((i - first[0], j - first[1]))
    return counts
