"""Whichever way rounding moves two classes that are nearly as large, one run or its twin jumps."""

import keras
import numpy as np
import onnx
import pytest
import tensorflow as tf

from keras_bn.export.parity.graphs import rounding
from keras_bn.export.parity.graphs.float64 import Float64Graph
from keras_bn.export.parity.reference import rounded_runs
from keras_bn.export.parity.reference.reflection import RUNS, run_with_twins
from keras_bn.export.signature import signature_of
from tests.tolerances import assert_close

EPSILON = 2.0**-21
SAMPLES = 300
# Two values of 1e9 that are 2 apart, where rounding is worth some 400.
VALUES = np.stack([np.full(SAMPLES, 1e9), np.full(SAMPLES, 1e9 - 2)], 1)


def by_keras():
    x = keras.Input((2,), dtype="float64", name="x")
    scaled = keras.layers.Rescaling(1.0, dtype="float64")(x)
    model = keras.Model(x, keras.layers.Softmax(dtype="float64")(scaled))
    runs = rounded_runs.run_rounded(model, signature_of(model), [[VALUES]], EPSILON)
    return [run[0] for run in runs]


def by_graph():
    proto = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]>\n'
        "g (double[N,C] x) => (double[N,C] y) { z = Mul(x, x) y = Softmax<axis = 1>(z) }"
    )
    batch = {"x": np.sqrt(VALUES)}
    runs = rounding.run_rounded(Float64Graph(proto), [batch], {"y"}, EPSILON)
    return [run[0]["y"] for run in runs]


@pytest.mark.parametrize("runs_of", [by_keras, by_graph])
def test_every_near_tie_of_a_softmax_jumps(runs_of):
    found = np.stack(runs_of())
    assert len(found) == 2 * RUNS
    first, second = found[..., 0].max(0), found[..., 1].max(0)
    assert first.min() > 0.99
    assert second.min() > 0.99


@pytest.mark.parametrize("activation", ["sigmoid", "tanh"])
def test_gates_near_zero_jump(activation):
    x = keras.Input((1,), name="x")
    model = keras.Model(x, keras.layers.Dense(1, activation)(x))
    model.set_weights([np.full((1, 1), 1e9), np.array([64 - 1e9])])  # 64 in all, rounded by 100
    batch = [np.ones((1, 1), np.float32)]
    runs = rounded_runs.run_rounded(model, signature_of(model), [batch], EPSILON)
    found = np.ravel([run[0] for run in runs])
    assert found.max() > 0.99
    assert found.min() < 0.01


def test_what_does_not_saturate_has_no_twins():
    taken = []
    found = run_with_twins(lambda generator, _: taken.append(generator) or len(taken))
    assert found == [2, 3, 4]
    assert len(found) == RUNS
    assert [generator is None for generator in taken] == [True, False, False, False]


def test_twins_read_the_other_way_and_leave_infinities():
    exact, off = np.array([1.0, -np.inf, 3.0]), np.array([0.5, -np.inf, 0.25])
    found = run_with_twins(lambda rounds, reading: reading(exact + off if rounds else exact))
    np.testing.assert_array_equal(found[0], [1.5, -np.inf, 3.25])
    np.testing.assert_array_equal(found[1], [0.5, -np.inf, 2.75])


def test_calls_that_depend_on_values_are_left_as_they_are():
    def run(rounds, reading):
        sizes = [2, 3, 1] if rounds else [2, 2]
        return [reading(np.full(size, 5.0 if rounds else 4.0)) for size in sizes]

    plain, twin, *_ = run_with_twins(run)
    np.testing.assert_array_equal(np.concatenate(plain), np.full(6, 5.0))
    np.testing.assert_array_equal(np.concatenate(twin), [3.0, 3.0, 5.0, 5.0, 5.0, 5.0])


def test_functions_take_what_they_read_by_name_too():
    class Named(keras.layers.Layer):
        def call(self, x):
            return tf.nn.softmax(logits=x) + tf.math.tanh(x=x)

    x = keras.Input((2,), name="x")
    model = keras.Model(x, Named()(x))
    batch = np.float32([[1, 2]])
    found = rounded_runs.run_rounded(model, signature_of(model), [[batch]], EPSILON)
    assert len(found) == 2 * RUNS
    assert_close(found[1][0], model(batch))
