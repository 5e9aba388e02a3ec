import json
import math
import re
import statistics

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization, measure_covariate_shift
from keras_bn.statistics.shift import _student_t
from tests import oracles
from tests.tolerances import assert_close

EPSILON = 1e-3


def single(shape, randomised=None, **options):
    image = keras.Input(shape)
    model = keras.Model(image, BatchNormalization(epsilon=EPSILON, name="bn", **options)(image))
    return randomised(model) if randomised else model


def measure(model, data, **options):
    return measure_covariate_shift(model, data, verbose=0, **options)


def stored(layer):
    return np.float64(layer.moving_mean), np.float64(layer.moving_variance)


@pytest.mark.parametrize("batch_size", [7, 32, 100])
def test_shift_matches_its_definition(rng, randomised, batch_size):
    model = single((4, 5, 3), randomised)
    x = rng.normal([0.5, -1.0, 3.0], [1.0, 0.3, 2.0], (70, 4, 5, 3)).astype(np.float32)
    found = measure(model, x, batch_size=batch_size).layers[0]
    expected = oracles.covariate_shift(x, *stored(model.layers[1]), EPSILON)
    for name, value in expected.items():
        assert_close(getattr(found, name), value)


def test_shift_takes_the_channel_axis(rng, randomised):
    model = single((3, 4, 5), randomised, axis=1)
    x = rng.normal(size=(40, 3, 4, 5)).astype(np.float32)
    found = measure(model, x).layers[0]
    expected = oracles.covariate_shift(np.moveaxis(x, 1, -1), *stored(model.layers[1]), EPSILON)
    for name, value in expected.items():
        assert_close(getattr(found, name), value)


def test_shift_with_weights_counts_what_they_count(rng, randomised):
    model = single((4, 2), randomised)
    x = rng.normal(size=(60, 4, 2)).astype(np.float32)
    counts = rng.integers(0, 3, 60)
    weighted = measure(model, (x, x[:, 0, 0], counts.astype(np.float32)), weighted=True).layers[0]
    mean, variance = stored(model.layers[1])
    expected = oracles.covariate_shift(np.repeat(x, counts, axis=0), mean, variance, EPSILON)
    assert_close(weighted.mean_difference, expected["mean_difference"])
    # The effective number of values, not the sum of the weights, is in the unbiased variance.
    assert_close(weighted.log_variance_ratio, expected["log_variance_ratio"], 1e-2)
    assert (weighted.mean_error > 1.05 * expected["mean_error"]).all()


def test_shift_of_shared_layer_pools_its_uses(rng):
    layer = BatchNormalization(epsilon=EPSILON, name="bn")
    left, right = keras.Input((3,)), keras.Input((3,))
    model = keras.Model([left, right], layer(left) + layer(right))
    x, y = rng.normal(size=(2, 50, 3)).astype(np.float32)
    found = measure(model, [x, y]).layers[0]
    expected = oracles.covariate_shift(np.stack([x, y], 1), np.zeros(3), np.ones(3), EPSILON)
    for name, value in expected.items():
        assert_close(getattr(found, name), value)


def test_shift_is_rarely_marked_at_many_skewed_channels(rng):
    samples, layers, channels = 100, 40, 64
    x = keras.Input((layers * channels,))
    norms = [BatchNormalization(epsilon=1e-9) for _ in range(layers)]
    outputs = [bn(x[:, i * channels : (i + 1) * channels]) for i, bn in enumerate(norms)]
    model = keras.Model(x, outputs)
    model.run_eagerly = True  # to trace so many layers takes longer
    for bn in norms:  # the moments of max(x, 0) for a standard normal x
        bn.moving_mean.assign(np.full(channels, 1 / np.sqrt(2 * np.pi)))
        bn.moving_variance.assign(np.full(channels, 0.5 - 1 / (2 * np.pi)))
    data = np.maximum(rng.normal(size=(samples, layers * channels)), 0).astype(np.float32)
    alarms = sum(layer.is_shifted.any() for layer in measure(model, data).layers)
    assert alarms <= 8  # 2 expected; more than 8 has a chance below 1 in 3,000


def test_shift_is_rarely_marked_where_there_is_none(rng):
    samples, layers = 50, 60
    image = keras.Input((6, 6, 3 * layers))
    parts = [image[..., 3 * i : 3 * i + 3] for i in range(layers)]
    model = keras.Model(image, [BatchNormalization()(part) for part in parts])
    model.run_eagerly = True  # to trace so many layers takes longer
    # Positions of a sample have much in common: 36 values are far from 36 independent ones.
    own, shared = (
        rng.normal(size=(samples, 6, 6, 3 * layers)),
        rng.normal(size=(samples, 1, 1, 3 * layers)),
    )
    report = measure(model, (0.6 * own + 0.8 * shared).astype(np.float32))
    alarms = sum(layer.is_shifted.any() for layer in report.layers)
    assert alarms <= 10  # 3 expected; more than 10 has a chance below 1 in 3,000


@pytest.mark.parametrize(("mean", "deviation"), [(0.5, 1.0), (0.0, 1.5)], ids=["mean", "variance"])
def test_shift_that_is_there_is_marked(rng, mean, deviation):
    x = rng.normal(mean, deviation, (200, 3)).astype(np.float32)
    report = measure(single((3,)), x)
    assert report.layers[0].is_shifted.all()
    assert "tell from zero" not in str(report)


def test_shift_too_small_for_the_sample_is_said_so():
    normal = [statistics.NormalDist(0.1).inv_cdf((i + 0.5) / 40) for i in range(40)]
    report = measure(single((1,)), np.array(normal, np.float32)[:, np.newaxis])
    assert not report.layers[0].is_shifted.any()
    assert "bn: no shift that 40 samples can tell from zero" in str(report)
    assert "KL by chance: what this many samples show without a shift" in str(report)
    assert report.layers[0].mean_divergence < 4 * report.layers[0].sampling_divergence


def test_single_sample_marks_nothing(rng):
    layer = measure(single((3,)), np.full((1, 3), 100.0, np.float32)).layers[0]
    assert np.isinf(layer.mean_error).all()
    assert not layer.is_shifted.any()
    json.dumps(layer.to_dict(), allow_nan=False)


def test_constant_channel_that_fits_is_not_marked():
    model = single((2,))
    model.layers[1].moving_variance.assign([0.0, 0.0])
    model.layers[1].moving_mean.assign([0.1, 3.0])
    x = np.full((50, 2), [0.1, 3.0], np.float32)
    layer = measure(model, x).layers[0]
    assert not layer.is_shifted.any()
    assert np.isfinite(layer.divergence).all()


def test_ranking_puts_the_most_shifted_layer_first(rng):
    x = keras.Input((4,))
    y = BatchNormalization(name="first")(x)
    y = BatchNormalization(name="second", moving_mean_initializer=keras.initializers.Constant(9.0))(
        y
    )
    report = measure(keras.Model(x, y), rng.normal(0.2, 1.0, (300, 4)).astype(np.float32))
    assert [layer.layer for layer in report.layers] == ["first", "second"]
    assert [layer.layer for layer in report.ranking] == ["second", "first"]
    assert [layer["layer"] for layer in report.to_dict()["layers"]] == ["second", "first"]
    assert str(report).index("second") < str(report).index("first")
    json.dumps(report.to_dict(), allow_nan=False)


def test_layer_that_stores_nan_is_ranked_first(rng):
    x = keras.Input((4,))
    model = keras.Model(x, BatchNormalization(name="last")(BatchNormalization(name="first")(x)))
    model.get_layer("last").moving_mean.assign(np.full(4, np.nan))
    report = measure(model, rng.normal(size=(64, 4)).astype(np.float32))
    assert report.ranking[0].layer == "last"
    json.dumps(report.to_dict(), allow_nan=False)


def test_measuring_changes_nothing_and_skips_unusable_batches(rng, small_model):
    before = small_model.get_weights()
    x = rng.normal(size=(90, 6, 6, 3)).astype(np.float32)
    x[40, 0, 0, 0] = np.nan
    report = measure(small_model, x)
    assert (report.batches, report.skipped_batches, report.samples) == (2, 1, 58)
    for old, new in zip(before, small_model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_frozen_layers_are_measured_and_others_can_be_chosen(rng, small_model):
    small_model.get_layer("conv_bn").trainable = False
    x = rng.normal(size=(20, 6, 6, 3)).astype(np.float32)
    assert len(measure(small_model, x).layers) == 3
    chosen = measure(small_model, x, layers=["conv_bn"])
    assert [layer.layer for layer in chosen.layers] == ["conv_bn"]


def test_data_without_a_usable_batch_raise(small_model):
    x = np.full((40, 6, 6, 3), np.inf, np.float32)
    with pytest.raises(ValueError, match=re.escape("Received: 2 batches, none of them usable")):
        measure(small_model, x)


def test_dataset_gives_the_same_as_arrays(rng, small_model):
    x = rng.normal(size=(40, 6, 6, 3)).astype(np.float32)
    expected = measure(small_model, x).ranking
    found = measure(small_model, tf.data.Dataset.from_tensor_slices(x).batch(7)).ranking
    for one, other in zip(found, expected, strict=True):
        assert one.layer == other.layer
        assert_close(one.divergence, other.divergence)


@pytest.mark.parametrize(
    ("probability", "degrees", "quantile"),
    [(0.975, 5, 2.5706), (0.975, 30, 2.0423), (0.9995, 10, 4.5869), (0.99999, 100, 4.4817)],
)
def test_student_t_matches_tables(probability, degrees, quantile):
    assert math.isclose(_student_t(probability, degrees), quantile, rel_tol=0.01)
