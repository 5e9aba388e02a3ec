"""What of a batch counts, and what of it is normalised together: weights and ghost batches."""

from typing import Any

import tensorflow as tf

from keras_bn.arguments import refusal

__all__ = ["check_ghost_batches", "combined_weights", "in_ghost_batches"]


def combined_weights(x: Any, axis: int, mask: Any, sample_weight: Any, dtype: Any = None) -> Any:
    """Multiply a mask and sample weights into one tensor that broadcasts to the input.

    Args:
        x: Input, shape (N, ..., C, ...), channels at `axis`.
        axis: The channel axis, counted from the front.
        mask: None, or bool, shape of `x` without its last axis, as Keras passes it.
        sample_weight: None, or numbers >= 0, shape (N,) or any longer leading part of the shape of
            `x` without `axis`: per sample, or per position.
        dtype: Of the result; None for that of `x`.

    Returns:
        None if there are neither, else a tensor of the rank of `x`.

    Raises:
        ValueError: If `mask` does not have one dimension less than `x`.
        ValueError: If `sample_weight` has no dimension, or as many as `x`.
    """
    rank, dtype = len(x.shape), dtype or x.dtype
    weights = None
    if mask is not None:
        mask = tf.convert_to_tensor(mask)
        if len(mask.shape) != rank - 1:
            received = {"mask.shape": mask.shape, "inputs.shape": x.shape}
            raise refusal("mask", "have one dimension less than the inputs", **received)
        weights = tf.cast(mask, dtype)[..., tf.newaxis]
    if sample_weight is not None:
        sample_weight = tf.cast(sample_weight, dtype)
        if not 1 <= len(sample_weight.shape) < rank:
            rule = "have the shape of the inputs without the channel axis, or a leading part of it"
            received = {"sample_weight.shape": sample_weight.shape, "inputs.shape": x.shape}
            raise refusal("sample_weight", rule, **received)
        if axis < len(sample_weight.shape):
            sample_weight = tf.expand_dims(sample_weight, axis)
        missing = rank - len(sample_weight.shape)
        sample_weight = sample_weight[(..., *[tf.newaxis] * missing)]
        weights = sample_weight if weights is None else weights * sample_weight
    return weights


def in_ghost_batches(x: Any, size: int) -> Any:
    """Split the batch axis into groups of consecutive samples: (N, ...) -> (N / size, size, ...).

    Args:
        x: A tensor, or None, which is returned.
        size: Samples a group.

    Raises:
        ValueError: If `size` does not divide N; tf.errors.InvalidArgumentError inside a function
            that was traced without a known N.

    Reference:
        Hoffer, Hubara & Soudry 2017, arXiv:1705.08741.
    """
    if x is None:
        return None
    rule = check_ghost_batches(x, size)
    sizes = tf.shape(x)
    check = tf.debugging.Assert(sizes[0] % size == 0, [rule, sizes])
    with tf.control_dependencies([] if check is None else [check]):
        return tf.reshape(x, tf.concat([[sizes[0] // size, size], sizes[1:]], 0))


def check_ghost_batches(x: Any, size: int) -> str:
    """Refuse a batch of a known size that ghost batches do not divide; return the error's text."""
    rule = (
        "BatchNormalization: `ghost_batch_size` must divide the batch size. Received: "
        f"ghost_batch_size={size}, batch size {x.shape[0] or 'as shown'}. Drop the last, smaller "
        "batch, or choose another size."
    )
    if x.shape[0] is not None and x.shape[0] % size:
        raise ValueError(rule)
    return rule
