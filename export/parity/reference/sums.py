"""How far a sum of many terms may be off, by the order in which it is added up.

    s_k = fl(s_{k-1} + x_k)   in each of some lanes, whose results are added exactly

Terms of both signs, or of many sizes, are rounded up as often as down, and n of them are off by
about sqrt(n) roundings. Equal ones are all rounded the same way (N. J. Higham 2002, "Accuracy and
Stability of Numerical Algorithms", 4.2): ONNX Runtime's mean over a flat map of 9,216 values is off
by 1e-5 of it to 2e-4, and a norm then divides that by the map's spread, which is next to nothing.
So the terms themselves are added, in float32, by each number of lanes that a processor may use.
A convolution is such a sum for each value that it returns; one window of a sample stands for all:

    error = share * sum |x w|,   share = error of that window / its own sum |x w|
"""

from collections.abc import Sequence

import numpy as np

__all__ = ["SINGLE", "convolution_share", "sum_error"]

LANES = (1, 4, 16)
LONG = 4096  # terms of a convolution, of fewer of which the order is not looked at
LOOKED_AT = 3, 4  # its samples and filters
SINGLE = float(np.finfo(np.float32).eps)  # what the errors are to be scaled by for other dtypes


def sum_error(terms: np.ndarray, axes: tuple[int, ...]) -> np.ndarray:
    """Return how far sums in float32 may be off.

    Args:
        terms: Any shape, in float64.
        axes: The axes to sum over, at least 0.

    Returns:
        The largest error of the sum by any of `LANES`, in the units of `terms`, whose shape it has
        but for ones at `axes`; 0 where float32 has no such sum.
    """
    shape = [1 if axis in axes else size for axis, size in enumerate(terms.shape)]
    count = int(np.prod([terms.shape[axis] for axis in axes], initial=1))
    with np.errstate(over="ignore", invalid="ignore"):
        narrow = np.moveaxis(terms, axes, range(len(axes))).astype(np.float32)
        narrow = narrow.reshape(count, int(np.prod(shape)))
        exact = narrow.sum(0, dtype=np.float64)
        errors = [np.abs(_added(narrow, lanes) - exact) for lanes in LANES if lanes < count]
    largest = np.max(errors, axis=0, initial=0.0) if errors else np.zeros(exact.shape)
    return np.where(np.isfinite(largest), largest, 0.0).reshape(shape)


def convolution_share(x: np.ndarray, kernel: np.ndarray, dilations: Sequence[int]) -> float:
    """Return which share of the sum of |terms| a convolution in float32 may be off.

    Args:
        x: Shape (N, *spatial, C), in float64.
        kernel: Shape (*spatial, C / groups, F).
        dilations: One for each spatial axis.

    Returns:
        The largest share; 0 where there are fewer than `LONG` terms.
    """
    *sizes, channels, _ = kernel.shape
    if np.prod([*sizes, channels]) < LONG:
        return 0.0
    middle = []
    for length, size, dilation in zip(x.shape[1:-1], sizes, dilations, strict=True):
        reach = (size - 1) * dilation + 1
        start = max(length - reach, 0) // 2
        middle.append(slice(start, start + reach, dilation))
    samples, filters = LOOKED_AT
    windows = x[(slice(samples), *middle, slice(channels))]
    part = kernel[(*map(slice, windows.shape[1:]), slice(filters))]  # of what is not padding
    terms = windows[..., np.newaxis] * part
    axes = tuple(range(1, terms.ndim - 1))
    whole = np.abs(terms).sum(axes, keepdims=True)
    shares = sum_error(terms, axes) / np.where(whole > 0, whole, 1.0)
    return float(np.max(shares, initial=0.0))


def _added(terms: np.ndarray, lanes: int) -> np.ndarray:
    """Add up terms, shape (n, m), one after the other in each lane."""
    rows = -(-len(terms) // lanes)
    padded = np.zeros((rows * lanes, terms.shape[1]), np.float32)
    padded[: len(terms)] = terms
    sums = np.add.accumulate(padded.reshape(rows, lanes, -1), axis=0)[-1]
    return np.asarray(sums.sum(0, dtype=np.float64))
