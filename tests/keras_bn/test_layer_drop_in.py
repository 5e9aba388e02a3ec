"""The layer where people already use Keras's: policies, compilation modes, files, gradients."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from tests.oracles import moments, normalise
from tests.tolerances import HALF, assert_close

pytestmark = pytest.mark.onednn

pytestmark = pytest.mark.usefixtures("each_kernel")


def network(**arguments):
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(4, 3, use_bias=False, name="conv"),
            BatchNormalization(name="bn", **arguments),
            keras.layers.ReLU(),
            keras.layers.Flatten(),
            keras.layers.Dense(1, name="dense"),
        ]
    )


def fitted(rng, **compile_arguments):
    keras.utils.set_random_seed(0)
    model = network()
    model.compile(keras.optimizers.SGD(0.05), "mse", **compile_arguments)
    x = rng.normal(size=(32, 6, 6, 2)).astype(np.float32)
    model.fit(x, x.sum((1, 2, 3)), epochs=2, batch_size=8, verbose=0, shuffle=False)
    return model


@pytest.mark.smoke
@pytest.mark.parametrize("mode", [{"jit_compile": True}, {"run_eagerly": True}])
def test_every_compilation_mode_trains_alike(mode):
    plain = fitted(np.random.default_rng(0), jit_compile=False)
    other = fitted(np.random.default_rng(0), **mode)
    for a, b in zip(plain.get_weights(), other.get_weights(), strict=True):
        assert_close(a, b, 1e-4)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
@pytest.mark.parametrize("shape", [(8, 4, 4, 3), (8, 3), (8, 5, 3)])
def test_half_precision_policies(rng, policy, shape):
    dtype = policy.removeprefix("mixed_")
    x = tf.cast(rng.normal(1.0, 2.0, shape), dtype)
    layer = BatchNormalization(dtype=policy)
    layer.build(shape)
    for training in (True, False):
        y = layer(x, training=training)
        assert y.dtype == dtype
        wide = tf.cast(x, "float64").numpy()
        mean, variance, _ = moments(wide) if training else (0.0, 1.0, 0)
        if not training:
            mean, variance = (
                tf.cast(v.value, "float64").numpy() for v in layer.non_trainable_variables
            )
        expected = normalise(wide, mean, variance, 1.0, 0.0, layer.epsilon)
        assert_close(tf.cast(y, "float64"), expected, HALF[dtype])


@pytest.mark.parametrize("fused", [None, False], ids=["fused", "portable"])
@pytest.mark.parametrize("shape", [(4, 3, 2, 2), (8, 2)])
def test_second_order_gradients(rng, fused, shape):
    """Against differences of the first-order gradient."""
    layer = BatchNormalization(fused=fused)
    layer.build(shape)
    x = rng.normal(size=shape).astype(np.float32)
    direction, upstream = rng.normal(size=(2, *shape)).astype(np.float32)

    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.sin(layer(x, training=True)) * upstream)
        return tape.gradient(loss, x)

    point = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(point)
        along = tf.reduce_sum(gradient(point) * direction)
    second = tape.gradient(along, point)
    step = 1e-2
    ahead, behind = (gradient(tf.constant(x + s * direction)) for s in (step, -step))
    assert_close(second, (ahead - behind) / (2 * step), 5e-3)


def test_weight_files_load_into_keras_and_back(rng, tmp_path):
    ours = fitted(rng)
    stock = keras.models.clone_model(
        ours,
        clone_function=lambda layer: (
            keras.layers.BatchNormalization(name="bn")
            if layer.name == "bn"
            else type(layer).from_config(layer.get_config())
        ),
    )
    x = rng.normal(size=(4, 6, 6, 2)).astype(np.float32)
    ours.save_weights(tmp_path / "ours.weights.h5")
    stock.load_weights(tmp_path / "ours.weights.h5")
    assert_close(stock(x), ours(x))
    stock.save_weights(tmp_path / "stock.weights.h5")
    again = network()
    again.load_weights(tmp_path / "stock.weights.h5")
    assert_close(again(x), ours(x))


def test_saved_model_serves_inference(rng, tmp_path):
    model = fitted(rng)
    model.export(tmp_path / "saved", verbose=False)
    x = rng.normal(size=(4, 6, 6, 2)).astype(np.float32)
    loaded = tf.saved_model.load(tmp_path / "saved")
    assert_close(loaded.serve(x), model(x))


@pytest.mark.smoke
def test_constraints_and_regularizers_are_applied(rng):
    model = network(
        gamma_constraint=keras.constraints.MaxNorm(0.1), beta_regularizer=keras.regularizers.L2(1.0)
    )
    model.get_layer("bn").beta.assign(np.full(4, 2.0))
    assert_close(sum(model.losses), 16.0)
    model.compile("sgd", "mse")
    x = rng.normal(size=(8, 6, 6, 2)).astype(np.float32)
    model.fit(x, np.zeros(8), verbose=0)
    assert np.linalg.norm(model.get_layer("bn").gamma) <= 0.1 + 1e-6


@pytest.mark.smoke
def test_mask_of_the_previous_layer_arrives(rng):
    x = rng.normal(3.0, 1.0, (4, 5, 2)).astype(np.float32)
    x[:, 3:] = 0.0
    layer = BatchNormalization(momentum=0.0)
    model = keras.Sequential([keras.Input((5, 2)), keras.layers.Masking(), layer])
    model(x, training=True)
    mean, variance, m = moments(x[:, :3])
    assert_close(layer.moving_mean, mean)
    assert_close(layer.moving_variance, variance * m / (m - 1))


def test_mask_of_the_previous_layer_arrives_beside_sample_weights(rng):
    x = rng.normal(3.0, 1.0, (4, 5, 2)).astype(np.float32)
    x[:, 3:] = 0.0
    values, weights = keras.Input((5, 2), name="x"), keras.Input((), name="w")
    layer = BatchNormalization(momentum=0.0)
    normed = layer(keras.layers.Masking()(values), sample_weight=weights)
    model = keras.Model([values, weights], normed)
    model([x, np.array([1, 1, 0, 0], np.float32)], training=True)
    assert_close(layer.moving_mean, moments(x[:2, :3])[0])


class Block(keras.layers.Layer):
    """A layer that owns others and builds them when it is first called, as most people write it."""

    def __init__(self):
        super().__init__()
        self.dense, self.norm = keras.layers.Dense(4), BatchNormalization()

    def call(self, x, training=False):
        return self.norm(self.dense(x), training=training)


def test_layer_builds_inside_a_composite_layer(rng):
    x = rng.normal(size=(8, 4)).astype(np.float32)
    functional = keras.Sequential([keras.Input((4,)), Block()])
    unbuilt = keras.Sequential([Block(), keras.layers.Dense(1)])
    assert Block().compute_output_spec(keras.KerasTensor((None, 4))).shape == (None, 4)
    for model, y in ((functional, x), (unbuilt, x[:, :1])):
        model.compile("sgd", "mse")
        model.fit(x, y, verbose=0)
        assert model.layers[0].norm.skipped_batches == 0
        bad = x.copy()
        bad[0] = np.nan
        model(bad, training=True)
        assert model.layers[0].norm.skipped_batches == 1


@pytest.mark.smoke
def test_stateless_call_returns_the_new_statistics(rng):
    layer = BatchNormalization(momentum=0.0)
    layer.build((None, 4, 4, 3))
    x = rng.normal(3.0, 2.0, (8, 4, 4, 3)).astype(np.float32)
    _, statistics = layer.stateless_call(
        layer.trainable_variables, layer.non_trainable_variables, x, training=True
    )
    assert_close(statistics[0], moments(x)[0])
    np.testing.assert_array_equal(layer.moving_mean, np.zeros(3))
