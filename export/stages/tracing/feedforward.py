"""Keras's batch norm, Dense, Embedding, PReLU, UpSampling and TimeDistributed in ONNX's own terms.

    BatchNormalization        BatchNormalization, with the channels moved to axis 1 and back; the
                              moments of the batch where a model says `training=True`
    Dense on rank > 2         MatMul, which TensorFlow wraps in two computed Reshapes
    Embedding                 Gather, which counts negative indices from the end as Keras does
    PReLU                     PRelu, which TensorFlow writes in five operators
    UpSampling                Resize by whole factors, which TensorFlow writes as Tiles where it is
                              nearest, and Keras cannot trace where it is bilinear and the size is
                              unknown; other interpolations stay
    TimeDistributed(layer)    layer on (N * T, ...), which TensorFlow unrolls, or loops over

The last holds where the layer treats each sample by itself: for Keras's own layers and models of
them, without a mask. Anything else stays as TensorFlow writes it.
"""

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from keras import ops

from keras_bn.interception import has_batch_norm_call

from .conversions import place_operator

__all__ = ["feedforward_method"]

# Layers of Keras that do not treat each sample by itself, or run code that is not Keras's.
NOT_BY_SAMPLE = (
    keras.layers.Lambda,
    keras.layers.Masking,
    keras.layers.RNN,
    keras.layers.UnitNormalization,
)

# Modules of layers that do, but for these.
BY_SAMPLE = ("keras.src.layers.", "keras_bn.layer")

# Attributes of Resize for each interpolation of an UpSampling layer.
UP_SAMPLING: dict[str, dict[str, Any]] = {
    "nearest": {
        "mode": "nearest",
        "nearest_mode": "floor",
        "coordinate_transformation_mode": "asymmetric",
    },
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
}


def feedforward_method(layer: Any) -> tuple[str, Callable[..., Any]] | None:
    """Return the method of a layer to replace and by what; None if the layer is none of these."""
    writers = {
        keras.layers.Dense.call: _dense,
        keras.layers.Embedding.call: _embedding,
        keras.layers.PReLU.call: _prelu,
        keras.layers.TimeDistributed.call: _time_distributed,
        keras.layers.UpSampling1D.call: _up_sampling,
        keras.layers.UpSampling2D.call: _up_sampling,
        keras.layers.UpSampling3D.call: _up_sampling,
    }
    call = getattr(type(layer), "call", None)
    write = _batch_norm if has_batch_norm_call(layer) else writers.get(call)
    if write is None or "call" in vars(layer):
        return None
    return "call", lambda *args, **kwargs: write(layer, *args, **kwargs)


def _channels_second(rank: int, axis: int) -> list[int]:
    """Return the permutation that moves an axis to position 1."""
    return [0, axis, *(a for a in range(1, rank) if a != axis)]


def _batch_norm(
    layer: Any, inputs: Any, training: Any = None, mask: Any = None, *rest: Any, **options: Any
) -> Any:
    """Return ONNX's BatchNormalization of the inputs, in the layer's compute dtype."""
    rank, dtype = inputs.shape.rank, keras.backend.result_type(inputs.dtype, "float32")
    if training and layer.trainable:
        return _by_the_batch(layer, inputs, dtype, mask, *rest, **options)
    if rank is None or layer.axis % rank == 0:
        return None
    x = ops.cast(inputs, dtype)
    attributes = {"epsilon": float(layer.epsilon)}
    if layer.momentum is not None:  # for whoever trains the file on
        attributes["momentum"] = float(layer.momentum)
    parameters = (*_affine(layer), layer.moving_mean, layer.moving_variance)
    (y,) = place_operator(
        "BatchNormalization",
        [x, *(ops.cast(p, dtype) for p in parameters)],
        [x.shape],
        attributes,
        _channels_second(rank, layer.axis % rank),
    )
    y = ops.cast(y, layer.compute_dtype)
    return y if _is_stock(layer) else layer.activated(y)


def _is_stock(layer: Any) -> bool:
    """Say whether a batch norm is Keras's own, or of a class that leaves its `call` alone."""
    return bool(type(layer).call is keras.layers.BatchNormalization.call)


def _affine(layer: Any) -> tuple[Any, Any]:
    channels = layer.moving_mean.shape
    gamma = layer.gamma if layer.scale else tf.ones(channels)
    return gamma, layer.beta if layer.center else tf.zeros(channels)


def _by_the_batch(
    layer: Any, inputs: Any, dtype: str, mask: Any = None, sample_weight: Any = None
) -> Any:
    """Return what the layer makes of a batch if the model calls it with `training=True`.

    Its fused kernel is none of ONNX's operators.
    """
    weighted = mask is not None or sample_weight is not None or hasattr(inputs, "_keras_mask")
    if _is_stock(layer):
        return None
    if weighted or layer.ghost_batch_size or layer.renorm or layer.synchronized:
        fused = layer.fused
        try:
            layer.fused = False
            return type(layer).call(layer, inputs, True, mask, sample_weight)
        finally:
            layer.fused = fused
    x, axis = ops.cast(inputs, dtype), layer.axis % inputs.shape.rank
    others = [a for a in range(inputs.shape.rank) if a != axis]
    mean = ops.mean(x, others, keepdims=True)
    variance = ops.mean(ops.square(x - mean), others, keepdims=True)
    along = [-1 if a == axis else 1 for a in range(inputs.shape.rank)]
    gamma, beta = (ops.reshape(ops.cast(p, dtype), along) for p in _affine(layer))
    y = (x - mean) * (ops.rsqrt(variance + layer.epsilon) * gamma) + beta
    return layer.activated(ops.cast(y, layer.compute_dtype))


def _dense(layer: Any, inputs: Any, *_: Any, **__: Any) -> Any:
    x = tf.convert_to_tensor(inputs)
    if x.shape.rank in (None, 2) or getattr(layer, "quantization_mode", None) is not None:
        return None
    kernel = tf.convert_to_tensor(layer.kernel)
    if x.dtype != kernel.dtype:
        return None
    (y,) = place_operator("MatMul", [x, kernel], [(*x.shape[:-1], layer.units)], {})
    y = y if layer.bias is None else ops.add(y, layer.bias)
    return y if layer.activation is None else layer.activation(y)


def _embedding(layer: Any, inputs: Any, *_: Any, **__: Any) -> Any:
    if getattr(layer, "quantization_mode", None) is not None:
        return None
    indices = inputs if inputs.dtype in (tf.int32, tf.int64) else tf.cast(inputs, tf.int32)
    table = tf.convert_to_tensor(layer.embeddings)
    shape = (*indices.shape, layer.output_dim)
    (y,) = place_operator("Gather", [table, indices], [shape], {"axis": 0})
    return ops.cast(y, layer.compute_dtype)


def _prelu(layer: Any, inputs: Any, *_: Any, **__: Any) -> Any:
    x, slope = tf.convert_to_tensor(inputs), tf.convert_to_tensor(layer.alpha)
    if x.dtype != slope.dtype or x.dtype == tf.float64:  # no kernel in ONNX Runtime on a CPU
        return None
    (y,) = place_operator("PRelu", [x, slope], [x.shape], {})
    return y


def _up_sampling(layer: Any, inputs: Any, *_: Any, **__: Any) -> Any:
    attributes = UP_SAMPLING.get(getattr(layer, "interpolation", "nearest"))
    if attributes is None:
        return None
    x = tf.convert_to_tensor(inputs)
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    order = _channels_second(x.shape.rank, 1 if first else x.shape.rank - 1)
    factors = [1, 1, *keras.tree.flatten(layer.size)]
    shape = [
        None if size is None else size * factors[order.index(axis)]
        for axis, size in enumerate(x.shape)
    ]
    scales = tf.constant(factors, tf.float32)
    (y,) = place_operator("Resize", [x, None, scales], [shape], attributes, order)
    return y


def _time_distributed(
    layer: Any, inputs: Any, training: Any = None, mask: Any = None, **_: Any
) -> Any:
    del training
    inner, x = layer.layer, tf.convert_to_tensor(inputs)
    if mask is not None or not _is_by_sample(inner) or x.shape.rank is None:
        return None
    time = x.shape[1] if x.shape[1] is not None else tf.shape(x)[1]
    y = inner.call(_merged(x, x.shape[2:], [-1]), **_inference(inner))
    lead = [-1, time] if isinstance(time, int) else [tf.shape(x)[0], time]
    merged = _merged(y, y.shape[1:], lead)
    merged.set_shape([*x.shape[:2], *y.shape[1:]])
    return merged


def _merged(x: Any, rest: Any, lead: list[Any]) -> Any:
    """Reshape to the leading sizes given and the last sizes that `x` has."""
    known = rest.as_list()
    if None not in known:
        return tf.reshape(x, [*lead, *known])
    sizes = tf.shape(x)[x.shape.rank - len(known) :]
    y = tf.reshape(x, tf.concat([tf.stack(lead), sizes], 0))
    y.set_shape([*[None] * len(lead), *known])
    return y


def _inference(layer: Any) -> dict[str, Any]:
    return {"training": False} if layer._call_has_training_arg else {}


def _is_by_sample(layer: Any) -> bool:
    """Say whether a layer is known to treat each sample of a batch by itself in inference.

    A subclass is not, be it of batch norm: what its `call` calls may be its own.
    """
    own = (keras.Sequential, keras.src.models.functional.Functional)
    return all(
        (type(part) in own or type(part).__module__.startswith(BY_SAMPLE))
        and (not isinstance(part, NOT_BY_SAMPLE) or _is_plain_recurrent(part))
        for part in layer._flatten_layers()
    )


def _is_plain_recurrent(layer: Any) -> bool:
    return isinstance(layer, keras.layers.RNN) and not layer.stateful
