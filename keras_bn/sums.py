"""Float32 sums of many values, exact to float32: over blocks in float32, over those in float64.

A float32 sum of a million values in one go is good to a percent. Under XLA a block is one axis, and
several sums take one pass: XLA reads the input of each plain sum on its own, and would merge both
levels into one loop over a channel at a time, against the order of the memory.
"""

from typing import Any

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from keras_bn.interception import is_compiled_by_xla

__all__ = ["blockwise_sums"]

LARGEST_BLOCK = 1 << 14  # values
ROW = 64  # values in a block where one axis is all there is


def blockwise_sums(tensors: list[Any], axes: list[int]) -> list[Any]:
    """Sum tensors over some axes.

    Args:
        tensors: Any number of one shape and dtype, float32 | float64.
        axes: The axes to reduce, in ascending order.

    Returns:
        The sums, float64, with size 1 on the reduced axes.
    """
    shape, compiled = tensors[0].shape, is_compiled_by_xla()
    outer, folded = [i for i in axes if shape[i] != 1], None
    if not outer:
        return [tf.cast(values, tf.float64) for values in tensors]
    last = outer[-1]
    if len(outer) == 1 or (shape[last] or 0) > LARGEST_BLOCK:
        tensors = [_in_rows(values, last) for values in tensors]
        inner, folded = [last + 1], last + 1
    else:
        inner, size = [outer.pop()], shape[last] or LARGEST_BLOCK
        while not compiled and outer and size * (shape[outer[-1]] or LARGEST_BLOCK) < LARGEST_BLOCK:
            size *= shape[outer[-1]]
            inner.insert(0, outer.pop())
    partial = (_summed_together if compiled else _summed)(tensors, inner)
    sums = [tf.reduce_sum(tf.cast(values, tf.float64), outer, keepdims=True) for values in partial]
    return sums if folded is None else [tf.squeeze(values, folded) for values in sums]


def _summed(tensors: list[Any], axes: list[int]) -> list[Any]:
    return [tf.reduce_sum(values, axes, keepdims=True) for values in tensors]


def _summed_together(tensors: list[Any], axes: list[int]) -> list[Any]:
    """Sum in one pass of XLA's, which is not merged with what follows."""

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def summed(*tensors: Any) -> Any:
        dtype, shape = tensors[0].dtype, tf.shape(tensors[0])
        scalars = [tf.TensorSpec((), dtype)] * (2 * len(tensors))
        sums = gen_xla_ops.xla_variadic_reduce_v2(
            tensors, [tf.zeros((), dtype)] * len(tensors), axes, _adder(scalars)
        )
        sums = gen_xla_ops.xla_optimization_barrier(sums)

        def gradient(*upstream: Any) -> list[Any]:
            return [tf.broadcast_to(values, shape) for values in upstream]

        return [_with_axes(values, axes) for values in sums], gradient

    return list(summed(*tensors))


def _with_axes(values: Any, axes: list[int]) -> Any:
    for axis in axes:
        values = tf.expand_dims(values, axis)
    return values


def _adder(scalars: list[Any]) -> Any:
    count = len(scalars) // 2

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def added(*numbers: Any) -> list[Any]:
        return [a + b for a, b in zip(numbers[:count], numbers[count:], strict=True)]

    return added.get_concrete_function(*scalars)


def _in_rows(values: Any, axis: int) -> Any:
    """Split an axis into rows of at most 64, all of one length, with zeros behind the last."""
    shape = tf.shape(values)
    size = values.shape[axis] if values.shape[axis] is not None else shape[axis]
    rows = (size + ROW - 1) // ROW
    length = (size + rows - 1) // (max(rows, 1) if isinstance(rows, int) else tf.maximum(rows, 1))
    if not isinstance(size, int) or rows * length > size:
        behind = [[0, rows * length - size if i == axis else 0] for i in range(len(values.shape))]
        values = tf.pad(values, behind)
    return tf.reshape(values, tf.concat([shape[:axis], [rows, length], shape[axis + 1 :]], 0))
