import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_bn
from keras_bn.statistics import observe


@pytest.mark.parametrize("by_batch", [True, False])
def test_moments_of_a_layer_are_computed_once(monkeypatch, by_batch):
    layer, calls = keras_bn.BatchNormalization(), []
    model = keras.Sequential([keras.Input((2,)), layer])

    def counted(*args, **kwargs):
        calls.append(moments(*args, **kwargs))
        return calls[-1]

    moments = observe.layer_moments
    monkeypatch.setattr(observe, "layer_moments", counted)
    x = np.arange(8.0, dtype="float32").reshape(4, 2)
    _, [[record]] = observe.ObservedModel("here", model, [layer], by_batch=by_batch)(x)
    assert len(calls) == 1
    np.testing.assert_allclose(record[2], [x.mean(0)])
    np.testing.assert_allclose(record[3], [x.var(0)])


@pytest.mark.parametrize("rows", [None, 4])
def test_smaller_last_batch_is_traced_only_where_it_must_be(monkeypatch, rows):
    layer, traces = keras_bn.BatchNormalization(), []
    model = keras.Sequential([keras.Input((2,), batch_size=rows), layer])
    step = observe.ObservedModel._step

    def counted(self, inputs, *others):
        traces.append(inputs.shape[0])
        return step(self, inputs, *others)

    monkeypatch.setattr(observe.ObservedModel, "_step", counted)
    run = observe.ObservedModel("here", model, [layer], by_batch=True)
    for size in (4, 4, 3) if rows is None else (4, 4):
        run(tf.ones((size, 2)))
    assert traces == [rows]
