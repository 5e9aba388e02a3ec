"""Every kind of model in which statistics can be estimated, and those that are refused."""

import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.statistics.observe import NOT_CALLED
from keras_bn.statistics.population import estimate_population_statistics
from keras_bn.statistics.selection import HIDDEN
from tests.networks import (
    Stock,
    assert_stored,
    batch_normalised,
    bits,
    changed,
    cut,
    drifting_rows,
    norms,
)
from tests.oracles import averaged_statistics, pooled_statistics
from tests.tolerances import assert_close

LAYERS = pytest.mark.parametrize("layer", [BatchNormalization, Stock], ids=["ours", "stock"])
VARIANCES = pytest.mark.parametrize("variance", ["paper", "pooled"])
ORDERS = pytest.mark.parametrize("sequential", [False, True], ids=["at once", "sequential"])


def estimate(model, data, **options):
    return estimate_population_statistics(model, data, verbose=0, **options)


@pytest.fixture
def rows(rng):
    return drifting_rows(rng)


@VARIANCES
def test_layer_that_is_called_twice_pools_both_uses(rows, variance):
    image, shared = keras.Input((5,)), BatchNormalization()
    model = keras.Model(image, shared(keras.layers.ReLU()(shared(image))))
    report = estimate(model, rows, variance=variance)
    batches = cut(rows)[0]
    batches += [np.maximum(batch_normalised(x), 0) for x in batches]
    oracle = averaged_statistics if variance == "paper" else pooled_statistics
    assert_stored(shared, oracle(batches))
    assert report.layers[0].values == 140
    assert report.samples == 70


def test_shared_layer_is_estimated_in_sequence_where_it_is_called_last(rows):
    image, shared, between = keras.Input((5,)), Stock(), Stock()
    model = keras.Model(image, shared(between(shared(image))))
    model.run_eagerly = True
    report = estimate(model, rows, sequential=True)
    assert [layer.layer for layer in report.layers] == [between.path, shared.path]


def test_nested_models_are_reached_and_same_names_told_apart(rows):
    image = keras.Input((5,))
    inner = [
        keras.Sequential([keras.Input((5,)), Stock(name="bn"), keras.layers.ReLU()], name=name)
        for name in ("one", "two")
    ]
    model = keras.Model(image, inner[1](inner[0](image)))
    report = estimate(model, rows)
    assert len({layer.layer for layer in report.layers}) == 2
    batches = cut(rows)[0]
    assert_stored(inner[0].layers[0], averaged_statistics(batches))
    batches = [np.maximum(batch_normalised(x), 0) for x in batches]
    assert_stored(inner[1].layers[0], averaged_statistics(batches))


@LAYERS
@pytest.mark.parametrize("eager", [False, True], ids=["graph", "eager"])
def test_each_step_of_time_distributed_is_a_batch(rng, layer, eager):
    series = keras.Input((3, 4))
    model = keras.Model(series, keras.layers.TimeDistributed(layer(name="bn"))(series))
    model.run_eagerly = eager
    x = rng.normal(np.arange(3)[:, np.newaxis], 2.0, (70, 3, 4)).astype(np.float32)
    estimate(model, x)
    batches = [x[:, t] for x in cut(x)[0] for t in range(3)]
    assert_stored(norms(model)[0], averaged_statistics(batches))


class Listed(keras.Model):
    """A model without a graph of layers, whose layers are in a list and a dict."""

    def __init__(self, **options):
        super().__init__(**options)
        self.norms = [Stock(name="a"), Stock(name="b")]
        self.more = {"c": Stock(name="c"), "unused": Stock(name="unused")}

    def build(self, shape):
        for norm in [*self.norms, *self.more.values()]:
            norm.build(shape)
        self.built = True

    def call(self, x):  # without `training`, which Keras then passes on by itself
        for norm in (*self.norms, self.more["c"]):
            x = norm(x)
        return x


def test_subclassed_model_is_reached(rows):
    model = Listed()
    model(rows)
    report = estimate(model, rows)
    batches = cut(rows)[0]
    for norm in (*model.norms, model.more["c"]):
        assert_close(norm.moving_variance, averaged_statistics(batches)[1])
        batches = [batch_normalised(x) for x in batches]
    assert report.unchanged == {model.more["unused"].path: NOT_CALLED}
    assert_stored(model.more["unused"], (np.zeros(5), np.ones(5)))


class Backwards(Listed):
    """Calls its layers in another order than it has them."""

    def call(self, x):
        for norm in (self.more["c"], *reversed(self.norms)):
            x = norm(x)
        return x


@ORDERS
def test_layers_are_reported_in_calling_order(rows, sequential):
    model = Backwards()
    model(rows)
    model.run_eagerly = True
    report = estimate(model, rows, sequential=sequential)
    called = [model.more["c"], *reversed(model.norms)]
    assert [layer.layer for layer in report.layers] == [norm.path for norm in called]


@pytest.mark.parametrize("kind", ["dict", "list"])
def test_models_with_several_inputs_take_their_structure(rows, kind):
    inputs = {"a": keras.Input((5,), name="a"), "b": keras.Input((3,), name="b")}
    first, second = Stock(), Stock()
    outputs = [first(inputs["a"]), second(inputs["b"])]
    model = keras.Model(inputs if kind == "dict" else list(inputs.values()), outputs)
    data = {"a": rows, "b": rows[:, :3]}
    estimate(model, data if kind == "dict" else list(data.values()))
    assert_stored(first, averaged_statistics(cut(rows)[0]))
    assert_stored(second, averaged_statistics(cut(rows[:, :3])[0]))


class Compiled(keras.Model):
    """A model whose `call` is a tf.function."""

    def __init__(self):
        super().__init__()
        self.norm = Stock()

    @tf.function
    def call(self, x, training=None):
        return self.norm(x, training=training)


@pytest.mark.parametrize("eagerly", [False, True])
def test_model_whose_call_is_a_function_is_observed(rows, eagerly):
    model = Compiled()
    model(rows, training=False)
    model.run_eagerly = eagerly
    assert estimate(model, rows).unchanged == {}
    assert_stored(model.norm, averaged_statistics(cut(rows)[0]))


class Counting(Compiled):
    """Counts its calls, and normalises by the batch whatever it is told."""

    def __init__(self):
        super().__init__()
        self.count = self.add_weight(name="count", initializer="zeros", trainable=False)

    @tf.function
    def call(self, x, training=None):
        self.count.assign_add(1.0)
        return self.norm(x, training=True)


def test_model_whose_call_is_a_function_does_the_same_afterwards(rows):
    model = Counting()
    model(rows[:2])
    estimate(model, rows[:32])
    before = float(model.count), model.norm.moving_mean.numpy()
    model(rows[32:64], training=False)
    assert float(model.count) == before[0] + 1
    assert (model.norm.moving_mean.numpy() != before[1]).all()


class Cell(keras.layers.Layer):
    """A recurrent cell with a batch norm."""

    def __init__(self, **options):
        super().__init__(**options)
        self.norm, self.state_size, self.output_size = Stock(), 5, 5

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, states, training=None):
        state = self.norm(x + states[0], training=training)
        return state, [state]


class Loop(keras.layers.Layer):
    """A batch norm in a loop, and once before it where that is wanted."""

    def __init__(self, before, **options):
        super().__init__(**options)
        self.norm, self.before = Stock(), before

    def build(self, shape):
        self.norm.build(shape)

    def call(self, x, training=None):
        def step(i, x):
            return i + 1, self.norm(x, training=training)

        x = self.norm(x, training=training) if self.before else x
        return keras.ops.while_loop(lambda i, x: i < 2, step, (0, x))[1]


# Fails for the cell and for the loop that has a use before it: one use of the layer can be seen,
# the others cannot, and the statistics are those of the one use.
@pytest.mark.parametrize(
    ("shape", "layer"),
    [
        pytest.param((3, 5), lambda: keras.layers.RNN(Cell()), id="recurrent cell"),
        pytest.param((5,), lambda: Loop(before=False), id="loop"),
        pytest.param((5,), lambda: Loop(before=True), id="loop and before it"),
    ],
)
@ORDERS
def test_layer_in_a_loop_is_left_alone(rng, shape, layer, sequential):
    model = keras.Sequential([keras.Input(shape), layer(), Stock(name="after")])
    (inside, after), before = norms(model), bits(model)
    report = estimate(model, rng.normal(size=(8, *shape)).astype(np.float32), sequential=sequential)
    assert report.unchanged == {inside.path: HIDDEN}
    assert [layer.layer for layer in report.layers] == [after.path]
    assert changed(model, before) == {after.moving_mean.path, after.moving_variance.path}


def test_unrolled_recurrent_cell_pools_its_steps(rng):
    model = keras.Sequential([keras.Input((2, 5)), keras.layers.RNN(Cell(), unroll=True)])
    x = rng.normal(2.0, 1.0, (8, 2, 5)).astype(np.float32)
    estimate(model, x)
    steps = [x[:, 0], batch_normalised(x[:, 0]) + x[:, 1]]
    assert_stored(norms(model)[0], averaged_statistics(steps))


def test_recurrent_cell_that_runs_eagerly_is_left_alone(rng):
    """Keras runs the first step once more, ahead of the loop: pooled, it would count twice."""
    model = keras.Sequential([keras.Input((2, 5)), keras.layers.RNN(Cell())])
    model.run_eagerly = True
    report = estimate(model, rng.normal(2.0, 1.0, (8, 2, 5)).astype(np.float32))
    assert report.unchanged == {norms(model)[0].path: HIDDEN}


def test_series_of_unequal_length_hide_the_layer_in_time_distributed(rng):
    series = keras.Input((None, 4))
    model = keras.Model(series, keras.layers.TimeDistributed(Stock())(series))
    x = rng.normal(2.0, 1.0, (8, 5, 4)).astype(np.float32)
    before = bits(model)
    report = estimate(model, [x, x[:, :3], x[:, :4]].__iter__())
    assert report.unchanged == {norms(model)[0].path: HIDDEN}
    assert bits(model) == before


def test_dropout_and_augmentation_stay_off(rng):
    model = keras.Sequential(
        [
            keras.Input((4, 4, 3)),
            keras.layers.RandomFlip(),
            keras.layers.RandomTranslation(0.5, 0.5),
            keras.layers.GaussianNoise(1.0),
            keras.layers.Dropout(0.5),
            Stock(),
        ]
    )
    x = rng.normal(np.arange(4.0)[:, np.newaxis], 1.0, (70, 4, 4, 3)).astype(np.float32)
    before = bits(model)
    estimate(model, x)
    (norm,) = norms(model)
    assert_stored(norm, averaged_statistics(cut(x)[0]))
    assert changed(model, before) == {norm.moving_mean.path, norm.moving_variance.path}


def test_models_without_batch_norms_to_estimate_are_refused(rows):
    plain = keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)], name="plain")
    with pytest.raises(ValueError, match=re.escape("Received: 'plain', it has none")):
        estimate(plain, rows)
    unbuilt = keras.Sequential([Stock()], name="unbuilt")
    with pytest.raises(ValueError, match=re.escape("Received: 'unbuilt', it is not built yet")):
        estimate(unbuilt, rows)
    for thing in (Stock(), [], None):
        with pytest.raises(TypeError, match=re.escape(f"Received: {type(thing).__name__}")):
            estimate(thing, rows)


def test_layer_that_is_not_built_is_left_alone(rows):
    model = Listed()
    for norm in (*model.norms, model.more["c"]):
        norm.build((None, 5))
    model.built = True
    reasons = estimate(model, rows).unchanged
    assert list(reasons.values()) == ["it is not built yet; call the model on data first"]
