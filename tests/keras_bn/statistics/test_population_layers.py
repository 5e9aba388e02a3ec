"""Every kind of batch-norm layer: precision, variants, frozen ones, chosen ones."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.statistics.population import estimate_population_statistics
from keras_bn.statistics.selection import FROZEN
from tests.networks import (
    Stock,
    alone,
    assert_stored,
    bits,
    cut,
    dense,
    drifting_rows,
    kernels,
    norms,
    statistics,
)
from tests.oracles import averaged_statistics, moments, normalise, pooled_statistics
from tests.tolerances import FLOAT32, FLOAT64, HALF, assert_close

LAYERS = pytest.mark.parametrize("layer", [BatchNormalization, Stock], ids=["ours", "stock"])
VARIANCES = pytest.mark.parametrize("variance", ["paper", "pooled"])
ORDERS = pytest.mark.parametrize("sequential", [False, True], ids=["at once", "sequential"])


def estimate(model, data, **options):
    return estimate_population_statistics(model, data, verbose=0, **options)


@pytest.fixture
def rows(rng):
    return drifting_rows(rng)


@ORDERS
def test_keras_layer_and_ours_get_the_same_statistics(randomised, rows, sequential):
    ours, stock = randomised(dense(BatchNormalization)), dense()
    stock.set_weights(ours.get_weights())
    for model in (ours, stock):
        estimate(model, rows, sequential=sequential)
    assert_close(np.array(statistics(ours)), statistics(stock), FLOAT32)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@LAYERS
def test_mixed_precision_keeps_statistics_in_float32(rows, dtype, layer):
    model = alone(layer(dtype=f"mixed_{dtype}"))
    half = np.float64(tf.cast(tf.cast(rows, dtype), tf.float64))
    estimate(model, rows)
    assert_stored(model.layers[0], averaged_statistics(cut(half)[0]))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_statistics_in_half_precision_are_undone_exactly(rows, dtype):
    model = alone(Stock(dtype=dtype))
    before = bits(model)
    half = np.float64(tf.cast(tf.cast(rows, dtype), tf.float64))
    report = estimate(model, rows, sequential=True)
    assert_stored(model.layers[0], averaged_statistics(cut(half)[0]), HALF[dtype])
    report.undo()
    assert bits(model) == before


# Fails for "sequential": the statistics of the layers before are handed on in float32.
@VARIANCES
@ORDERS
def test_double_precision_keeps_its_digits(rows, variance, sequential):
    first, second = (BatchNormalization(dtype="float64") for _ in range(2))
    model = keras.Sequential([keras.Input((5,), dtype="float64"), first, second])
    model.run_eagerly = True
    estimate(model, rows, variance=variance, sequential=sequential)
    oracle = averaged_statistics if variance == "paper" else pooled_statistics
    found = oracle(cut(rows)[0])
    assert_stored(first, found, FLOAT64)
    inputs = [
        normalise(x, *(found if sequential else moments(x)[:2]), 1.0, 0.0, 1e-3)
        for x in cut(rows)[0]
    ]
    # The mean of the second is 0 but for rounding, on the scale of its deviation, 1.
    np.testing.assert_allclose(second.moving_mean, oracle(inputs)[0], atol=FLOAT64)
    assert_close(second.moving_variance, oracle(inputs)[1], FLOAT64)


@LAYERS
def test_renorm_layer_has_every_statistic_replaced_and_restored(rows, layer):
    model = alone(layer(renorm=True))
    before = bits(model)
    report = estimate(model, rows)
    (bn,), (mean, variance) = model.layers, averaged_statistics(cut(rows)[0])
    assert_stored(bn, (mean, variance))
    assert_close(bn.renorm_mean, mean)
    for deviation in (bn.renorm_stddev, bn.moving_stddev):
        assert_close(deviation, np.sqrt(variance + bn.epsilon))
    report.undo()
    assert bits(model) == before


def test_cumulative_average_goes_on_from_the_estimate(rows):
    model = alone(BatchNormalization(momentum=None))
    (bn,) = model.layers
    report = estimate(model, rows[:64])
    assert bn.batches_seen == 2
    model(rows[:32], training=True)
    assert_stored(bn, averaged_statistics([rows[:32], rows[32:64], rows[:32]]))
    report.undo()
    assert bn.batches_seen == 0


def test_channel_that_is_masked_everywhere_keeps_its_statistics(rng):
    model = keras.Sequential([keras.Input((3, 4)), keras.layers.Masking(), Stock(axis=1)])
    model.run_eagerly = True
    x = rng.normal(2.0, 1.0, (8, 3, 4)).astype(np.float32)
    x[:, 1] = 0.0  # the mask has the shape (8, 3), and the channels are the second axis
    estimate(model, x)
    (mean, variance), found = statistics(model)[0], averaged_statistics([x], axis=1)
    assert (mean[1], variance[1]) == (0.0, 1.0)
    assert_close(mean, found[0] * [1, 0, 1])
    assert_close(variance[[0, 2]], found[1][[0, 2]])


@LAYERS
@pytest.mark.parametrize("options", [{"scale": False}, {"center": False}], ids=str)
def test_layers_without_gamma_or_beta_are_estimated(rows, layer, options):
    model = keras.Sequential([keras.Input((5,)), layer(**options), layer(**options)])
    model.run_eagerly = True
    estimate(model, rows, sequential=True, variance="pooled")
    values = normalise(rows, *pooled_statistics([rows]), 1.0, 0.0, 1e-3)
    assert_close(model.layers[1].moving_variance, pooled_statistics([values])[1])


class Overriding(Stock):
    """Somebody's own batch norm."""

    def call(self, inputs, training=None, mask=None):
        return super().call(2 * inputs, training=training, mask=mask)


class Renamed(Stock):
    """Somebody's own batch norm that does nothing of its own in `call`."""


def test_subclass_with_a_call_of_its_own_is_left_alone(rows):
    own, same = Overriding(), Renamed()
    model = keras.Sequential([keras.Input((5,)), own, same])
    report = estimate(model, rows)
    assert report.unchanged == {own.path: "its class, Overriding, has a `call` of its own"}
    assert [layer.layer for layer in report.layers] == [same.path]
    # The first is in inference, as frozen layers are: with its stored mean of 0, variance of 1.
    inputs = [2 * x / np.sqrt(1.001) for x in cut(rows)[0]]
    assert_stored(same, averaged_statistics(inputs))


@LAYERS
def test_frozen_layers_stay_in_inference_unless_included(randomised, rows, layer):
    model = randomised(dense(layer))
    first, second = norms(model)
    first.trainable = False
    before = statistics(model)[0]
    report = estimate(model, rows)
    assert report.unchanged == {first.path: FROZEN}
    assert_stored(first, before, 1e-12)
    inputs = keras.Model(model.inputs[0], second.input)(rows, training=False)
    assert_stored(second, averaged_statistics(cut(inputs)[0]))
    assert estimate(model, rows, include_frozen=True).unchanged == {}
    assert_stored(first, averaged_statistics(cut(rows @ kernels(model)[0])[0]))
    assert not first.trainable


CHOICES = {
    "name": lambda bn: bn.name,
    "path": lambda bn: bn.path,
    "layer": lambda bn: bn,
    "names": lambda bn: [bn.name],
    "layers": lambda bn: (bn,),
    "predicate": lambda bn: lambda layer: layer is bn,
}


@pytest.mark.parametrize("choice", CHOICES)
def test_layers_may_be_chosen(rows, choice):
    model = dense(depth=3)
    model.run_eagerly = True
    chosen = norms(model)[1]
    report = estimate(model, rows, layers=CHOICES[choice](chosen))
    assert [layer.layer for layer in report.layers] == [chosen.path]
    assert report.unchanged == {}
    inputs = keras.Model(model.inputs[0], chosen.input)
    fresh = [np.array_equal(found, [[0.0] * 4, [1.0] * 4]) for found in statistics(model)]
    assert fresh == [True, False, True]
    assert_stored(chosen, averaged_statistics(cut(inputs(rows, training=False))[0]))


@pytest.mark.parametrize(
    ("layers", "received"),
    [("nobody", "'nobody'"), (["bn", "nobody"], "'nobody'"), (Stock(name="x"), "'x'"), ([3], "3")],
)
def test_choice_that_the_model_does_not_have_is_refused(rows, layers, received):
    with pytest.raises(ValueError, match=re.escape(f"Received: {received}. It has sequential/bn.")):
        estimate(alone(Stock(name="bn")), rows, layers=layers)


def test_choice_of_a_wrong_type_is_refused(rows):
    with pytest.raises(TypeError, match=re.escape("Received: layers=3")):
        estimate(alone(Stock()), rows, layers=3)


@ORDERS
def test_model_whose_layers_are_all_frozen_is_left_alone(rows, sequential):
    model = alone(Stock())
    model.trainable = False
    before = bits(model)
    report = estimate(model, rows, sequential=sequential)
    assert (report.layers, list(report.unchanged.values())) == ((), [FROZEN])
    assert bits(model) == before
