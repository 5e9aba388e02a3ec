"""What layers return is noted, once, with where it came from."""

import keras
import numpy as np
import pytest

from keras_bn.export.parity.reference.intermediates import Recorder


class Everything:
    def __contains__(self, _):
        return True


def recorded(model, *arrays, wanted=None):
    recorder = Recorder(model)
    with recorder.recording(Everything() if wanted is None else wanted) as record:
        outputs = model(list(arrays) if len(arrays) > 1 else arrays[0], training=False)
    assert not any("call" in vars(layer) for layer in model._flatten_layers())
    return record, outputs


def test_layers_are_noted_in_order_with_their_sources(small_model, rng):
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    record, outputs = recorded(small_model, x)
    names = [item.layer for item in record]
    assert names[:3] == ["conv", "conv_bn", "re_lu"]
    assert names[-1] == "dense_bn"
    assert [item.sources for item in record[:3]] == [(), (0,), (1,)]
    np.testing.assert_array_equal(record[-1].values, outputs)
    assert record[0].kind == "Conv2D"
    assert record[0].shape == (2, 6, 6, 4)
    assert record[0].bytes == 8 * 2 * 6 * 6 * 4


def test_only_what_is_wanted_is_kept(small_model, rng):
    record, _ = recorded(small_model, np.zeros((1, 6, 6, 3), np.float32), wanted={1})
    assert [item.values is not None for item in record[:3]] == [False, True, False]


def test_layers_inside_layers_are_noted_once_and_shared_ones_for_each_call(rng):
    inner_input = keras.Input((4,))
    inner = keras.Model(inner_input, keras.layers.Dense(3, name="dense")(inner_input), name="inner")
    x = keras.Input((4,), name="x")
    shared = keras.layers.Dense(4, name="shared")
    model = keras.Model(x, inner(shared(shared(x))))
    record, _ = recorded(model, np.zeros((1, 4), np.float32))
    assert [item.layer for item in record] == ["shared", "shared", "dense"]
    assert [item.sources for item in record] == [(), (0,), (1,)]


def test_steps_of_a_recurrent_layer_are_left_out():
    x = keras.Input((5, 4), name="x")
    y = keras.layers.TimeDistributed(keras.layers.Dense(2))(
        keras.layers.LSTM(3, return_sequences=True)(x)
    )
    record, _ = recorded(keras.Model(x, y), np.zeros((1, 5, 4), np.float32))
    assert [item.kind for item in record] == ["LSTM", "TimeDistributed"]


def test_several_outputs_of_a_layer_and_integers():
    class Two(keras.layers.Layer):
        def call(self, x):
            return x + 1.0, keras.ops.cast(x, "int32")

    x = keras.Input((4,), name="x")
    record, _ = recorded(keras.Model(x, Two()(x)), np.ones((1, 4), np.float32))
    assert [item.values is not None for item in record] == [True, False]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_layers_are_as_they_were_after_an_error(small_model, error):
    with pytest.raises(error), Recorder(small_model).recording(Everything()):
        raise error
    assert not any("call" in vars(layer) for layer in small_model._flatten_layers())
