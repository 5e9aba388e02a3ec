"""What enters the running statistics: weights, ghost batches, cumulative averages, guards."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from tests.oracles import moments, normalise
from tests.tolerances import assert_close

pytestmark = pytest.mark.onednn

pytestmark = pytest.mark.usefixtures("each_kernel")


def statistics(layer):
    return [variable.numpy() for variable in layer.non_trainable_variables]


def trained(layer, *batches, **arguments):
    for batch in batches:
        layer(batch, training=True, **arguments)
    return layer


@pytest.fixture
def batch(rng):
    return rng.normal(3.0, 2.0, (8, 5, 6, 3)).astype(np.float32)


@pytest.mark.smoke
def test_cumulative_average_counts_all_batches_equally(rng):
    batches = [rng.normal(i, 1.0 + i, (6, 4)).astype(np.float32) for i in range(5)]
    layer = trained(BatchNormalization(momentum=None), *batches)
    parts = [moments(batch) for batch in batches]
    assert_close(layer.moving_mean, np.mean([mean for mean, _, _ in parts], 0))
    assert_close(layer.moving_variance, np.mean([v * m / (m - 1) for _, v, m in parts], 0))
    assert float(layer.batches_seen) == 5.0
    assert layer.weights[-1] is layer.batches_seen


def test_cumulative_average_counts_on_in_half_precision(rng):
    layer = BatchNormalization(momentum=None, dtype="bfloat16")
    layer.build((None, 3))
    layer.batches_seen.assign(256.0)
    trained(layer, rng.normal(size=(4, 3)).astype(np.float32))
    assert float(layer.batches_seen) == 257.0


@pytest.mark.smoke
def test_cumulative_layer_round_trips(batch, tmp_path):
    model = keras.Sequential([keras.Input((5, 6, 3)), BatchNormalization(momentum=None)])
    model(batch, training=True)
    model.save(tmp_path / "model.keras")
    layer = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert layer.momentum is None
    assert float(layer.batches_seen) == 1.0


@pytest.mark.smoke
@pytest.mark.parametrize("shape", [(8,), (8, 5), (8, 5, 6)])
def test_sample_weights_equal_repetition_in_the_mean(rng, batch, shape):
    counts = rng.integers(0, 3, shape)
    layer = trained(BatchNormalization(momentum=0.0), batch, sample_weight=counts)
    repeats = np.broadcast_to(counts.reshape(shape + (1,) * (3 - len(shape))), (8, 5, 6)).ravel()
    rows = np.repeat(batch.reshape(-1, 3), repeats, axis=0)
    mean, variance, total = moments(rows)
    n = total**2 / (repeats**2).sum()
    assert_close(layer.moving_mean, mean)
    assert_close(layer.moving_variance, variance * n / (n - 1))


def test_sample_weights_normalise_the_output(batch):
    w = np.array([1, 1, 1, 1, 0, 0, 0, 0], np.float32)
    layer = BatchNormalization()
    mean, variance, _ = moments(batch[:4])
    expected = normalise(batch, mean, variance, 1.0, 0.0, layer.epsilon)
    assert_close(layer(batch, training=True, sample_weight=w), expected)


@pytest.mark.smoke
@pytest.mark.parametrize("axis", [-1, 1])
def test_ghost_batches_are_normalised_each_on_its_own(batch, axis):
    layer = BatchNormalization(axis=axis, ghost_batch_size=2, momentum=0.0)
    y = layer(batch, training=True)
    groups = [batch[i : i + 2] for i in range(0, 8, 2)]
    parts = [moments(group, axis) for group in groups]
    expected = [
        normalise(group, mean, variance, 1.0, 0.0, layer.epsilon, axis)
        for group, (mean, variance, _) in zip(groups, parts, strict=True)
    ]
    assert_close(y, np.concatenate(expected))
    assert_close(layer.moving_mean, np.mean([mean for mean, _, _ in parts], 0))
    assert_close(layer.moving_variance, np.mean([v * m / (m - 1) for _, v, m in parts], 0))


@pytest.mark.smoke
def test_ghost_batches_mask_and_weights_combine(rng):
    x = rng.normal(3.0, 2.0, (6, 5, 3)).astype(np.float32)
    mask, w = rng.random((6, 5)) < 0.7, rng.uniform(0.5, 2.0, 6).astype(np.float32)
    layer = BatchNormalization(ghost_batch_size=3, momentum=None, bessel_correction=False)
    layer(x, training=True, mask=mask, sample_weight=w)
    means = [
        np.average(x[i : i + 3].reshape(-1, 3), 0, (mask * w[:, None])[i : i + 3].ravel())
        for i in (0, 3)
    ]
    assert_close(layer.moving_mean, np.mean(means, 0))


def test_ghost_batch_of_the_whole_batch_is_an_ordinary_batch(batch):
    whole, plain = BatchNormalization(ghost_batch_size=8), BatchNormalization()
    assert_close(whole(batch, training=True), plain(batch, training=True))
    for a, b in zip(statistics(whole), statistics(plain), strict=True):
        assert_close(a, b)


def with_value(batch, value):
    batch = batch.copy()
    batch[3, 2, 1, 0] = value
    return batch


BAD = [
    pytest.param(lambda b: with_value(b, np.nan), {}, id="NaN"),
    pytest.param(lambda b: with_value(b, np.inf), {}, id="Inf"),
    pytest.param(lambda b: with_value(b, -np.inf), {}, id="-Inf"),
    pytest.param(lambda b: np.full_like(b, 3e38), {}, id="overflow"),
    pytest.param(lambda b: b[:0], {}, id="empty batch"),
    pytest.param(lambda b: b[:, :0], {}, id="no positions"),
    pytest.param(lambda b: b, {"mask": np.zeros((8, 5, 6), bool)}, id="all masked"),
    pytest.param(lambda b: b, {"sample_weight": np.zeros(8)}, id="zero total weight"),
    pytest.param(lambda b: b, {"sample_weight": np.full(8, np.nan)}, id="NaN weight"),
]


@pytest.mark.parametrize(("spoil", "arguments"), BAD)
@pytest.mark.parametrize(
    "options",
    [
        pytest.param({}, id="default"),
        pytest.param({"fused": False}, id="portable"),
        pytest.param({"momentum": None}, id="cumulative"),
        pytest.param({"renorm": True}, id="renorm"),
        pytest.param({"ghost_batch_size": 2}, id="ghost"),
        pytest.param({"synchronized": True}, id="synchronised"),
        pytest.param({"dtype": "mixed_float16"}, id="float16"),
    ],
)
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "function"])
def test_unusable_batch_leaves_the_statistics_untouched(batch, spoil, arguments, options, compiled):
    layer = trained(BatchNormalization(**options), batch)
    before = statistics(layer)
    bad = spoil(batch)
    call = tf.function(layer) if compiled else layer
    y = call(bad, training=True, **arguments)
    assert y.shape == bad.shape
    for old, new in zip(before, statistics(layer), strict=True):
        np.testing.assert_array_equal(old, new)
    assert layer.skipped_batches == 1
    trained(layer, batch + 1)
    assert layer.skipped_batches == 1
    assert not np.array_equal(before[0], layer.moving_mean)


@pytest.mark.smoke
def test_skipping_can_be_switched_off(batch):
    layer = trained(BatchNormalization(skip_nonfinite=False), with_value(batch, np.nan))
    assert np.isnan(layer.moving_mean[0])
    assert layer.skipped_batches == 0


@pytest.mark.smoke
def test_skip_counter_is_no_weight(batch):
    layer = trained(BatchNormalization(), batch)
    names = [weight.name for weight in layer.weights]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_callback_can_read_the_skips(rng):
    model = keras.Sequential([keras.Input((3,)), BatchNormalization()])
    model.compile("sgd", "mse")
    x = rng.normal(size=(8, 3)).astype(np.float32)
    x[5] = np.nan
    seen = []
    callback = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda *_: seen.append(model.layers[0].skipped_batches)
    )
    model.fit(x, x, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=[callback])
    assert seen == [1, 2]


@pytest.mark.parametrize("fused", [None, False])
def test_constant_channels_give_beta(fused):
    layer = BatchNormalization(
        fused=fused, momentum=0.0, beta_initializer=keras.initializers.Constant(2.0)
    )
    y = layer(np.full((4, 5, 6, 3), 7.3, np.float32), training=True)
    assert_close(y, np.full((4, 5, 6, 3), 2.0))
    assert_close(layer.moving_mean, np.full(3, 7.3))
    np.testing.assert_array_less(layer.moving_variance, 1e-9)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        (shape, axis)
        for shape in [(0, 2, 3, 4), (2, 0, 3, 4), (2, 3, 0, 4), (2, 3, 4, 0)]
        for axis in (1, 2, 3)
        if shape[axis]  # there are channels
    ],
)
@pytest.mark.parametrize("fused", [None, False])
def test_empty_batch_of_any_shape_is_skipped(shape, axis, fused):
    layer = BatchNormalization(axis=axis, fused=fused)
    assert layer(np.zeros(shape, np.float32), training=True).shape == shape
    assert layer.skipped_batches == 1


@pytest.mark.parametrize("mean", [1e3, 1e5])
@pytest.mark.parametrize("options", [{}, {"fused": False}, {"synchronized": True}])
@pytest.mark.parametrize("jit", [False, True], ids=["plain", "XLA"])
def test_large_mean_with_unit_spread_is_exact(rng, mean, options, jit):
    x = (mean + rng.normal(size=(16, 14, 14, 3))).astype(np.float32)
    layer = BatchNormalization(momentum=0.0, **options)
    layer.build(x.shape)
    expected_mean, variance, m = moments(x)
    y = tf.function(layer, jit_compile=jit)(x, training=True)
    assert_close(y, normalise(x, expected_mean, variance, 1.0, 0.0, layer.epsilon), 1e-4)
    assert_close(layer.moving_mean, expected_mean)
    assert_close(layer.moving_variance, variance * m / (m - 1), 1e-4)


@pytest.mark.parametrize("shape", [(16, 128, 128, 2), (500_000, 2)])
@pytest.mark.parametrize("mean", [1e3, 1e5])
@pytest.mark.parametrize("options", [{}, {"fused": False}], ids=["fused", "portable"])
def test_large_mean_of_many_values_is_exact(rng, shape, mean, options):
    x = (mean + rng.normal(size=shape)).astype(np.float32)
    layer = BatchNormalization(momentum=0.0, **options)
    y = layer(x, training=True)
    expected_mean, variance, m = moments(x)
    assert_close(y, normalise(x, expected_mean, variance, 1.0, 0.0, layer.epsilon), 5e-4)
    assert_close(layer.moving_variance, variance * m / (m - 1), 5e-4)


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("options", [{}, {"fused": False}], ids=["fused", "portable"])
def test_sample_is_not_misled_by_a_special_pixel(rng, axis, options):
    """A corner that spreads wildly must not hide the large mean of all other pixels."""
    x = (1e4 + rng.normal(size=(16, 64, 64, 2))).astype(np.float32)
    x[:, 0, 0] += rng.normal(scale=100.0, size=(16, 2)).astype(np.float32)
    x = np.ascontiguousarray(np.moveaxis(x, -1, axis))
    layer = BatchNormalization(axis=axis, momentum=0.0, **options)
    y = layer(x, training=True)
    mean, variance, m = moments(x, axis)
    assert_close(y, normalise(x, mean, variance, 1.0, 0.0, layer.epsilon, axis), 5e-4)
    assert_close(layer.moving_variance, variance * m / (m - 1), 5e-4)


def test_float16_near_its_largest_value(rng):
    x = (65000.0 + 500.0 * rng.random((8, 5, 6, 3))).astype(np.float16)
    layer = BatchNormalization(momentum=0.0, dtype="mixed_float16")
    y = layer(x, training=True)
    mean, variance, m = moments(x)
    assert_close(y, normalise(x, mean, variance, 1.0, 0.0, layer.epsilon), 2e-3)
    assert_close(layer.moving_mean, mean)
    assert_close(layer.moving_variance, variance * m / (m - 1), 1e-4)


@pytest.mark.parametrize(
    ("arguments", "received"),
    [
        ({"ghost_batch_size": 0}, "Received: ghost_batch_size=0."),
        ({"ghost_batch_size": 2.5}, "Received: ghost_batch_size=2.5."),
        ({"ghost_batch_size": 2, "renorm": True}, "renorm=True, synchronized=False"),
        ({"ghost_batch_size": 2, "synchronized": True}, "renorm=False, synchronized=True"),
        ({"momentum": None, "renorm": True}, "Received: momentum=None."),
    ],
)
def test_combination_that_makes_no_sense_is_refused(arguments, received):
    with pytest.raises(ValueError, match=re.escape(received)):
        BatchNormalization(**arguments)


def test_ghost_batches_along_the_channel_axis_are_refused():
    with pytest.raises(ValueError, match="`axis` is the batch axis"):
        BatchNormalization(axis=0, ghost_batch_size=2).build((4, 3))


def test_ghost_size_that_does_not_divide_the_batch_is_refused(batch):
    with pytest.raises(ValueError, match=re.escape("ghost_batch_size=3, batch size 8")):
        BatchNormalization(ghost_batch_size=3)(batch, training=True)
