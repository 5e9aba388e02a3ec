"""Training inside functions that XLA compiles, against NumPy float64."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.sums import blockwise_sums
from tests.oracles import gradients, moments, normalise
from tests.tolerances import FLOAT64, assert_close

SHAPES = [(6, 5, 4, 3), (6, 1, 1, 3), (70, 3), (6, 130, 3), (2, 20_000, 3), (1, 1, 1, 3), (1, 1)]


def compiled(layer, x, dy, **options):
    """Return y and the gradients to x, gamma and beta, from one function of XLA's."""

    @tf.function(jit_compile=True, autograph=False)
    def step(x, dy):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x, training=True, **options)
        sources = [x, layer.gamma.value, layer.beta.value]
        return y, *tape.gradient(y, sources, output_gradients=dy)

    layer.build(x.shape)
    return step(tf.constant(x), tf.constant(dy))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("jit", [False, True], ids=["plain", "XLA"])
def test_sums_of_any_shape(rng, shape, jit):
    x = rng.normal(1.0, 2.0, shape).astype(np.float32)
    axes = list(range(len(shape) - 1))
    sums = tf.function(lambda x: blockwise_sums([x, x * x], axes), jit_compile=jit)(tf.constant(x))
    wide = np.float64(x)
    for found, values in zip(sums, (wide, wide**2), strict=True):
        assert_close(found, values.sum(tuple(axes), keepdims=True), 1e-6)


@pytest.mark.parametrize("mean", [0.0, 1e5])
@pytest.mark.parametrize("shape", SHAPES[:5])
def test_output_and_gradients(rng, shape, mean):
    x = (mean + rng.normal(size=shape)).astype(np.float32)
    dy = rng.normal(size=shape).astype(np.float32)
    layer = BatchNormalization(momentum=0.0)
    y, *found = compiled(layer, x, dy)
    expected_mean, variance, m = moments(x)
    assert_close(y, normalise(x, expected_mean, variance, 1.0, 0.0, layer.epsilon), 5e-5)
    for actual, expected in zip(found, gradients(x, dy, 1.0, layer.epsilon), strict=True):
        assert_close(actual, expected, 5e-5)
    assert_close(layer.moving_variance, variance * m / (m - 1), 5e-5)


@pytest.mark.parametrize("shape", [(16, 128, 128, 2), (500_000, 2)])
@pytest.mark.parametrize("mean", [1e3, 1e5])
def test_large_mean_of_many_values_is_exact(rng, shape, mean):
    x = (mean + rng.normal(size=shape)).astype(np.float32)
    layer = BatchNormalization(momentum=0.0)
    y, *_ = compiled(layer, x, np.ones_like(x))
    expected_mean, variance, m = moments(x)
    assert_close(y, normalise(x, expected_mean, variance, 1.0, 0.0, layer.epsilon), 1e-5)
    assert_close(layer.moving_variance, variance * m / (m - 1), 1e-5)


def test_unknown_sizes(rng):
    layer = BatchNormalization(momentum=0.0)
    layer.build((None, None, None, 3))
    signature = [tf.TensorSpec((None, None, None, 3))]
    step = tf.function(lambda x: layer(x, training=True), signature, jit_compile=True)
    for shape in [(6, 5, 4, 3), (2, 9, 1, 3), (6, 1, 1, 3)]:
        x = rng.normal(2.0, 3.0, shape).astype(np.float32)
        mean, variance, _ = moments(x)
        assert_close(step(x), normalise(x, mean, variance, 1.0, 0.0, layer.epsilon))


@pytest.mark.parametrize("axis", [1, -1])
def test_mask_and_channel_axis(rng, axis):
    x, dy = (rng.normal(2.0, 3.0, (6, 4, 5, 5)).astype(np.float32) for _ in range(2))
    mask = rng.random((6, 4, 5)) < 0.7
    layer = BatchNormalization(axis=axis, momentum=0.0, bessel_correction=False)
    y, *_ = compiled(layer, x, dy, mask=mask)
    mean, variance, _ = moments(x, axis, mask)
    assert_close(y, normalise(x, mean, variance, 1.0, 0.0, layer.epsilon, axis))
    assert_close(layer.moving_mean, mean)
    assert_close(layer.moving_variance, variance)


@pytest.mark.parametrize("batch", ["mask", "weights", "ghosts", "renorm", "synchronized", "plain"])
def test_first_and_second_order_are_those_without_xla(rng, batch):
    """In float64, where sums differ in order alone; second order through the gradient's square."""
    if batch == "renorm" and not hasattr(keras.layers.BatchNormalization(), "renorm"):
        pytest.skip("Keras before 3.14")
    x, dy = (tf.constant(rng.normal(2.0, 3.0, (6, 4, 5, 2))) for _ in range(2))
    options = {
        "ghosts": {"ghost_batch_size": 3},
        "renorm": {"renorm": True, "renorm_momentum": 1.0},
        "synchronized": {"synchronized": True},
    }.get(batch, {})
    given = {
        "mask": {"mask": tf.constant(rng.random((6, 4, 5)) < 0.7)},
        "weights": {"sample_weight": tf.constant(rng.uniform(0.5, 2.0, 6))},
    }.get(batch, {})
    layer = BatchNormalization(dtype="float64", momentum=1.0, **options)
    layer.build(x.shape)

    def orders(x):
        with tf.GradientTape() as second:
            second.watch(x)
            with tf.GradientTape() as first:
                first.watch(x)
                y = layer(x, training=True, **given)
            gradient = first.gradient(y, x, output_gradients=dy)
        return y, gradient, second.gradient(gradient, x, output_gradients=dy * gradient)

    results = [tf.function(orders, jit_compile=jit)(x) for jit in (False, True)]
    for plain, jitted in zip(*results, strict=True):
        assert_close(jitted, plain, FLOAT64)


@pytest.mark.parametrize("jit", [False, True], ids=["plain", "XLA"])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("weights", [None, [1.0, 0.5, 2.0, 0.0, 1.5]], ids=["all", "weights"])
def test_gradient_against_differences(rng, jit, order, weights):
    x, dy = rng.normal(size=(5, 2)), tf.constant(rng.normal(size=(5, 2)))
    layer = BatchNormalization(dtype="float64", fused=False)
    layer.build(x.shape)

    @tf.function(jit_compile=jit)
    def value_and_gradient(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True, sample_weight=weights)
                value = tf.reduce_sum(dy * y**2)
            if order == 2:
                value = tf.reduce_sum(dy * tape.gradient(value, x))
        return value, outer.gradient(value, x)

    gradient = value_and_gradient(tf.constant(x))[1].numpy()
    for index in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[index] = 1e-6
        ahead, behind = (value_and_gradient(tf.constant(x + s))[0] for s in (step, -step))
        assert abs(float(ahead - behind) / 2e-6 - gradient[index]) < 1e-5


def test_nan_leaves_the_running_statistics_alone(rng):
    x = rng.normal(size=(6, 4, 5, 2)).astype(np.float32)
    x[0, 0, 0, 0] = np.nan
    layer = BatchNormalization(momentum=0.0)
    compiled(layer, x, x)
    assert layer.skipped_batches == 1
    np.testing.assert_array_equal(layer.moving_mean, [0.0, 0.0])


def test_a_tape_around_the_function(rng):
    x, dy = (rng.normal(size=(6, 4, 5, 2)).astype(np.float32) for _ in range(2))
    layer = BatchNormalization()
    layer.build(x.shape)
    step = tf.function(lambda x: layer(x, training=True), jit_compile=True)
    with tf.GradientTape() as tape:
        source = tf.constant(x)
        tape.watch(source)
        y = step(source)
    found = tape.gradient(y, source, output_gradients=tf.constant(dy))
    assert_close(found, gradients(x, dy, 1.0, layer.epsilon)[0])
