"""The algebra of affine maps of a tensor, in NumPy float64, without any graph.

Inference-time batch norm, and a constant Mul, Add, Sub or Div, are one map for each element:

    A x = scale * x + shift

where scale and shift are the same along most axes, such as all but the channels. Two maps in a row
are one, and every one whose scale is nowhere zero has an inverse:

    A (B x) = (scale_A scale_B) x + (scale_A shift_B + shift_A)
    A^-1 y  = (1 / scale) y - shift / scale

An operator f lets A through where there is a map A' with f(A x) = A' f(x):

    f moves elements (Transpose, Reshape, Slice, Concat)   A' moves alike
    f is a mean or an interpolation along axes             A' = A, if A is the same along them
    f is a maximum along axes                              likewise, and scale >= 0
    f is a sum along axes, a product with another tensor   likewise, and shift = 0
    f(a x) = a f(x) for a >= 0 only (ReLU, absolute value) A' = A, if shift = 0 and scale >= 0
    f pads with p                                          A' = A, if f pads A x with A p

A linear operator f(x) = W x + c with constant W takes A in, on either side, where scale and shift
are the same along all axes but those of the channels:

    A f(x) = (scale W) x + (scale c + shift)
    f(A x) = (W scale) x + (W shift + c)

with `scale` along the axes of W that make the output channels, or that read the input channels.
What none of these laws covers raises `NotExactError`. The laws are those of real numbers: for a map
or a weight that holds Inf or NaN, the result does too and nothing else is promised.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ..reason import NotExactError, Reason

__all__ = """Affine along along_axis batch_norm constant_along identity padding_after
    padding_before quiet same through_maximum through_product""".split()

Array = NDArray[np.float64]
NOISE = 2.0**-46  # what is left of a sum that cancels, relative to its terms, is rounding
quiet = np.errstate(divide="ignore", invalid="ignore", over="ignore")  # seen as Inf and NaN


@dataclass(frozen=True, eq=False)
class Affine:
    """The map A x = scale * x + shift of a tensor; the identity if the tensor has no elements.

    Attributes:
        scale: float64, of the tensor's rank; of size 1 along every axis where it is the same.
        shift: Likewise, in the units of A x.
    """

    scale: Array
    shift: Array

    def __post_init__(self) -> None:
        scale, shift = (np.asarray(array, np.float64) for array in (self.scale, self.shift))
        if scale.size == 0 or shift.size == 0:
            scale, shift = np.ones((1,) * scale.ndim), np.zeros((1,) * scale.ndim)
        object.__setattr__(self, "scale", _compact(scale))
        object.__setattr__(self, "shift", _compact(shift))

    @property
    def rank(self) -> int:
        """The rank of the tensor."""
        return self.scale.ndim

    @cached_property
    def is_scale(self) -> bool:
        """Whether there is no shift."""
        return not self.shift.any()

    @cached_property
    def is_shift(self) -> bool:
        """Whether there is no scale."""
        return bool((self.scale == 1.0).all())

    @property
    def is_identity(self) -> bool:
        """Whether it changes nothing."""
        return self.is_scale and self.is_shift

    @property
    def is_finite(self) -> bool:
        """Whether it holds neither Inf nor NaN."""
        return bool(np.isfinite(self.scale).all() and np.isfinite(self.shift).all())

    @property
    def axes(self) -> frozenset[int]:
        """The axes along which it differs."""
        sizes = zip(self.scale.shape, self.shift.shape, strict=True)
        return frozenset(axis for axis, pair in enumerate(sizes) if pair != (1, 1))

    def only_scale(self) -> "Affine":
        """Return the map x -> scale * x."""
        return Affine(self.scale, np.zeros((1,) * self.rank))

    def only_shift(self) -> "Affine":
        """Return the map x -> x + shift."""
        return Affine(np.ones((1,) * self.rank), self.shift)

    @quiet
    def after(self, inner: "Affine") -> "Affine":
        """Return the map that applies `inner` first."""
        scale = self.scale * inner.scale
        moved = self.scale * inner.shift
        shift = moved + self.shift
        shift = np.where(np.abs(shift) < NOISE * (abs(moved) + abs(self.shift)), 0.0, shift)
        return Affine(np.where(np.abs(scale - 1.0) <= NOISE, 1.0, scale), shift)

    @quiet
    def inverse(self) -> "Affine":
        """Return the map that undoes this one.

        Raises:
            NotExactError: If a scale is zero, or a number is or becomes too large for float64.
        """
        undone = Affine(1.0 / self.scale, -self.shift / self.scale)
        if not (self.is_finite and undone.is_finite):
            lowest, highest = np.abs(self.scale).min(), np.abs(self.scale).max()
            detail = f"scales from {lowest:.3g} to {highest:.3g} cannot be undone"
            raise NotExactError(Reason.NOT_FINITE, detail)
        return undone

    def moved(self, move: Callable[[Array], Array]) -> "Affine":
        """Apply the same rearrangement to scale and shift."""
        return Affine(move(self.scale), move(self.shift))


def identity(rank: int) -> Affine:
    """Return the map that changes nothing."""
    return Affine(np.ones((1,) * rank), np.zeros((1,) * rank))


@quiet
def batch_norm(gamma: Array, beta: Array, mean: Array, variance: Array, epsilon: float) -> Affine:
    """Write inference-time batch norm as an affine map of a vector.

        scale = gamma / sqrt(variance + epsilon),  shift = beta - scale * mean

    Args:
        gamma: Shape (C,), float64; ONNX calls it `scale`.
        beta: Shape (C,), float64; ONNX calls it `B`.
        mean: Shape (C,), float64.
        variance: Shape (C,), float64, in units of x squared. Below -epsilon the map is NaN.
        epsilon: Added to `variance`, same units.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 11.
    """
    scale = gamma / np.sqrt(variance + epsilon)
    return Affine(scale, beta - scale * mean)


def along(vector: Affine, axis: int, rank: int) -> Affine:
    """Return the map of a vector as one of a tensor that has it along an axis."""
    return vector.moved(lambda array: along_axis(array, axis, rank))


# What lets only some maps through


def constant_along(a: Affine, axes: "set[int] | frozenset[int]") -> Affine:
    """Return the map if it is the same along some axes: a mean or an interpolation keeps it.

    Raises:
        NotExactError: If it is not.
    """
    if a.axes & axes:
        raise NotExactError(
            Reason.NOT_PER_CHANNEL, f"it differs along axis {sorted(a.axes & axes)[0]}"
        )
    return a


def through_maximum(a: Affine) -> Affine:
    """Return the map if a maximum keeps it: max(A x) = A max(x).

    Raises:
        NotExactError: If a scale is negative.
    """
    if not (a.scale >= 0).all():
        raise NotExactError(Reason.NEGATIVE_SCALE, f"a scale of {a.scale.min():.3g}")
    return a


def through_product(a: Affine) -> Affine:
    """Return the map if a product with something unknown keeps it: (A x) z = A (x z).

    Raises:
        NotExactError: If it shifts.
    """
    if not a.is_scale:
        raise NotExactError(Reason.SHIFT, f"a shift of up to {np.abs(a.shift).max():.3g}")
    return a


@quiet
def padding_before(a: Affine, value: float) -> float:
    """Return what to pad A^-1 y with, so that A gives y padded with `value`.

    Raises:
        NotExactError: If it is not one number.
    """
    shift, scale = np.broadcast_arrays(a.shift, a.scale)
    if (shift[scale == 0] != value).any():
        raise NotExactError(Reason.ZERO_PADDING, "a scale of zero")
    numbers = (value - shift[scale != 0]) / scale[scale != 0]
    return _one_number(numbers, value)


@quiet
def padding_after(a: Affine, value: float) -> float:
    """Return what A makes of a tensor's padding.

    Raises:
        NotExactError: If it is not one number.
    """
    return _one_number((a.scale * value + a.shift).ravel(), value)


def same(a: Affine, b: Affine) -> bool:
    """Say whether two maps are equal, bit by bit."""
    return np.array_equal(a.scale, b.scale) and np.array_equal(a.shift, b.shift)


def along_axis(array: Array, axis: int, rank: int) -> Array:
    """Return a vector as an array of a rank that has it along one axis."""
    shape = [1] * rank
    shape[axis] = -1
    return array.reshape(shape)


def _compact(array: Array) -> Array:
    """Cut to size 1 the axes along which all elements are the same."""
    for axis in range(array.ndim):
        first = array.take([0], axis) if array.shape[axis] > 1 else array
        if array.shape[axis] > 1 and (array == first).all():
            array = first
    return array


def _one_number(numbers: Array, otherwise: float) -> float:
    if numbers.size == 0:
        return otherwise
    if not (numbers == numbers[0]).all():
        raise NotExactError(
            Reason.ZERO_PADDING, f"padding between {numbers.min():.3g} and {numbers.max():.3g}"
        )
    return float(numbers[0])
