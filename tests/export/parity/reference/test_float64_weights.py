"""A model in float64 is the same layers, and is left as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_bn
from keras_bn.export.parity.reference.float64_weights import Float64Weights, computing_in_float64
from keras_bn.export.parity.reference.keras_runs import in_keras
from keras_bn.export.signature import signature_of
from tests.networks import bits
from tests.oracles import normalise

pytestmark = pytest.mark.onednn


def state(model):
    """Return all that a run in float64 changes for its time."""
    layers = list(model._flatten_layers())
    return (
        [vars(layer)["_dtype_policy"] for layer in layers],
        ["call" in vars(layer) for layer in layers],
        [
            tensor.dtype
            for layer in layers
            for tensor in keras.tree.flatten(getattr(layer, "_inputs", None) or [])
        ],
        bits(model),
        keras.config.floatx(),
    )


def in_both(model, *arrays):
    """Run a model as it is and in float64."""
    signature = signature_of(model)
    before = state(model)
    own = in_keras(model, signature)[0](list(arrays))
    wide = in_keras(model, signature, Float64Weights(model))[0](list(arrays))
    assert state(model) == before
    return own, wide


def assert_wide(model, *arrays):
    """Assert that float64 gives nearly, but not quite, what float32 does."""
    for own, wide in zip(*in_both(model, *arrays), strict=True):
        assert wide.dtype == np.float64
        np.testing.assert_allclose(own, wide, rtol=1e-3, atol=1e-5)
        assert not np.array_equal(own.astype(np.float64), wide)
        assert np.any(wide != wide.astype(np.float32))


def test_truth_is_that_of_numpy(rng):
    x = keras.Input((3,), name="x")
    layer = keras_bn.BatchNormalization()
    model = keras.Model(x, layer(x))
    mean, variance = rng.normal(size=3), rng.uniform(0.5, 2, 3)
    layer.moving_mean.assign(mean)
    layer.moving_variance.assign(variance)
    batch = rng.normal(size=(4, 3)).astype(np.float32)
    _, (wide,) = in_both(model, batch)
    stored = (np.float64(v.numpy()) for v in (layer.moving_mean, layer.moving_variance))
    expected = normalise(np.float64(batch), *stored, 1.0, 0.0, 1e-3)
    np.testing.assert_allclose(wide, expected, rtol=1e-14)


def test_nested_shared_and_sequential_models(rng, randomised):
    inner_input = keras.Input((6, 6, 3))
    inner = keras.Model(inner_input, keras.layers.Conv2D(3, 3, padding="same")(inner_input))
    branch = keras.Sequential([keras.layers.Conv2D(3, 1), keras.layers.BatchNormalization()])
    a, b = keras.Input((6, 6, 3), name="a"), keras.Input((6, 6, 3), name="b")
    model = keras.Model([a, b], keras.layers.Add()([inner(branch(a)), inner(inner(b))]))
    assert_wide(randomised(model), *rng.normal(size=(2, 2, 6, 6, 3)).astype(np.float32))


def test_subclassed_model_that_has_no_config(rng):
    class Net(keras.Model):
        def __init__(self, activation):
            super().__init__()
            self.first = keras.layers.Dense(4)
            self.norm = keras_bn.BatchNormalization()
            self.activation = activation

        def call(self, x):
            return self.activation(self.norm(self.first(x))) + keras.ops.ones((4,))

    model = Net(lambda x: keras.ops.tanh(x))
    batch = rng.normal(size=(3, 5)).astype(np.float32)
    model(batch)
    assert_wide(model, batch)


@pytest.mark.parametrize(
    "layer",
    [
        keras.layers.LSTM(3),
        keras.layers.Bidirectional(keras.layers.GRU(3, return_sequences=True)),
        keras.layers.TimeDistributed(keras.layers.Dense(2)),
        keras.layers.LayerNormalization(),
        keras.layers.SpectralNormalization(keras.layers.Dense(2)),
        keras.layers.Conv1D(4, 2),
        keras.layers.SeparableConv1D(4, 2),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_with_layers_inside(layer, rng):
    x = keras.Input((5, 4), name="x")
    assert_wide(keras.Model(x, layer(x)), rng.normal(size=(2, 5, 4)).astype(np.float32))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("strides", [None, (2, 1, 3)])
def test_maximum_over_three_axes(padding, strides, rng):
    x = keras.Input((7, 6, 5, 2), name="x")
    y = keras.layers.MaxPooling3D((3, 2, 2), strides, padding=padding)(x)
    batch = rng.normal(size=(2, 7, 6, 5, 2)).astype(np.float32)
    (own,), (wide,) = in_both(keras.Model(x, y), batch)
    np.testing.assert_array_equal(own.astype(np.float64), wide)


def test_mixed_precision_and_maps_of_policies_come_back(rng):
    x = keras.Input((4,), name="x")
    y = keras.layers.Dense(3, dtype="mixed_float16")(x)
    policies = keras.dtype_policies.DTypePolicyMap(default_policy="float32")
    model = keras.Model(x, keras.layers.Dense(2, dtype=policies)(y))
    _, (wide,) = in_both(model, rng.normal(size=(2, 4)).astype(np.float32))
    assert wide.dtype == np.float64


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(3, 7), (40, 29), (12, 12)])
def test_resizing_is_in_float64(size, method, rng):
    x = keras.Input((12, 9, 3), name="x")
    model = keras.Model(x, keras.layers.Resizing(*size, interpolation=method)(x))
    batch = rng.normal(size=(2, 12, 9, 3)).astype(np.float32)
    resize = tf.image.resize
    (own,), (wide,) = in_both(model, batch)
    assert tf.image.resize is resize
    assert wide.dtype == np.float64
    # TensorFlow has places in float32, and bicubic weights from a table of 1024.
    np.testing.assert_allclose(own, wide, atol=2e-5 if method == "bilinear" else 2e-2)
    # Both are linear in the rows and the columns where all pixels that they read are inside.
    rows, columns = ((np.arange(n) + 0.5) * m / n - 0.5 for n, m in zip(size, (12, 9), strict=True))
    plane = rows[:, None] + 100 * columns
    inside = ((rows >= 1) & (rows <= 10))[:, None] & (columns >= 1) & (columns <= 7)
    ramp = np.arange(12)[:, None] + 100.0 * np.arange(9)
    _, (wide,) = in_both(model, np.broadcast_to(ramp[..., None], batch.shape).astype(np.float32))
    np.testing.assert_allclose(wide[1, ..., 2][inside], plane[inside], rtol=1e-13)


def test_resizing_of_a_constant_stays_as_it_is(rng):
    class Constant(keras.layers.Layer):
        def call(self, x):
            return x + tf.cast(tf.image.resize([[[1.0], [3.0]]], (1, 4)), x.dtype)

    x = keras.Input((1, 4, 1))
    model = keras.Model(x, Constant()(x))
    _, (wide,) = in_both(model, np.zeros((1, 1, 4, 1), np.float32))
    np.testing.assert_array_equal(wide.ravel(), [1, 1.5, 2.5, 3])


@pytest.mark.parametrize("mode", ["int8", "int4"])
def test_quantised_layers_stay_quantised(mode, rng):
    x = keras.Input((16,), name="x")
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.Dense(4)(x)))
    for layer in model.layers[1:]:
        layer.quantize(mode)
    (own,), (wide,) = in_both(model, rng.normal(size=(2, 16)).astype(np.float32))
    assert wide.dtype == np.float64
    np.testing.assert_allclose(own, wide, rtol=1e-5)


def test_product_of_two_variables_is_in_float64(rng):
    x = keras.Input((6,), name="x")
    model = keras.Model(x, keras.layers.Dense(4, name="dense")(x))
    layer = model.get_layer("dense")
    layer.enable_lora(2)
    down, up = rng.normal(size=(6, 2)), rng.normal(size=(2, 4))
    layer.lora_kernel_a.assign(down)
    layer.lora_kernel_b.assign(up)
    batch = rng.normal(size=(3, 6)).astype(np.float32)
    _, (wide,) = in_both(model, batch)
    kernels = (layer._kernel, layer.lora_kernel_a, layer.lora_kernel_b)
    whole, down, up = (kernel.numpy().astype(np.float64) for kernel in kernels)
    np.testing.assert_allclose(wide, batch @ (whole + down @ up), rtol=1e-12)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupt_leaves_nothing_behind(error, rng):
    class Interrupted(keras.layers.Layer):
        armed = False

        def call(self, x):
            if self.armed:
                raise error
            return x

    x = keras.Input((4,), name="x")
    layer = Interrupted()
    model = keras.Model(x, layer(keras.layers.Dense(3)(x)))
    layer.armed = True
    before = state(model)
    run, _ = in_keras(model, signature_of(model), Float64Weights(model))
    with pytest.raises(error):
        run([rng.normal(size=(2, 4)).astype(np.float32)])
    assert state(model) == before


def test_tensor_of_the_model_is_declared_float64_inside_alone():
    x = keras.Input((4,), name="x")
    model = keras.Model(x, keras.layers.Dense(3)(x))
    with computing_in_float64(model):
        assert model.layers[1].compute_dtype == "float64"
        assert model.inputs[0].dtype == "float64"
    assert model.layers[1].compute_dtype == "float32"
    assert model.inputs[0].dtype == "float32"
