"""One fused kernel instead of a dozen elementwise operators.

TensorFlow's `FusedBatchNormV3` reads the input twice and writes the output once. It accepts
float16, bfloat16 and float32 inputs, keeps its statistics in float32 whatever the input, and has
first- and second-order gradients. Used here on rank 4 with the channels last; nothing stands
between the kernel and its caller, so that TensorFlow can fuse a ReLU that follows.

It refuses everything else: the caller asks `why_not_fused` first and takes the portable path.
"""

from typing import Any

import tensorflow as tf

__all__ = ["fused_inference", "fused_training", "why_not_fused"]

FUSED_DTYPES = ("float16", "bfloat16", "float32")


def why_not_fused(rank: int | None, axis: int, dtype: str) -> str | None:
    """Say why the fused kernel cannot normalise such a tensor, or None if it can.

    Args:
        rank: Number of dimensions of the input, None if unknown.
        axis: The channel axis, counted from the front or the back.
        dtype: Name of the input's dtype.

    Returns:
        None, or the reason as a clause that completes "because ...".
    """
    if rank != 4:
        return f"the kernel is used on rank 4 and the input has rank {rank}"
    if axis not in (-1, 3):
        return f"the kernel is used on the last axis and `axis` is {axis}"
    if dtype not in FUSED_DTYPES:
        return f"the kernel takes {', '.join(FUSED_DTYPES)} and the input is {dtype}"
    return None


def fused_training(x: Any, gamma: Any, beta: Any, epsilon: float) -> tuple[Any, Any, Any]:
    """Normalise a batch with its own statistics.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    where `variance` divides by m, the number of values in a channel.

    Args:
        x: Input, shape (N, H, W, C), float16 | bfloat16 | float32.
        gamma: Shape (C,), float32.
        beta: Shape (C,), float32.
        epsilon: Added to the variance, in units of x squared; finite, > 0.

    Returns:
        `y`, shape and dtype of `x`; the batch mean, shape (C,), float32; the batch variance times
        m / (m - 1), shape (C,), float32 (for m = 1 the factor is 1).

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1; the returned variance is that of
        Algorithm 2, step 10.
    """
    # With an averaging factor of 1 the kernel hands out the batch's own statistics.
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=tf.zeros_like(gamma),
        variance=tf.zeros_like(gamma),
        epsilon=epsilon,
        exponential_avg_factor=1.0,
        is_training=True,
    )
    return y, mean, variance


def fused_inference(x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float) -> Any:
    """Normalise a batch with given statistics.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    Args:
        x: Input, shape (N, H, W, C), float16 | bfloat16 | float32.
        gamma: Shape (C,), float32.
        beta: Shape (C,), float32.
        mean: Shape (C,), float32.
        variance: Shape (C,), float32, in units of x squared, >= 0.
        epsilon: Added to `variance`, same units; finite, > 0.

    Returns:
        Shape and dtype of `x`.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 11.
    """
    return tf.raw_ops.FusedBatchNormV3(
        x=x,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        is_training=False,
    ).y
