"""Sizes of batches and of unknown dimensions."""

import keras
import numpy as np
import pytest

from keras_bn.export import ExportError
from keras_bn.export.parity.samples.samples import draw, split
from keras_bn.export.signature import signature_of


def shapes(model):
    """Return the shapes drawn for the first input, by kind of batch."""
    batches, _, notes = draw(model, signature_of(model), seed=0)
    found = {}
    for batch in batches:
        found.setdefault(batch.case, []).append(batch.arrays[0].shape)
    return found, notes


def convolution(shape, **options):
    x = keras.Input(shape, name="x")
    return keras.Model(x, keras.layers.Conv2D(2, 3, **options)(x))


def test_batches_of_one_two_and_an_odd_number():
    found, notes = shapes(convolution((8, 8, 3)))
    assert [shape[0] for shape in found["drawn"]] == [1, 2, 3]
    assert set(found) == {"drawn", "constant", "out of range"}
    assert notes == []


def test_unknown_dimensions_get_two_sizes_odd_and_not_square():
    found, notes = shapes(convolution((None, None, 3)))
    assert found["drawn"][0] == (1, 32, 32, 3)
    assert found["another size"] == [(2, 45, 38, 3)]
    assert notes == []


def test_network_that_halves_its_input_gets_multiples():
    x = keras.Input((None, None, 3), name="x")
    y = keras.layers.Conv2D(3, 4, strides=16)(x)
    y = keras.layers.Add()([keras.layers.UpSampling2D(16)(y), x])
    found, _ = shapes(keras.Model(x, keras.layers.Conv2D(1, 1)(y)))
    assert found["another size"] == [(2, 48, 48, 3)]


class Choosy(keras.layers.Layer):
    """Takes some sizes only."""

    def __init__(self, takes):
        super().__init__()
        self.takes = takes

    def call(self, inputs):
        if inputs.shape[1] is not None and not self.takes(inputs.shape[1]):
            raise ValueError("not of this size")
        return inputs


def choosy(takes):
    x = keras.Input((None, 4), name="x")
    return keras.Model(x, Choosy(takes)(x))


def test_network_that_needs_a_large_input_gets_one():
    found, _ = shapes(choosy(lambda size: size >= 75))
    assert found["drawn"][0] == (1, 96, 4)
    assert found["another size"] == [(2, 109, 4)]


def test_one_size_alone_is_noted():
    found, notes = shapes(choosy(lambda size: size == 32))
    assert "another size" not in found
    assert notes == ["unknown dimensions at one size alone, 32: none other runs"]


def test_network_that_takes_no_size_is_refused():
    with pytest.raises(ExportError, match="Give samples of a suitable shape"):
        shapes(choosy(lambda size: size > 1000))


def test_inputs_that_go_together_get_sizes_that_do():
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, 3), name="b")
    batches, _, _ = draw(
        model := keras.Model([a, b], keras.layers.Add()([a, b])), signature_of(model), seed=0
    )
    assert all(x.shape == y.shape for x, y in (batch.arrays for batch in batches))


def test_given_samples_are_cut_into_one_two_and_odd_numbers():
    model = convolution((8, 8, 3))
    specs = signature_of(model).specs
    batches = [
        batch.arrays[0] for batch in split(np.arange(70 * 192.0).reshape(70, 8, 8, 3), specs)
    ]
    assert [len(batch) for batch in batches] == [1, 2, 63, 4]
    assert np.array_equal(np.concatenate(batches).reshape(-1), np.arange(70 * 192.0))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_fixed_batch_is_filled_up(count):
    x = keras.Input(batch_shape=(4, 2), name="x")
    model = keras.Model(x, keras.layers.Dense(1)(x))
    batches = list(split(np.zeros((count, 2)), signature_of(model).specs))
    assert {batch.arrays[0].shape for batch in batches} == {(4, 2)}
