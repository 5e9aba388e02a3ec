"""A batch norm with an activation is a batch norm and an activation, wherever that is computed."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization, use_fused_batch_norm, use_keras_batch_norm
from keras_bn.activations import InBatchNorm, kernel_activation
from keras_bn.export import export_onnx
from tests.tolerances import HALF, assert_close

ACTIVATIONS = ["relu", "relu6", "leaky_relu", "silu", "hard_silu", "tanh", "softmax"]


def step(activation, x, dy, dtype, **options):
    """Return y and the gradients to x, gamma and beta."""
    layer = BatchNormalization(dtype=dtype, activation=activation, **options)
    layer.build(x.shape)
    layer.gamma.assign(np.linspace(0.5, 3.0, x.shape[-1]))
    layer.beta.assign(np.linspace(-1.0, 3.0, x.shape[-1]))
    point = tf.cast(x, layer.compute_dtype)
    with tf.GradientTape() as tape:
        tape.watch(point)
        y = layer(point, training=True)
    sources = [point, layer.gamma.value, layer.beta.value]
    return y, *tape.gradient(y, sources, tf.cast(dy, y.dtype))


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("options", [{}, {"ghost_batch_size": 4}], ids=["plain", "ghost"])
def test_activation_has_the_value_and_the_gradients_of_float64(
    rng, activation, options, each_kernel
):
    x, dy = rng.normal(size=(2, 8, 5, 6))
    exact = step(activation, x, dy, "float64", **options)
    for actual, expected in zip(step(activation, x, dy, "float32", **options), exact, strict=True):
        assert_close(actual, expected, 3e-5)


@pytest.mark.parametrize("activation", ["relu6", "silu"])
def test_activation_rounds_half_precision_once(rng, activation):
    x, dy = (rng.normal(size=(8, 5, 6)).astype(np.float16) for _ in range(2))
    y, *_ = step(activation, x, dy, "mixed_float16")
    exact, *_ = step(activation, x, dy, "float64")
    assert_close(tf.cast(y, "float64"), exact, HALF["float16"])


def test_leaky_relu_keeps_its_slope(rng):
    x, dy = rng.normal(size=(2, 8, 6))
    layer = keras.layers.LeakyReLU(0.07)
    for actual, expected in zip(
        step(layer, x, dy, "float32"), step(layer, x, dy, "float64"), strict=True
    ):
        assert_close(actual, expected, 3e-5)


def test_kernel_knows_five_activations_and_none():
    found = [kernel_activation(keras.activations.get(name)) for name in ACTIVATIONS]
    assert [kind and kind[0] for kind in found] == [1, 2, 3, 4, 5, None, None]
    assert kernel_activation(None) == (0, 0.0)


def test_second_order_gradient_goes_through_the_activation(rng):
    x, direction = rng.normal(size=(2, 6, 4))
    found = []
    for dtype in ("float32", "float64"):
        layer, point = BatchNormalization(dtype=dtype, activation="silu"), tf.constant(x, dtype)
        layer.build(x.shape)
        with tf.GradientTape() as outer:
            outer.watch(point)
            with tf.GradientTape() as inner:
                inner.watch(point)
                loss = tf.reduce_sum(layer(point, training=True) ** 2)
            along = tf.reduce_sum(inner.gradient(loss, point) * tf.constant(direction, dtype))
        found.append(outer.gradient(along, point))
    assert_close(*found, 1e-4)


@pytest.mark.parametrize("activation", ["relu", keras.layers.LeakyReLU(0.1)])
def test_activation_is_in_the_config_and_in_files(rng, tmp_path, activation):
    model = keras.Sequential([keras.Input((4,)), BatchNormalization(activation=activation)])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    x = rng.normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_array_equal(again(x), model(x))
    assert again.layers[0].get_config() == model.layers[0].get_config()


def network():
    image = keras.Input((6, 6, 3), name="image")
    x = image
    for i, layer in enumerate(
        [
            keras.layers.ReLU(6.0, name="relu6"),
            keras.layers.LeakyReLU(0.1, name="leaky"),
            keras.layers.Activation("silu", name="silu"),
        ]
    ):
        x = keras.layers.Conv2D(4, 3, padding="same", name=f"conv{i}")(x)
        x = layer(keras.layers.BatchNormalization(name=f"bn{i}")(x))
    twice = keras.layers.BatchNormalization(name="read_twice")(x)
    x = keras.layers.Add(name="add")([keras.layers.ReLU(name="one_of_two")(twice), twice])
    out = keras.layers.BatchNormalization(name="output")(x)
    keras.layers.ReLU(name="behind_the_output")(out)
    return keras.Model(image, out)


def test_activations_merge_and_split_again(randomised, rng, tmp_path):
    model = randomised(network())
    before, x = model.get_config(), rng.normal(size=(4, 6, 6, 3)).astype(np.float32)
    expected = model(x)
    report = use_fused_batch_norm(model, merge_activations=True)
    assert report.merged == ("relu6", "leaky", "silu")
    assert "3 activations merged" in str(report)
    assert type(model.get_layer("relu6")) is InBatchNorm
    assert_close(model(x), expected)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for merged in (model, again):
        assert_close(merged(x), expected)
        assert use_keras_batch_norm(merged).unchanged == {}
        assert_close(merged(x), expected)
        assert json.dumps(merged.get_config()) == json.dumps(before)  # tuples became lists


def test_merged_model_trains_like_the_other(randomised, rng):
    x = rng.normal(size=(8, 6, 6, 3)).astype(np.float32)
    weights = []
    plain = randomised(network())
    start = plain.get_weights()
    for merge in (False, True):
        model = network()
        model.set_weights(start)
        use_fused_batch_norm(model, merge_activations=merge)
        model.compile(keras.optimizers.SGD(0.01), "mse")
        model.fit(x, x[..., :1].repeat(4, -1), epochs=2, verbose=0, shuffle=False)
        weights.append(model.get_weights())
    for a, b in zip(*weights, strict=True):
        assert_close(a, b, 1e-4)


def test_layer_with_an_activation_of_its_own_has_no_counterpart_in_keras():
    model = keras.Sequential([keras.Input((4,)), BatchNormalization(activation="relu", name="a")])
    assert use_keras_batch_norm(model).unchanged == {
        "sequential/a": "Keras's layer has no `activation`"
    }


def test_merged_model_exports_and_folds_like_the_other(randomised, tmp_path):
    model = randomised(network())
    plain = export_onnx(model, tmp_path / "plain.onnx")
    use_fused_batch_norm(model, merge_activations=True)
    merged = export_onnx(model, tmp_path / "merged.onnx")
    assert merged.parity.passed
    assert len(merged.fold.folds) == len(plain.fold.folds)
    assert len(merged.fold.refusals) == len(plain.fold.refusals)
