"""Batch norm of ragged tensors: all their values are one batch, as in Keras's layer.

(N, None, ..., C) with M values in its rows    as (M, 1, ..., C)
"""

from typing import Any

import tensorflow as tf

from keras_bn.arguments import refusal

__all__ = ["call_on_values"]


def call_on_values(
    layer: Any, inputs: Any, training: bool | None, mask: Any, sample_weight: Any
) -> Any:
    """Return what a layer makes of a ragged tensor, with the same rows.

    Args:
        layer: A batch norm.
        inputs: A `tf.RaggedTensor`, whose channels are not ragged.
        training: As for the layer's `call`.
        mask: Must be None.
        sample_weight: Must be None.

    Raises:
        ValueError: If weights were given, or the channels are ragged.
    """
    rank, ragged = inputs.shape.rank, inputs.ragged_rank
    for name, value in (("mask", mask), ("sample_weight", sample_weight)):
        if value is not None:
            raise refusal(name, "be None for a ragged tensor", **{name: type(value).__name__})
    if layer.axis % rank <= ragged:
        rule = f"be behind the ragged axes, of which {ragged} is the last"
        raise refusal("axis", rule, axis=layer.axis)
    values = inputs.flat_values
    for _ in range(ragged):
        values = tf.expand_dims(values, 1)
    outputs = layer.call(values, training=training)
    return inputs.with_flat_values(tf.squeeze(outputs, list(range(1, ragged + 1))))
