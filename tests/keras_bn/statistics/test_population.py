"""Population statistics against Algorithm 2 written out in NumPy float64."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.statistics.observe import ObservedModel
from keras_bn.statistics.pooling import Pool
from keras_bn.statistics.population import estimate_population_statistics
from tests.networks import (
    Stock,
    alone,
    bits,
    convolutional,
    cut,
    dense,
    drifting_rows,
    kernels,
    norms,
    statistics,
)
from tests.oracles import averaged_statistics, convolve, pooled_statistics, population_statistics
from tests.tolerances import FLOAT32, assert_close

LAYERS = pytest.mark.parametrize("layer", [BatchNormalization, Stock], ids=["ours", "stock"])
VARIANCES = pytest.mark.parametrize("variance", ["paper", "pooled"])
ORDERS = pytest.mark.parametrize("sequential", [False, True], ids=["at once", "sequential"])


def relu(x):
    return np.maximum(x, 0)


def expected(model, batches, **options):
    """Return what `oracles.population_statistics` finds for one of the models above."""
    apply = convolve if isinstance(model.layers[0], keras.layers.Conv2D) else np.matmul
    stages = [
        lambda x, k=kernel, first=i == 0: apply(x if first else relu(x), k)
        for i, kernel in enumerate(kernels(model))
    ]
    affine = [(layer.gamma.numpy(), layer.beta.numpy()) for layer in norms(model)]
    return population_statistics([np.float64(x) for x in batches], stages, affine, **options)


def assert_statistics(model, found, tolerance=FLOAT32):
    for stored, wanted in zip(statistics(model), found, strict=True):
        for one, other in zip(stored, wanted, strict=True):
            assert_close(one, other, tolerance)


@pytest.fixture
def images(rng):
    return rng.normal(1.0, 2.0, (70, 6, 6, 2)).astype(np.float32)


@pytest.fixture
def rows(rng):
    return drifting_rows(rng)


@pytest.mark.parametrize(
    ("layer", "eager"), [(BatchNormalization, False), (Stock, True)], ids=["ours", "stock, eager"]
)
@VARIANCES
@ORDERS
@pytest.mark.parametrize("weighted", [False, True], ids=["plain", "weighted"])
def test_convolutions_have_the_statistics_of_the_definition(
    randomised, images, rng, layer, eager, variance, sequential, weighted
):
    model = randomised(convolutional(layer))
    model.run_eagerly = eager
    w = rng.uniform(0.2, 2.0, 70).astype(np.float32)
    batches, weights = cut(images, w[:, None, None])
    options = {"variance": variance, "sequential": sequential, "weighted": weighted, "verbose": 0}
    found = expected(
        model,
        batches,
        paper=variance == "paper",
        sequential=sequential,
        weights=weights if weighted else None,
    )
    report = estimate_population_statistics(model, (images, None, w), **options)
    assert_statistics(model, found)
    assert (report.batches, report.skipped_batches, report.samples) == (3, 0, 70)


@pytest.mark.smoke
@VARIANCES
@ORDERS
def test_dense_layers_have_the_statistics_of_the_definition(randomised, rows, variance, sequential):
    model = randomised(dense(BatchNormalization, axis=1))
    model.run_eagerly = sequential
    found = expected(model, cut(rows)[0], paper=variance == "paper", sequential=sequential)
    estimate_population_statistics(model, rows, variance=variance, sequential=sequential, verbose=0)
    assert_statistics(model, found)


@pytest.mark.smoke
@VARIANCES
def test_channels_may_be_on_any_axis(rng, variance):
    model = keras.Sequential([keras.Input((3, 7)), BatchNormalization(axis=1)])
    x = rng.normal(2.0, 3.0, (50, 3, 7)).astype(np.float32)
    estimate_population_statistics(model, x, variance=variance, verbose=0)
    oracle = averaged_statistics if variance == "paper" else pooled_statistics
    assert_statistics(model, [oracle(cut(x)[0], axis=1)])


@LAYERS
@VARIANCES
@ORDERS
@pytest.mark.parametrize("weighted", [False, True], ids=["mask", "mask and weights"])
def test_masked_positions_do_not_count(randomised, rng, layer, variance, sequential, weighted):
    masking, linear = keras.layers.Masking(), keras.layers.Dense(4, use_bias=False)
    model = keras.Sequential([keras.Input((6, 3)), masking, layer(), linear, layer()])
    randomised(model).run_eagerly = layer is Stock or sequential
    x = rng.normal(1.0, 2.0, (70, 6, 3)).astype(np.float32)
    x[rng.random((70, 6)) < 0.3] = 0.0
    w = rng.uniform(0.2, 2.0, 70).astype(np.float32)
    batches, weights = cut(x, x.any(-1) * (w if weighted else np.ones(70))[:, None])
    (kernel,) = kernels(model)
    found = population_statistics(
        batches,
        [lambda x: x, lambda x: x @ kernel],
        [(bn.gamma.numpy(), bn.beta.numpy()) for bn in norms(model)],
        paper=variance == "paper",
        sequential=sequential,
        weights=weights,
    )
    options = {"variance": variance, "sequential": sequential, "weighted": weighted, "verbose": 0}
    estimate_population_statistics(model, (x, None, w), **options)
    assert_statistics(model, found)


@VARIANCES
@ORDERS
def test_ghost_batches_count_as_batches(randomised, rows, variance, sequential):
    model = randomised(dense(BatchNormalization, ghost_batch_size=8))
    batches = cut(rows[:64], size=8)[0]
    found = expected(model, batches, paper=variance == "paper", sequential=sequential)
    report = estimate_population_statistics(
        model, rows[:64], variance=variance, sequential=sequential, verbose=0
    )
    assert_statistics(model, found)
    assert report.batches == 2


def test_batches_of_one_value_have_no_variance_of_their_own(rows):
    model, rows = alone(BatchNormalization()), rows[:10]
    estimate_population_statistics(model, rows, batch_size=1, variance="pooled", verbose=0)
    assert_statistics(model, [(rows.mean(0), np.float64(rows).var(0, ddof=1))])
    with pytest.raises(ValueError, match=re.escape("`variance` must be 'pooled' where every")):
        estimate_population_statistics(model, rows, batch_size=1, variance="paper", verbose=0)
    estimate_population_statistics(model, rows, batch_size=9, variance="paper", verbose=0)
    variance = np.float64(rows[:9]).var(0, ddof=1)  # the last batch has a single sample
    assert_statistics(model, [((rows[:9].mean(0) + rows[9]) / 2, variance)])


def test_weights_of_zero_leave_samples_out(rows):
    model, w = alone(Stock()), (np.arange(70) % 3 > 0).astype(np.float32)
    report = estimate_population_statistics(
        model, (rows, None, w), variance="pooled", weighted=True, verbose=0
    )
    assert_statistics(model, [pooled_statistics([rows[w > 0]])])
    assert report.layers[0].values == pytest.approx(w.sum())


def test_weights_are_ignored_unless_asked_for(rows, rng):
    model = alone(Stock())
    estimate_population_statistics(model, (rows, None, rng.uniform(0.2, 2.0, 70)), verbose=0)
    assert_statistics(model, [averaged_statistics(cut(rows)[0])])


class Flat(keras.layers.Layer):
    """Makes a row of every position: (N, T, F) -> (N T, F)."""

    def call(self, x):
        return tf.reshape(x, (-1, x.shape[-1]))


def test_weights_that_do_not_fit_a_layers_rows_are_refused(rng):
    model = keras.Sequential([keras.Input((6, 4)), Flat(), Stock()])
    model.run_eagerly = True
    data = rng.normal(size=(8, 6, 4)).astype(np.float32), None, np.ones(8, np.float32)
    with pytest.raises(ValueError, match=re.escape("Received: 8 weights, and at layer")):
        estimate_population_statistics(model, data, weighted=True, verbose=0)
    estimate_population_statistics(model, data, verbose=0)


def moments_in_inference(model, x):
    """Return mean and unbiased variance that enter each batch norm, shape (layers, 2, C)."""
    observed = ObservedModel("test", model, norms(model), by_batch=False)
    pools = [Pool(4) for _ in norms(model)]
    for pool, uses in zip(pools, observed(x)[1], strict=True):
        pool.add_all(uses)
    return np.array([pool.pooled() for pool in pools])


def test_sequential_statistics_are_those_that_inference_meets(randomised, rows):
    model = randomised(dense(depth=6))
    model.run_eagerly = True
    options = {"batch_size": 8, "variance": "pooled", "verbose": 0}
    errors = []
    for sequential in (False, True):
        estimate_population_statistics(model, rows, sequential=sequential, **options)
        met = moments_in_inference(model, rows)
        error = np.abs(statistics(model) - met).max((1, 2))
        errors.append(error / np.abs(met).max((1, 2)))
    assert errors[0][0] < FLOAT32
    assert errors[0][1:].min() > 1e-2
    assert errors[1].max() < 1e-4


def test_data_of_any_kind_give_the_same_statistics(randomised, rows):
    model = randomised(dense())
    report = estimate_population_statistics(model, rows, verbose=0)
    found = bits(model)
    dataset = tf.data.Dataset.from_tensor_slices((rows, rows)).batch(32)
    for kind in ((rows, rows), tf.constant(rows), dataset, iter(cut(rows)[0])):
        report.undo()
        assert bits(model) != found
        estimate_population_statistics(model, kind, verbose=0)
        assert bits(model) == found


def test_steps_take_the_first_batches(rows):
    model = alone(Stock())
    report = estimate_population_statistics(model, rows, steps=2, batch_size=30, verbose=0)
    assert_statistics(model, [averaged_statistics([rows[:30], rows[30:60]])])
    assert (report.batches, report.samples) == (2, 60)


def test_mean_of_a_million_keeps_the_digits_of_the_variance(rng):
    model = alone(BatchNormalization(), features=2)
    x = (1e6 + rng.normal(0.0, 10.0, (640, 2))).astype(np.float32)
    estimate_population_statistics(model, x, variance="paper", verbose=0)
    assert_statistics(model, [averaged_statistics(cut(x)[0])])
    estimate_population_statistics(model, x, variance="pooled", verbose=0)
    # A batch's mean, in float32, is good to 0.03 standard deviations of it.
    assert_statistics(model, [pooled_statistics(cut(x)[0])], 1e-3)


@pytest.mark.parametrize("variance", ["biased", None, "Paper"])
def test_unknown_variance_is_refused(rows, variance):
    with pytest.raises(ValueError, match=re.escape(f"Received: variance={variance!r}")):
        estimate_population_statistics(dense(), rows, variance=variance)
