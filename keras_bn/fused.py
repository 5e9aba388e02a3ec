"""One fused kernel for every rank, axis and dtype, instead of a dozen elementwise operators.

TensorFlow's `FusedBatchNormV3` reads the input twice and writes the output once. It accepts
float16, bfloat16 and float32 inputs, keeps its statistics in float32 whatever the input, and has
first- and second-order gradients. It wants rank 4; other inputs are viewed so, without a copy:

    channels last      (..., C)          ->  (rows, 1, 1, C), NHWC
    channels elsewhere (..., C, ...)     ->  (before, C, after, 1), NCHW

Rank 4 with the channels at axis 3 or 1 goes in as it is: nothing stands between the kernel and its
caller, so that TensorFlow can fuse a ReLU that follows.

The kernel sums a channel in one go, so it loses digits where the mean is large beside the spread:
with 25,000 values a channel, mean 1e5 and deviation 1, its output was wrong by 5.0. A sample of the
batch tells; where it says so, the sample's mean is subtracted first (`_recentre`), and the same
output is wrong by 2e-5.

What it refuses, `why_not_fused` tells; the caller then takes the portable path in `moments.py`.
"""

from typing import Any

import tensorflow as tf

from keras_bn.interception import is_compiled_by_xla
from keras_bn.sampling import spread_sample

__all__ = [
    "fused_inference",
    "fused_training",
    "why_never_fused",
    "why_not_fused",
]

FUSED_DTYPES = ("float16", "bfloat16", "float32")
LARGEST_RATIO = 30.0  # of mean to deviation, beyond which the input is centred first
SAMPLES = 16  # values of each channel that decide that
GOLDEN_RATIO = (5**0.5 + 1) / 2


def why_not_fused(dtype: str, training: bool) -> str | None:
    """Say why the fused kernel cannot normalise a tensor exactly, or None if it can.

    Args:
        dtype: Name of the input's dtype.
        training: Whether the batch's own statistics are wanted.

    Returns:
        None, or the reason as a clause that completes "because ...".
    """
    if dtype not in FUSED_DTYPES:
        return f"the input is {dtype} and the kernel takes {', '.join(FUSED_DTYPES)}"
    if training and is_compiled_by_xla():
        # XLA has no such kernel; its expansion takes E[x^2] - E[x]^2, wrong from means of 1e3 on.
        # The portable formula is exact, and written for XLA.
        return "the function is compiled by XLA (`jit_compile=True`)"
    return None


def why_never_fused(layer: Any) -> str | None:
    """Say which option of a layer the fused kernel does not have, or None if there is none."""
    if layer.fused is False:
        return "`fused` is False"
    for name in ("renorm", "synchronized", "ghost_batch_size"):
        value = getattr(layer, name)
        if value:
            return f"`{name}` is {value}"
    return None


def fused_training(
    x: Any,
    gamma: Any,
    beta: Any,
    epsilon: float,
    axis: int = -1,
    moving: tuple[Any, Any] | None = None,
    momentum: float = 0.0,
) -> tuple[Any, Any, Any]:
    """Normalise a batch with its own statistics.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    where `variance` divides by m, the number of values in a channel.

    Args:
        x: Input of any known rank, C channels at `axis`; float16 | bfloat16 | float32.
        gamma: Shape (C,), float32.
        beta: Shape (C,), float32.
        epsilon: Added to the variance, in units of x squared; finite, > 0.
        axis: The channel axis.
        moving: The running mean and variance, shape (C,), float32; None stands for zeros.
        momentum: Weight of `moving` in what is returned, in [0, 1].

    Returns:
        `y`, shape and dtype of `x`; momentum * moving mean + (1 - momentum) * mean; the same of
        the variance, with the batch's multiplied by m / (m - 1) (by 1 for m = 1). Both of shape
        (C,), float32, and NaN for m = 0.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 1 and Algorithm 2, step 10.
    """
    x = tf.convert_to_tensor(x)
    view_of_x, layout = _kernel_view(x, axis)
    view, centre = _recentre(view_of_x, layout, epsilon)
    moving_mean, moving_variance = moving or (tf.zeros_like(gamma), tf.zeros_like(gamma))
    weight = 1.0 - momentum
    y, mean, variance, *_ = tf.raw_ops.FusedBatchNormV3(
        x=view,
        scale=gamma,
        offset=beta,
        mean=moving_mean,
        variance=moving_variance,
        epsilon=epsilon,
        exponential_avg_factor=weight,
        data_format=layout,
        is_training=True,
    )
    mean = mean + weight * centre
    for statistic in (mean, variance):
        statistic.set_shape(gamma.shape)
    return _undo_view(y, view_of_x, x), mean, variance


def fused_inference(
    x: Any, gamma: Any, beta: Any, mean: Any, variance: Any, epsilon: float, axis: int = -1
) -> Any:
    """Normalise a batch with given statistics.

        y = gamma * (x - mean) / sqrt(variance + epsilon) + beta

    Args:
        x: Input of any known rank, C channels at `axis`; float16 | bfloat16 | float32.
        gamma: Shape (C,), float32.
        beta: Shape (C,), float32.
        mean: Shape (C,), float32.
        variance: Shape (C,), float32, in units of x squared, >= 0.
        epsilon: Added to `variance`, same units; finite, > 0.
        axis: The channel axis.

    Returns:
        Shape and dtype of `x`.

    Reference:
        Ioffe & Szegedy 2015, arXiv:1502.03167, Algorithm 2, step 11.
    """
    x = tf.convert_to_tensor(x)
    view, layout = _kernel_view(x, axis)
    y = tf.raw_ops.FusedBatchNormV3(
        x=view,
        scale=gamma,
        offset=beta,
        mean=mean,
        variance=variance,
        epsilon=epsilon,
        data_format=layout,
        is_training=False,
    ).y
    return _undo_view(y, view, x)


def _kernel_view(x: Any, axis: int) -> tuple[Any, str]:
    """Return a rank-4 view of a tensor and its layout, "NHWC" or "NCHW"."""
    rank = len(x.shape)
    axis %= rank
    if rank == 4 and axis in (1, 3):
        return x, "NHWC" if axis == 3 else "NCHW"
    channels, sizes = x.shape[axis], tf.shape(x)
    before, after = tf.reduce_prod(sizes[:axis]), tf.reduce_prod(sizes[axis + 1 :])
    if axis == rank - 1:
        return tf.reshape(x, [before, 1, 1, channels]), "NHWC"
    return tf.reshape(x, [before, channels, after, 1]), "NCHW"


def _undo_view(y: Any, view: Any, x: Any) -> Any:
    """Give the kernel's output the shape of the input; nothing to do where `x` is its own view."""
    return y if view is x else tf.ensure_shape(tf.reshape(y, tf.shape(x)), x.shape)


def _recentre(view: Any, layout: str, epsilon: float) -> tuple[Any, Any]:
    """Subtract a constant from each channel whose mean is large beside its spread.

    Returns:
        The view, shifted or untouched; what was subtracted, shape (C,), float32.
    """
    sample, axes = _sample(view, layout)
    sample = tf.stop_gradient(tf.cast(sample, tf.float32))
    mean, square = tf.reduce_mean(sample, axes), tf.reduce_mean(sample * sample, axes)
    # |mean| > RATIO * deviation, with deviation^2 = E[x^2] - mean^2 + epsilon; False for NaN.
    large = mean * mean * (1.0 + LARGEST_RATIO**-2) > square + epsilon
    # Rounded as it is subtracted, so that adding it to the batch mean is exact.
    centre = tf.where(large, tf.cast(mean, view.dtype), tf.zeros([], view.dtype))
    shape = [1, -1, 1, 1] if layout == "NCHW" else [-1]

    def shift(view: Any) -> Any:
        shifted = tf.cond(
            tf.reduce_any(large), lambda: view - tf.reshape(centre, shape), lambda: view
        )
        return shifted, lambda upstream: upstream  # shifting by a constant has the gradient 1

    return tf.custom_gradient(shift)(view), tf.cast(centre, tf.float32)


def _sample(view: Any, layout: str) -> tuple[Any, list[int]]:
    """Pick some 16 values of each channel, at different pixels of different samples.

    By slices of fixed steps, which cost two operators, where the number of pixels is known: this
    is in the way of every training step.

    Returns:
        The values, and the axes to reduce.
    """
    axes = [0] if layout == "NHWC" else [0, 2, 3]
    if layout == "NHWC":
        rows = tf.reshape(view, [-1, view.shape[3]])
        if None in view.shape[1:3]:
            return spread_sample(rows, axes), axes
        pixels = view.shape[1] * view.shape[2]
        step = max(round(pixels * GOLDEN_RATIO), 1)  # another pixel of each sample
        return rows[pixels // 2 : pixels // 2 + SAMPLES * step : step], axes
    if view.shape[2] is None:
        return spread_sample(view, axes), axes
    return view[:4, :, view.shape[2] // 8 :: max(view.shape[2] // 4, 1)], axes
