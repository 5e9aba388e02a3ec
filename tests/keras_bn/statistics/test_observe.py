import keras
import numpy as np
import pytest

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
