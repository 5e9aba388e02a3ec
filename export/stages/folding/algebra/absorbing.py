"""What absorbs a map: A f(x), and f(A x), for f(x) = W x + c with constant W and c."""

import math
from collections.abc import Sequence
from typing import Any, Protocol, Self, TypeVar

import numpy as np

from ..reason import NotExactError, Reason
from .affine import Affine, Array, along_axis, constant_along, quiet

__all__ = """absorb conv_input conv_transpose_input conv_transpose_output einsum_input einsum_output
    matmul_input matmul_output recurrent_input values vector""".split()


class Weight(Protocol):
    """What can be scaled: an array, or a weight that is held with its scales (`graph/exact.py`)."""

    @property
    def ndim(self) -> int: ...
    @property
    def shape(self) -> Any: ...
    def __mul__(self, factor: Array, /) -> Self: ...


W = TypeVar("W", bound=Weight)


@quiet
def absorb(weight: W, bias: Array | None, after: Affine, axis: int) -> tuple[W, Array | None]:
    """Absorb the map of a vector into the linear operator before it.

        A (W x + c) = (scale W) x + (scale c + shift)

    Args:
        weight: W, any shape with the C output channels along `axis`; scaled in float64.
        bias: c, shape (C,) or broadcasting with it along the last axis; None stands for zero.
        after: The map, of shape (C,) or (1,).
        axis: Axis of the output channels in `weight`.

    Returns:
        The new weight, and the new bias, None where it is zero and there was none.
    """
    new_weight = weight * along_axis(after.scale, axis, weight.ndim)
    return new_weight, _mapped_bias(bias, after, weight.shape[axis])


def vector(a: Affine, axis: int, size: int) -> Affine:
    """Return the map along one axis, if it is the same along all others.

    Raises:
        NotExactError: If it is not, or if it would repeat the tensor's only channel.
    """
    constant_along(a, set(range(a.rank)) - {axis})
    flat = a.moved(np.ravel)
    if any(array.size not in (1, size) for array in (flat.scale, flat.shift)):
        found = max(flat.scale.size, flat.shift.size)
        raise NotExactError(Reason.NOT_PER_CHANNEL, f"{found} values for {size} channels")
    return flat


@quiet
def conv_input(
    weight: W, bias: Array | None, before: Affine, group: int, padded: bool
) -> tuple[W, Array | None]:
    """Absorb the map of a vector into the convolution behind it.

        W (A x) + c = (W scale) x + (sum over inputs and kernel of W shift + c)

    Zeros that the convolution pads with are not mapped, so that only a scale passes padding.

    Args:
        weight: Shape (C_out, C_in / group, kernel...).
        bias: Shape (C_out,) or None.
        before: The map of the input's channels, of shape (C_in,) or (1,).
        group: In how many groups the channels are.
        padded: Whether the convolution pads.

    Raises:
        NotExactError: If there is a shift and padding.
    """
    outputs, width = weight.shape[:2]
    if padded and not before.is_scale:
        detail = f"a shift of up to {np.abs(before.shift).max():.3g}"
        raise NotExactError(Reason.ZERO_PADDING, detail)
    scale = _by_group(before.scale, group, width, outputs // group)
    new_weight = weight * _with_axes(scale, weight.ndim)
    if before.is_scale:
        return new_weight, bias
    sums = values(weight).sum(tuple(range(2, weight.ndim)))
    added = (sums * _by_group(before.shift, group, width, outputs // group)).sum(1)
    return new_weight, added if bias is None else added + bias


@quiet
def conv_transpose_output(
    weight: W, bias: Array | None, after: Affine, group: int
) -> tuple[W, Array | None]:
    """Absorb the map of a vector into the transposed convolution before it.

    Args:
        weight: Shape (C_in, C_out / group, kernel...): the rows of a group make its channels only.
        bias: Shape (C_out,) or None.
        after: The map of the output's channels, of shape (C_out,) or (1,).
        group: In how many groups the channels are.
    """
    inputs, width = weight.shape[:2]
    scale = _by_group(after.scale, group, width, inputs // group)
    new_weight = weight * _with_axes(scale, weight.ndim)
    return new_weight, _mapped_bias(bias, after, group * width)


@quiet
def conv_transpose_input(weight: W, before: Affine) -> W:
    """Absorb a scale of a vector into the transposed convolution behind it.

    Args:
        weight: Shape (C_in, C_out / group, kernel...).
        before: The map of the input's channels, of shape (C_in,) or (1,).

    Raises:
        NotExactError: If it shifts: a constant gives another sum at the borders.
    """
    if not before.is_scale:
        raise NotExactError(Reason.SHIFT, "a transposed convolution overlaps less at its borders")
    return weight * along_axis(before.scale, 0, weight.ndim)


@quiet
def matmul_output(weight: W, scale: Array, contracted: int) -> W:
    """Absorb a scale into the matrix product before it, whatever the ranks.

    Args:
        weight: The constant operand.
        scale: Of the rank of the product.
        contracted: The weight's axis that the product sums over, -2 or -1: the scale has to be the
            same along the product's axis in its place.

    Raises:
        NotExactError: If it differs along that axis, or along one that the weight does not have.
    """
    rank, ndim = scale.ndim, weight.ndim
    if ndim < 2 or rank < ndim:
        if scale.size != 1:
            raise NotExactError(Reason.NOT_PER_CHANNEL, f"product with weights of rank {ndim}")
        return weight * scale.reshape((1,) * ndim)
    last = scale.shape[rank - ndim :]
    fits = all(n in (1, size) for n, size in zip(last, weight.shape, strict=True))
    if scale.size != math.prod(last) or last[contracted] != 1 or not fits:
        raise NotExactError(
            Reason.NOT_PER_CHANNEL, f"scale of shape {scale.shape}, weights {tuple(weight.shape)}"
        )
    return weight * scale.reshape(last)


@quiet
def matmul_input(weight: W, before: Affine, contracted: int) -> tuple[W, Array]:
    """Absorb the map of a vector into the matrix product behind it.

    Args:
        weight: The constant operand.
        before: The map along the axis that is summed over, of shape (K,) or (1,).
        contracted: That axis in the weight: -2 if it stands on the right, -1 if it stands on the
            left or is a vector.

    Returns:
        The new weight, and what the product lacks now: W shift, of the weight's rank and of size 1
        along `contracted`.
    """
    ndim = weight.ndim
    new_weight = weight * along_axis(before.scale, contracted, ndim)
    if before.is_scale:
        return new_weight, np.zeros((1,) * ndim)
    shift = np.broadcast_to(before.shift, weight.shape[contracted])
    summed_last = np.moveaxis(values(weight), contracted, -1)
    return new_weight, np.expand_dims(summed_last @ shift, contracted)


@quiet
def einsum_output(weight: W, labels: str, scale: Array, output: str) -> W:
    """Absorb a scale into the constant operand of the sum before it.

    Args:
        weight: The constant operand, with one of `labels` for each axis.
        labels: Such as "cd".
        scale: Of the rank of the result.
        output: The labels of the result, such as "abd".

    Raises:
        NotExactError: If it differs along an axis that the weight does not have.
    """
    return weight * _relabelled(scale, output, labels, weight.shape)


@quiet
def einsum_input(
    weight: W, labels: str, before: Affine, operand: str, output: str
) -> tuple[W, Array]:
    """Absorb a map of one operand into the constant other operand of the sum behind it.

    Args:
        weight: The constant operand, with one of `labels` for each axis.
        labels: Such as "cd".
        before: The map of the operand, of its rank.
        operand: The labels of the operand, such as "abc".
        output: The labels of the result, such as "abd".

    Returns:
        The new weight, and what the sum lacks now, of the rank of the result.

    Raises:
        NotExactError: If the map differs along an axis that the weight does not have, or shifts
            what is summed along one.
    """
    sizes = dict(zip(labels, weight.shape, strict=True))
    new_weight = weight * _relabelled(before.scale, operand, labels, weight.shape)
    if before.is_scale:
        return new_weight, np.zeros((1,) * len(output))
    if any(sizes.get(label, 1) == 1 for label in set(operand) - set(output)):
        # An axis of size 1 is repeated for an operand where it is longer.
        raise NotExactError(Reason.SHIFT, "a sum over an axis that the weights do not have")
    shift = _relabelled(before.shift, operand, labels, weight.shape)
    kept = "".join(label for label in output if label in labels)
    lacking = np.einsum(f"{labels}->{kept}", values(weight) * shift)
    return new_weight, lacking.reshape([sizes.get(label, 1) for label in output])


@quiet
def recurrent_input(weight: W, bias: Array | None, before: Affine) -> tuple[W, Array | None]:
    """Absorb the map of a vector into the input kernel of a recurrent layer.

    Args:
        weight: Shape (directions, gates * hidden, C).
        bias: Shape (directions, 2 * gates * hidden), that of the input first, or None.
        before: The map of the input's channels, of shape (C,) or (1,).
    """
    new_weight = weight * before.scale.reshape(1, 1, -1)
    if before.is_scale:
        return new_weight, bias
    added = values(weight) @ np.broadcast_to(before.shift, weight.shape[2])
    both = np.concatenate([added, np.zeros_like(added)], axis=1)
    return new_weight, both if bias is None else both + bias


def values(weight: Any) -> Array:
    """Return a weight's exact values in float64."""
    return np.asarray(getattr(weight, "exact", weight), np.float64)


def _mapped_bias(bias: Array | None, after: Affine, channels: int) -> Array | None:
    """Return A c, None where it is zero and there was no c."""
    scale, shift = (np.broadcast_to(array, channels) for array in (after.scale, after.shift))
    if bias is None:
        return None if after.is_scale else shift.copy()
    return scale * bias + shift


def _with_axes(matrix: Array, rank: int) -> Array:
    return matrix.reshape(matrix.shape + (1,) * (rank - matrix.ndim))


def _by_group(array: Array, group: int, width: int, rows: int) -> Array:
    """Return the channels of each group as a row, once for each row of its weights.

    What is the same for all weights, or for all rows, is there once: a small factor.
    """
    if array.size == 1:
        return array.reshape(1, 1)
    return array.reshape(group, width).repeat(rows if group > 1 else 1, axis=0)


def _relabelled(array: Array, labels: str, wanted: str, sizes: Sequence[int]) -> Array:
    """Return an array with its axes in the order of other labels, of size 1 where it has none."""
    differing = [axis for axis, size in enumerate(array.shape) if size > 1]
    shape = [1] * len(wanted)
    for axis in differing:
        label, place = labels[axis], wanted.find(labels[axis])
        if labels.count(label) != 1 or wanted.count(label) != 1:
            raise NotExactError(Reason.NOT_PER_CHANNEL, f"{wanted!r} has not one axis {label!r}")
        if sizes[place] != array.shape[axis]:
            raise NotExactError(Reason.NOT_PER_CHANNEL, f"the weights repeat along axis {label!r}")
        shape[place] = array.shape[axis]
    order = sorted(differing, key=lambda axis: wanted.index(labels[axis]))
    return array.squeeze().transpose([differing.index(axis) for axis in order]).reshape(shape)
