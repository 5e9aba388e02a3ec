"""Batch statistics in, running statistics out.

    moving <- momentum * moving + (1 - momentum) * batch

The variance that a batch contributes is the unbiased estimate: the mean of (x - mean)^2 times
m / (m - 1), with m the number of values that a channel averages over. Algorithm 1 of the paper
divides by m, because it describes the batch at hand; Algorithm 2 multiplies by m / (m - 1),
because the running variance estimates the population's.

Reference:
    Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 10.
"""

from typing import Any

from keras import ops

__all__ = ["bessel_factor", "update_running"]


def bessel_factor(count: Any) -> Any:
    """Return m / (m - 1), the factor from a biased to an unbiased variance.

    Args:
        count: m, the number of values per channel; a float scalar tensor, >= 0.

    Returns:
        A scalar tensor of the dtype of `count`; 1 where m <= 1, for which no unbiased estimate
        exists.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 10.
    """
    return ops.where(count > 1, count / ops.maximum(count - 1, 1), 1)


def update_running(moving: Any, batch: Any, momentum: float) -> None:
    """Move a running statistic towards the batch's, in place.

        moving <- momentum * moving + (1 - momentum) * batch

    Args:
        moving: A Keras variable, shape (C,), any float dtype.
        batch: The batch's statistic, shape (C,), float32 | float64, in the units of `moving`.
        momentum: Weight of the past, in [0, 1].
    """
    past = ops.cast(moving, batch.dtype)
    moving.assign(momentum * past + (1.0 - momentum) * batch)
