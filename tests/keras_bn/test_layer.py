import inspect
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.arguments import KERAS_HAS_RENORM
from tests.oracles import gradients, moments, normalise
from tests.tolerances import HALF, assert_close

pytestmark = pytest.mark.onednn

pytestmark = pytest.mark.usefixtures("each_kernel")

SHAPES = [
    pytest.param((4, 5, 6, 3), -1, id="rank 4, fused"),
    pytest.param((4, 5, 6, 3), 3, id="rank 4, axis from the front"),
    pytest.param((4, 3, 5, 6), 1, id="channels first"),
    pytest.param((7, 3), -1, id="rank 2"),
    pytest.param((4, 5, 3), -1, id="rank 3"),
    pytest.param((2, 3, 4, 2, 3), -1, id="rank 5"),
    pytest.param((5, 1), -1, id="one channel"),
]


def built(shape, axis=-1, **arguments):
    layer = BatchNormalization(axis=axis, **arguments)
    layer.build((None, *shape[1:]))
    rng = np.random.default_rng(1)
    for weight in layer.weights:
        weight.assign(rng.uniform(0.5, 2.0, weight.shape))
    return layer


def fused_operators(layer, shape, training, dtype="float32"):
    function = tf.function(lambda x: layer(x, training=training))
    graph = function.get_concrete_function(tf.TensorSpec(shape, dtype)).graph
    kernels = ("FusedBatchNormV3", "KerasBnNormalise")
    return [op.name for op in graph.get_operations() if op.type in kernels]


@pytest.mark.smoke
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_training_output_is_normalised_by_the_batch(rng, shape, axis):
    layer = built(shape, axis)
    gamma, beta = layer.gamma.numpy(), layer.beta.numpy()
    x = rng.normal(3.0, 2.0, shape).astype(np.float32)
    mean, variance, _ = moments(x, axis)
    expected = normalise(x, mean, variance, gamma, beta, layer.epsilon, axis)
    assert_close(layer(x, training=True), expected)


@pytest.mark.smoke
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
@pytest.mark.parametrize("bessel", [True, False])
def test_running_statistics_move_towards_the_batch(rng, shape, axis, bessel):
    layer = built(shape, axis, momentum=0.9, bessel_correction=bessel)
    old_mean, old_variance = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    x = rng.normal(3.0, 2.0, shape).astype(np.float32)
    layer(x, training=True)
    mean, variance, m = moments(x, axis)
    if bessel:
        variance = variance * m / (m - 1)
    assert_close(layer.moving_mean, 0.9 * old_mean + 0.1 * mean)
    assert_close(layer.moving_variance, 0.9 * old_variance + 0.1 * variance)


@pytest.mark.smoke
@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_inference_uses_the_running_statistics(rng, shape, axis):
    layer = built(shape, axis)
    x = rng.normal(3.0, 2.0, shape).astype(np.float32)
    before = [weight.numpy() for weight in layer.weights]
    gamma, beta, mean, variance = before
    expected = normalise(x, mean, variance, gamma, beta, layer.epsilon, axis)
    assert_close(layer(x, training=False), expected)
    for old, weight in zip(before, layer.weights, strict=True):
        np.testing.assert_array_equal(weight, old)


@pytest.mark.smoke
@pytest.mark.parametrize("fused", [None, False], ids=["fused", "portable"])
def test_gradients_are_those_of_the_batch_statistics(rng, fused):
    layer = built((4, 5, 6, 3), fused=fused)
    x = tf.constant(rng.normal(3.0, 2.0, (4, 5, 6, 3)), tf.float32)
    dy = rng.normal(size=x.shape).astype(np.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        loss = tf.reduce_sum(layer(x, training=True) * dy)
    actual = tape.gradient(loss, [x, layer.gamma.value, layer.beta.value])
    expected = gradients(x, dy, layer.gamma.numpy(), layer.epsilon)
    for a, e in zip(actual, expected, strict=True):
        assert_close(a, e)


@pytest.mark.smoke
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_input_keeps_float32_statistics(rng, dtype):
    layer = BatchNormalization(momentum=0.0, dtype=f"mixed_{dtype}")
    x = tf.cast(rng.normal(1.0, 2.0, (8, 4, 4, 3)), dtype)
    y = layer(x, training=True)
    assert y.dtype == dtype
    mean, variance, m = moments(tf.cast(x, "float64"))
    expected = normalise(tf.cast(x, "float64"), mean, variance, 1.0, 0.0, layer.epsilon)
    assert_close(tf.cast(y, "float64"), expected, HALF[dtype])
    assert layer.moving_mean.dtype == "float32"
    assert_close(layer.moving_variance, variance * m / (m - 1))


@pytest.mark.smoke
def test_float64_is_computed_in_float64(rng):
    layer = BatchNormalization(dtype="float64", momentum=0.0)
    x = rng.normal(3.0, 2.0, (4, 5, 6, 3))
    mean, variance, _ = moments(x)
    y = layer(x, training=True)
    assert y.dtype == "float64"
    assert_close(y, normalise(x, mean, variance, 1.0, 0.0, layer.epsilon), 1e-12)


@pytest.mark.smoke
def test_mask_leaves_positions_out_of_the_moments(rng):
    layer = built((6, 5, 3), momentum=0.0)
    x = rng.normal(3.0, 2.0, (6, 5, 3)).astype(np.float32)
    mask = rng.random((6, 5)) < 0.6
    layer(x, training=True, mask=mask)
    mean, variance, m = moments(x, mask=mask)
    assert_close(layer.moving_mean, mean)
    assert_close(layer.moving_variance, variance * m / (m - 1))


def test_one_value_per_channel_has_no_correction():
    layer = BatchNormalization(momentum=0.0)
    layer(np.full((1, 1, 1, 2), 3.0, np.float32), training=True)
    np.testing.assert_array_equal(layer.moving_mean, [3.0, 3.0])
    np.testing.assert_array_equal(layer.moving_variance, [0.0, 0.0])


def test_frozen_layer_runs_in_inference_mode(rng):
    layer = built((4, 5, 6, 3))
    layer.trainable = False
    x = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
    np.testing.assert_array_equal(layer(x, training=True), layer(x, training=False))


@pytest.mark.smoke
def test_center_and_scale_can_be_off(rng):
    layer = BatchNormalization(center=False, scale=False)
    x = rng.normal(3.0, 2.0, (4, 5, 6, 3)).astype(np.float32)
    mean, variance, _ = moments(x)
    assert_close(layer(x, training=True), normalise(x, mean, variance, 1.0, 0.0, layer.epsilon))
    assert [weight.name for weight in layer.weights] == ["moving_mean", "moving_variance"]


@pytest.mark.parametrize("training", [True, False])
def test_rank_4_runs_one_fused_kernel(training):
    layer = built((4, 5, 6, 3))
    assert len(fused_operators(layer, (None, None, None, 3), training)) == 1


@pytest.mark.parametrize(("shape", "axis"), SHAPES)
def test_every_rank_and_axis_trains_on_the_fused_kernel(shape, axis):
    layer = built(shape, axis)
    assert len(fused_operators(layer, shape, training=True)) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param({"fused": False}, id="switched off"),
        pytest.param({"renorm": True}, id="renorm"),
        pytest.param({"synchronized": True}, id="synchronised"),
        pytest.param({"ghost_batch_size": 2}, id="ghost batches"),
    ],
)
def test_other_configurations_take_the_portable_path_without_the_native_kernel(
    arguments, each_kernel
):
    layer = built((4, 5, 6, 3), **arguments)
    native = each_kernel == "native" and layer.fused is not False
    assert len(fused_operators(layer, (4, 5, 6, 3), training=True)) == native


@pytest.mark.smoke
def test_renorm_and_synchronized_follow_stock_keras(rng):
    x = rng.normal(3.0, 2.0, (4, 5, 6, 3)).astype(np.float32)
    for argument in ("renorm", "synchronized") if KERAS_HAS_RENORM else ("synchronized",):
        ours = BatchNormalization(bessel_correction=False, **{argument: True})
        stock = keras.layers.BatchNormalization(**{argument: True})
        for layer in (ours, stock):
            layer(x, training=True)
        for a, e in zip(ours.weights, stock.weights, strict=True):
            assert_close(a, e)


@pytest.mark.smoke
def test_trains_inside_a_model(rng):
    model = keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3),
            BatchNormalization(),
            keras.layers.Flatten(),
        ]
    )
    model.compile("sgd", "mse")
    x = rng.normal(size=(32, 6, 6, 2)).astype(np.float32)
    history = model.fit(x, np.zeros((32, 64)), epochs=2, batch_size=8, verbose=0)
    assert history.history["loss"][1] < history.history["loss"][0]
    assert np.all(model.layers[1].moving_mean.numpy() != 0.0)


@pytest.mark.smoke
def test_config_round_trip():
    layer = BatchNormalization(
        axis=1, momentum=0.5, bessel_correction=False, fused=False, name="bn"
    )
    assert BatchNormalization.from_config(layer.get_config()).get_config() == layer.get_config()


@pytest.mark.smoke
def test_config_extends_that_of_keras():
    ours, stock = (
        BatchNormalization(name="a").get_config(),
        keras.layers.BatchNormalization(name="a"),
    )
    assert set(ours) - set(stock.get_config()) == {
        "activation",
        "bessel_correction",
        "fused",
        "ghost_batch_size",
        "skip_nonfinite",
    }
    assert {key: ours[key] for key in stock.get_config()} == stock.get_config()


def test_signature_begins_with_that_of_keras():
    def positional(cls):
        parameters = inspect.signature(cls.__init__).parameters.values()
        return [(p.name, p.default) for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]

    assert positional(BatchNormalization) == positional(keras.layers.BatchNormalization)


@pytest.mark.smoke
def test_saved_model_file_loads_again(rng, tmp_path):
    model = keras.Sequential([keras.Input((4, 4, 3)), BatchNormalization(bessel_correction=False)])
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    model(x, training=True)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert type(again.layers[0]) is BatchNormalization
    assert again.layers[0].bessel_correction is False
    np.testing.assert_array_equal(model(x), again(x))


@pytest.mark.smoke
def test_weights_go_to_stock_keras_and_back(rng, tmp_path):
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    stock = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.BatchNormalization(name="bn")])
    ours = keras.Sequential([keras.Input((4, 4, 3)), BatchNormalization(name="bn")])
    stock(x, training=True)
    stock.save_weights(tmp_path / "model.weights.h5")
    ours.load_weights(tmp_path / "model.weights.h5")
    assert_close(ours(x), stock(x))
    stock.set_weights(ours.get_weights())


@pytest.mark.smoke
@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"momentum": 1.7}, "Received: momentum=1.7"),
        ({"momentum": -0.1}, "Received: momentum=-0.1"),
        ({"momentum": float("nan")}, "Received: momentum=nan"),
        ({"epsilon": 0.0}, "Received: epsilon=0.0"),
        ({"epsilon": -1.0}, "Received: epsilon=-1.0"),
        ({"epsilon": float("inf")}, "Received: epsilon=inf"),
    ],
)
def test_impossible_argument_is_refused(arguments, received):
    with pytest.raises(ValueError, match=re.escape(received)):
        BatchNormalization(**arguments)


@pytest.mark.parametrize("argument", ["fused", "bessel_correction", "skip_nonfinite"])
def test_word_for_a_bool_is_refused(argument):
    with pytest.raises(TypeError, match=re.escape(f"Received: {argument}='no'")):
        BatchNormalization(**{argument: "no"})


def test_output_has_the_compute_dtype_without_autocast():
    layer = BatchNormalization(autocast=False)
    assert layer(tf.ones((2, 4, 4, 3), "float16"), training=True).dtype == "float32"
    assert layer(tf.ones((2, 4, 4, 3), "float16")).dtype == "float32"


def test_axis_out_of_range_is_refused():
    with pytest.raises(
        ValueError, match=re.escape("Received: axis=7, input_shape=(None, 4, 4, 3)")
    ):
        BatchNormalization(axis=7).build((None, 4, 4, 3))


def test_unknown_channels_are_refused():
    with pytest.raises(ValueError, match=re.escape("Received: axis=-1, input_shape=(None, None)")):
        BatchNormalization().build((None, None))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"dtype": "float64"}, "the input is float64"),
        ({"renorm": True}, "`renorm` is True"),
        ({"synchronized": True}, "`synchronized` is True"),
        ({"ghost_batch_size": 4}, "`ghost_batch_size` is 4"),
    ],
)
def test_fused_true_is_refused_where_the_kernel_cannot_be_used(arguments, reason):
    with pytest.raises(ValueError, match=re.escape(f"Received: fused=True, and {reason}")):
        BatchNormalization(fused=True, **arguments).build((None, 4, 4, 3))


def test_fused_true_is_refused_in_calls_that_cannot_use_the_kernel(rng):
    layer = built((4, 5, 6, 3), fused=True)
    x = rng.normal(size=(4, 5, 6, 3)).astype(np.float32)
    layer(x, training=True)
    with pytest.raises(ValueError, match="weights were given"):
        layer(x, training=True, mask=np.ones((4, 5, 6), bool))
    with pytest.raises(ValueError, match="compiled by XLA"):
        tf.function(layer, jit_compile=True)(x, training=True)


def test_mask_of_wrong_rank_is_refused(rng):
    layer = built((6, 5, 3))
    x = rng.normal(size=(6, 5, 3)).astype(np.float32)
    with pytest.raises(ValueError, match=re.escape("mask.shape=(6,), inputs.shape=(6, 5, 3)")):
        layer(x, training=True, mask=np.ones(6, bool))
