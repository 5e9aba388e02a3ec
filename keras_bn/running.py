"""Batch statistics in, running statistics out.

    moving <- momentum * moving + (1 - momentum) * batch

The variance that a batch contributes is the unbiased estimate: the mean of (x - mean)^2 times
m / (m - 1), with m the number of values that a channel averages over. Algorithm 1 of the paper
divides by m, because it describes the batch at hand; Algorithm 2 multiplies by m / (m - 1),
because the running variance estimates the population's.

A batch that would turn a statistic into NaN or Inf, or that has no values, changes nothing.

Reference:
    Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 10.
"""

from typing import Any

import numpy as np
from keras import ops

__all__ = [
    "bessel_factor",
    "cumulative_momentum",
    "is_usable",
    "replace_running",
    "stored_statistics",
    "update_running",
]


def bessel_factor(count: Any) -> Any:
    """Return m / (m - 1), the factor from a biased to an unbiased variance.

    Args:
        count: m, the (effective) number of values per channel; any shape, >= 0.

    Returns:
        A tensor like `count`; 1 where m <= 1, for which no unbiased estimate exists.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 10.
    """
    return ops.where(count > 1, count / ops.where(count > 1, count - 1, 1), 1)


def cumulative_momentum(batches_seen: Any) -> Any:
    """Return the momentum k / (k + 1) that averages all batches equally, after k of them.

    Args:
        batches_seen: k, a float scalar, >= 0.
    """
    return batches_seen / (batches_seen + 1.0)


def is_usable(total: Any, mean: Any, variance: Any) -> Any:
    """Say whether a batch may enter the running statistics.

    Args:
        total: Number of values, or sum of the weights, per channel; None where a batch without
            values has statistics that are NaN anyway.
        mean: What the running mean would average, or become; shape (C,).
        variance: Likewise.

    Returns:
        A bool scalar tensor: every total is positive and every mean square finite.
    """
    usable = ops.all(ops.isfinite(mean * mean + variance))
    return usable if total is None else ops.logical_and(usable, ops.all(total > 0))


def update_running(moving: Any, batch: Any, momentum: Any, usable: Any = True) -> None:
    """Move a running statistic towards the batch's, in place.

        moving <- momentum * moving + (1 - momentum) * batch

    Args:
        moving: A Keras variable, shape (C,), any float dtype.
        batch: The batch's statistic, shape (C,), float32 | float64, in the units of `moving`.
        momentum: Weight of the past, in [0, 1].
        usable: A bool scalar; where False, `moving` keeps its value to the last bit.
    """
    past = ops.cast(moving, batch.dtype)
    replace_running(moving, momentum * past + (1.0 - momentum) * batch, usable)


def replace_running(moving: Any, value: Any, usable: Any = True, before: Any = None) -> None:
    """Give a running statistic a new value, in place.

    Args:
        moving: A Keras variable, shape (C,), any float dtype.
        value: Shape (C,), float32 | float64.
        usable: A bool scalar; where False, `moving` keeps its value to the last bit.
        before: `moving` in the dtype of `value`, if it has been read already.
    """
    if usable is not True:
        before = ops.cast(moving, value.dtype) if before is None else before
        value = ops.where(usable, value, before)
    moving.assign(value)


def stored_statistics(layer: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return a layer's running mean and variance, shape (C,) each, float64."""
    variables = layer.moving_mean, layer.moving_variance
    mean, variance = (np.asarray(ops.convert_to_numpy(v), np.float64) for v in variables)
    return mean, variance
