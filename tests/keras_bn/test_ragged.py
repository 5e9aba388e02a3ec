import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from tests.tolerances import assert_close


def ragged(rng, shape, dtype="float32"):
    values = rng.normal(3.0, 2.0, (7, *shape)).astype(dtype)
    return tf.RaggedTensor.from_row_lengths(values, [3, 0, 4])


@pytest.mark.parametrize("fused", [None, False])
@pytest.mark.parametrize(("shape", "axis"), [((3,), -1), ((3,), 2), ((5, 3), -1), ((5, 3), 2)])
def test_training_on_ragged_rows_is_training_on_their_values(shape, axis, fused, rng):
    rows = ragged(rng, shape)
    layer = BatchNormalization(axis=axis, momentum=0.0, bessel_correction=False, fused=fused)
    y = layer(rows, training=True)
    x = rows.flat_values.numpy().astype(np.float64)
    others = tuple(a for a in range(x.ndim) if a != (axis - 1 if axis > 0 else x.ndim - 1))
    mean, variance = x.mean(others, keepdims=True), x.var(others, keepdims=True)
    assert y.row_lengths().numpy().tolist() == [3, 0, 4]
    assert_close(y.flat_values, (x - mean) / np.sqrt(variance + 1e-3))
    assert_close(layer.moving_mean, mean.ravel())
    assert_close(layer.moving_variance, variance.ravel())


def test_ragged_rows_train_as_with_the_layer_of_keras(rng):
    rows = ragged(rng, (3,))
    own, stock = BatchNormalization(bessel_correction=False), keras.layers.BatchNormalization()
    for training in (True, False):
        found, expected = own(rows, training=training), stock(rows, training=training)
        assert_close(found.flat_values, expected.flat_values.numpy())
    for weight, other in zip(own.weights, stock.weights, strict=True):
        assert_close(weight, other.numpy())


def test_inner_ragged_rows_and_gradients(rng):
    inner = tf.RaggedTensor.from_row_lengths(ragged(rng, (3,)), [2, 1])
    layer = BatchNormalization()
    with tf.GradientTape() as tape:
        tape.watch(inner.flat_values)
        loss = tf.reduce_sum(layer(inner, training=True).flat_values ** 3)
    assert np.isfinite(tape.gradient(loss, inner.flat_values).numpy()).all()


def test_half_precision_in_a_function(rng):
    layer = BatchNormalization(dtype="float16")
    y = tf.function(layer)(ragged(rng, (3,), "float16"), training=True)
    assert y.dtype == tf.float16
    assert abs(y.flat_values.numpy().astype(np.float64).mean()) < 1e-2


@pytest.mark.parametrize(
    ("options", "arguments", "said"),
    [
        ({"axis": 1}, {}, "`axis` must be behind the ragged axes, of which 1 is the last"),
        ({}, {"sample_weight": np.ones(3)}, "`sample_weight` must be None for a ragged tensor"),
    ],
)
def test_ragged_channels_and_weights_are_refused(options, arguments, said, rng):
    layer = BatchNormalization(**options)
    layer.build((None, 3, 3))
    with pytest.raises(ValueError, match=re.escape(said)):
        layer(ragged(rng, (3,)), training=True, **arguments)
