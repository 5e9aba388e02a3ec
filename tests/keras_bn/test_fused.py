import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.fused import fused_inference, fused_training, why_not_fused
from keras_bn.native import library
from tests.keras_bn.tensorflow_graphs import operators_run, require_onednn
from tests.oracles import gradients, moments, normalise
from tests.tolerances import assert_close

pytestmark = pytest.mark.onednn


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_kernel_takes_three_dtypes(dtype, training):
    assert why_not_fused(dtype, training) is None


@pytest.mark.parametrize("dtype", ["float64", "int32"])
def test_kernel_refuses_other_dtypes_with_a_reason(dtype):
    assert dtype in why_not_fused(dtype, training=False)


def test_kernel_refuses_to_train_under_xla():
    found = []

    @tf.function(jit_compile=True)
    def compiled(x):
        found.extend([why_not_fused("float32", True), why_not_fused("float32", False)])
        return x

    compiled(tf.zeros(1))
    assert "XLA" in found[0]
    assert found[1] is None


VIEWS = [
    pytest.param((4, 5, 6, 3), -1, id="NHWC"),
    pytest.param((4, 3, 5, 6), 1, id="NCHW"),
    pytest.param((50, 3), 1, id="rank 2"),
    pytest.param((3, 50), 0, id="channels first of all"),
    pytest.param((8, 9, 3), -1, id="rank 3"),
    pytest.param((8, 3, 9), 1, id="rank 3, channels first"),
    pytest.param((5, 4, 3, 6), 2, id="rank 4, channels third"),
    pytest.param((2, 3, 4, 5, 3), -1, id="rank 5"),
    pytest.param((2, 3, 4, 5, 3), 1, id="rank 5, channels first"),
    pytest.param((2, 2, 3, 3, 2, 3), -3, id="rank 6, channels inside"),
]


@pytest.mark.parametrize(("shape", "axis"), VIEWS)
@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("static", [True, False], ids=["static shape", "dynamic shape"])
def test_training_is_exact_for_every_shape_and_mean(rng, shape, axis, mean, static):
    x = (mean + rng.normal(size=shape)).astype(np.float32)
    expected_mean, expected_variance, m = moments(x, axis)
    known = (
        shape if static else [n if i == axis % len(shape) else None for i, n in enumerate(shape)]
    )

    @tf.function(input_signature=[tf.TensorSpec(known, tf.float32)])
    def train(x):
        return fused_training(x, tf.fill([3], 2.0), tf.fill([3], 0.5), 1e-3, axis)

    y, batch_mean, variance = train(x)
    expected = normalise(x, expected_mean, expected_variance, 2.0, 0.5, 1e-3, axis)
    assert_close(y, expected, 5e-5)
    assert_close(batch_mean, expected_mean)
    assert_close(variance, expected_variance * m / (m - 1), 5e-5)


def test_large_mean_of_many_values_costs_no_digits(rng):
    x = (1e5 + rng.normal(size=(32, 28, 28, 4))).astype(np.float32)
    mean, variance, _ = moments(x)
    y, *_ = fused_training(x, tf.ones(4), tf.zeros(4), 1e-3)
    assert_close(y, normalise(x, mean, variance, 1.0, 0.0, 1e-3), 5e-5)


@pytest.mark.parametrize("mean", [0.0, 1e4])
@pytest.mark.parametrize(("shape", "axis"), VIEWS)
def test_gradients_are_those_of_the_definition(rng, shape, axis, mean):
    x = tf.constant(mean + rng.normal(size=shape), tf.float32)
    dy = rng.normal(size=shape).astype(np.float32)
    gamma = tf.constant([0.5, -1.0, 2.0])
    with tf.GradientTape() as tape:
        tape.watch([x, gamma])
        loss = tf.reduce_sum(fused_training(x, gamma, tf.zeros(3), 1e-3, axis)[0] * dy)
    actual = tape.gradient(loss, [x, gamma])
    dx, dgamma, _ = gradients(np.moveaxis(x, axis, -1), np.moveaxis(dy, axis, -1), gamma, 1e-3)
    assert_close(actual[0], np.moveaxis(dx, -1, axis), 5e-5)
    assert_close(actual[1], dgamma, 5e-5)


@pytest.mark.parametrize("known", [(8, 4, 4, 3), (None, None, None, 3)])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tensorflow_fuses_a_relu_behind_the_layer_in_training(known, dtype, monkeypatch):
    require_onednn()
    monkeypatch.setattr(library, "load", lambda: (None, "this test does without"))
    layer = BatchNormalization(dtype=dtype if dtype == "float32" else f"mixed_{dtype}")
    layer.build((None, None, None, 3))

    @tf.function(input_signature=[tf.TensorSpec(known, dtype)])
    def block(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.nn.relu(layer(x, training=True))
        return tape.gradient(y, x)

    operators = operators_run(block, tf.ones((8, 4, 4, 3), dtype))
    assert "Relu" not in operators
    assert [op for op in operators if op.endswith("FusedBatchNormEx")] != []


def test_training_returns_the_unbiased_variance(rng):
    x = rng.normal(3.0, 2.0, (2, 3, 3, 4)).astype(np.float32)
    gamma, beta = np.full(4, 2.0, np.float32), np.full(4, 0.5, np.float32)
    y, mean, variance = fused_training(x, gamma, beta, 1e-3)
    expected_mean, expected_variance, m = moments(x)
    assert_close(y, normalise(x, expected_mean, expected_variance, gamma, beta, 1e-3))
    assert_close(mean, expected_mean)
    assert_close(variance, expected_variance * m / (m - 1))


def test_inference_uses_what_it_is_given(rng):
    x = rng.normal(3.0, 2.0, (2, 3, 3, 4)).astype(np.float32)
    parameters = rng.uniform(0.5, 2.0, (4, 4)).astype(np.float32)
    gamma, beta, mean, variance = parameters
    y = fused_inference(x, gamma, beta, mean, variance, 1e-3)
    assert_close(y, normalise(x, mean, variance, gamma, beta, 1e-3))
