"""Mean and variance of a batch, exactly: weighted, masked, in ghost batches, across replicas.

The portable path, which XLA compiles too. With weights w (1 without mask and sample weights),
W = sum w, and the pivot p, the mean of a small sample, a channel has

    e = sum w (x - p) / W        mean = p + e        variance = sum w (x - p)^2 / W - e^2

Both sums take one pass over x, and are no larger than the spread, so that a mean of 1e5 costs no
digits of it; x is normalised as (x - p) - e, without the rounding of p + e.

Backward, `normalise` sums dy and dy (x - mean) in one pass, and all else of the gradient is

    dx = a dy + w (b (x - p) + d)

in a second, with a, b and d of one value a channel.

Reference:
    Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1.
"""

from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from keras_bn.replicas import merged_moments, replicas
from keras_bn.running import bessel_factor
from keras_bn.sampling import spread_sample
from keras_bn.sums import blockwise_sums
from keras_bn.weighting import combined_weights, in_ghost_batches

__all__ = [
    "Moments",
    "batch_moments",
    "layer_moments",
    "normalise",
    "per_channel",
    "weighted_moments",
]


@dataclass(frozen=True)
class Moments:
    """The moments of a batch; shapes as the input's with size 1 on the reduced axes.

    Attributes:
        shifted: x - p, shape of x, with p a value near the mean.
        error: mean - p, without the rounding of the mean.
        mean: In the units of x; 0 where the total weight is 0.
        variance: Biased (divides by W), in units of x squared; 0 where the total weight is 0.
        total: W, the sum of the weights; the number of values where there are none.
        effective: W^2 / sum w^2, the effective number of values; W for equal weights of 1.
    """

    shifted: Any
    error: Any
    mean: Any
    variance: Any
    total: Any
    effective: Any

    @property
    def centred(self) -> Any:
        """The input less its mean, shape of x."""
        return self.shifted - self.error


def layer_moments(
    inputs: Any,
    axis: int,
    mask: Any = None,
    sample_weight: Any = None,
    *,
    ghost_batch_size: int | None = None,
    synchronized: bool = False,
) -> Moments:
    """Compute the moments that a batch-norm layer normalises a batch by.

    Args:
        inputs: Shape (N, ..., C, ...), any float dtype; computed in float32 when half precision.
        axis: The channel axis.
        mask: As for `combined_weights`.
        sample_weight: As for `combined_weights`.
        ghost_batch_size: None, or the number of samples that are normalised together.
        synchronized: Merge with the other replicas of a `tf.distribute` strategy, if there are any.

    Returns:
        The moments; with ghost batches, those of each group along a first axis that `inputs` does
        not have.

    Raises:
        ValueError: As `combined_weights` and `in_ghost_batches`.
    """
    axis %= len(inputs.shape)
    x = tf.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
    weights = combined_weights(x, axis, mask, sample_weight)
    return weighted_moments(
        x, axis, weights, ghost_batch_size=ghost_batch_size, synchronized=synchronized
    )


def weighted_moments(
    x: Any,
    axis: int,
    weights: Any = None,
    *,
    ghost_batch_size: int | None = None,
    synchronized: bool = False,
) -> Moments:
    """Compute what `layer_moments` does, given what `combined_weights` returns.

    Args:
        x: Shape (N, ..., C, ...), float32 | float64.
        axis: The channel axis, counted from the front.
        weights: None, or numbers >= 0 of the rank of `x` that broadcast to it.
        ghost_batch_size: As for `layer_moments`.
        synchronized: As for `layer_moments`.

    Raises:
        ValueError: As `in_ghost_batches`.
    """
    first = 0
    if ghost_batch_size is not None:
        x, weights = (in_ghost_batches(t, ghost_batch_size) for t in (x, weights))
        first, axis = 1, axis + 1
    axes = [i for i in range(first, len(x.shape)) if i != axis]
    return batch_moments(x, axes, weights, synchronized=synchronized)


def normalise(
    moments: Moments, inputs: Any, axis: int, epsilon: float, gamma: Any, beta: Any
) -> Any:
    """Normalise a batch by its moments.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    Args:
        moments: What `layer_moments` returned for `inputs`.
        inputs: Shape (N, ..., C, ...).
        axis: The channel axis.
        epsilon: Added to the variance, in units of the input squared.
        gamma: Shape (C,) in the dtype of the moments; None for ones.
        beta: Likewise; None for zeros.

    Returns:
        The shape of `inputs` in the dtype of the moments.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1.
    """
    rank = len(inputs.shape)
    shape = [-1 if i == axis % rank else 1 for i in range(rank)]
    shape = [1] * (len(moments.shifted.shape) - rank) + shape  # ghost batches have an axis more
    scale = tf.math.rsqrt(moments.variance + epsilon)
    offset = tf.zeros_like(scale)
    if gamma is not None:
        scale *= tf.reshape(gamma, shape)
    if beta is not None:
        offset += tf.reshape(beta, shape)
    outputs = _scaled(moments.shifted, moments.error, scale, offset)
    return tf.ensure_shape(tf.reshape(outputs, tf.shape(inputs)), inputs.shape)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _scaled(shifted: Any, error: Any, scale: Any, offset: Any) -> tuple[Any, Any]:
    """Return (shifted - error) * scale + offset; TensorFlow's own gradient has sums more.

    The last three have one shape, with size 1 on the axes that moments reduce. Of the groups of
    ghost batches and the channels, a size of 1 may count as reduced: its sum is itself.
    """
    outputs = (shifted - error) * scale + offset

    def gradient(dy: Any) -> tuple[Any, Any, Any, Any]:
        axes = [i for i, size in enumerate(error.shape) if size == 1]
        sums = blockwise_sums([dy, dy * (shifted - error)], axes)
        doffset, dscale = (tf.cast(values, dy.dtype) for values in sums)
        return dy * scale, -scale * doffset, dscale, doffset

    return outputs, gradient


def batch_moments(
    x: Any, axes: list[int], weights: Any = None, *, synchronized: bool = False
) -> Moments:
    """Compute the moments of a batch over some axes.

    Args:
        x: Input, float32 | float64.
        axes: The axes to reduce.
        weights: None, or numbers >= 0 that broadcast to `x`. What weighs 0 may be NaN.
        synchronized: Merge with the other replicas of a `tf.distribute` strategy, if there are any.

    Returns:
        The moments; those of all replicas together if `synchronized`.
    """
    if weights is None:
        counted = x
        sizes = tf.shape(x, out_type=tf.int64)
        kept = tf.reduce_prod([sizes[i] for i in range(len(x.shape)) if i not in axes])
        total = squares = tf.cast(tf.reduce_prod(sizes) // tf.maximum(kept, 1), tf.float64)
    else:
        weights = tf.broadcast_to(weights, tf.shape(x))
        counted = tf.where(weights > 0, x, tf.zeros_like(x))
        total, squares = blockwise_sums([weights, weights**2], axes)
    pivot = _sampled_mean(counted, weights, axes)
    shifted = counted - pivot
    weighted = shifted if weights is None else weights * shifted
    sums = blockwise_sums([weighted, weighted * shifted], axes)
    error, second = (tf.math.divide_no_nan(values, total) for values in sums)
    variance = second - error**2
    if weights is not None:
        shifted = x - pivot
    total, squares, error, variance = (
        tf.cast(value, x.dtype) for value in (total, squares, error, variance)
    )
    mean = pivot + error
    if synchronized and replicas() > 1:
        total, squares, mean, variance = merged_moments(total, squares, mean, variance)
        error = tf.ensure_shape(mean - pivot, pivot.shape)
    return Moments(
        shifted=shifted,
        error=error,
        mean=mean,
        variance=tf.where(variance < 0, tf.zeros_like(variance), variance),  # a NaN stays
        total=total,
        effective=tf.math.divide_no_nan(total**2, squares),
    )


def _sampled_mean(x: Any, weights: Any, axes: list[int]) -> Any:
    """Return the mean of a few values; 0 where they weigh nothing or are not finite."""
    sample = spread_sample(x, axes)
    shares = tf.ones_like(sample) if weights is None else spread_sample(weights, axes)
    summed, total = (tf.reduce_sum(t, axes, keepdims=True) for t in (shares * sample, shares))
    mean = tf.math.divide_no_nan(summed, total)
    return tf.stop_gradient(tf.where(tf.math.is_finite(mean), mean, tf.zeros_like(mean)))


def per_channel(moments: Moments, channels: int) -> tuple[Any, Any, Any, Any]:
    """Reduce moments to one value for each channel, for the running statistics.

    Args:
        moments: Those of one batch, or of several ghost batches, the first axis.
        channels: C.

    Returns:
        The total weight; the mean, the biased variance and the unbiased variance, which has the
        factor n / (n - 1) with n the effective number of values: each of shape (C,), averaged over
        the ghost batches that have any weight.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 10: expectations over batches.
    """
    unbiased = moments.variance * bessel_factor(moments.effective)
    total = tf.reshape(tf.broadcast_to(moments.total, tf.shape(moments.mean)), [-1, channels])
    counts = tf.cast(total > 0, total.dtype)

    def average(statistic: Any) -> Any:
        summed = tf.reduce_sum(counts * tf.reshape(statistic, [-1, channels]), 0)
        return tf.math.divide_no_nan(summed, tf.reduce_sum(counts, 0))

    statistics = (moments.mean, moments.variance, unbiased)
    mean, variance, unbiased = (average(statistic) for statistic in statistics)
    return tf.reduce_sum(total, 0), mean, variance, unbiased
