import re

import keras
import numpy as np
import pytest

from keras_bn.export import ExportError
from keras_bn.export.commands.statistics.arrays import batch_size_for, select_arrays

X, Y = np.zeros((6, 3), np.float32), np.zeros(6, np.int64)


def network(*names, outputs=("out",), batch_size=None, as_dict=False):
    inputs = [keras.Input((3,), batch_size=batch_size, name=name) for name in names]
    found = [keras.layers.Dense(2, name=name)(sum(inputs)) for name in outputs]
    if as_dict:
        return keras.Model(inputs, dict(zip(("b", "a"), found, strict=True)))
    return keras.Model(
        inputs if len(names) > 1 else inputs[0], found if len(found) > 1 else found[0]
    )


@pytest.mark.parametrize(
    ("arrays", "inputs", "targets", "unused"),
    [
        pytest.param({"image": X}, ("image",), (), (), id="input's name"),
        pytest.param({"x": X, "y": Y}, ("x",), ("y",), (), id="x and y"),
        pytest.param({"features": X, "y": Y}, ("features",), ("y",), (), id="only other array"),
        pytest.param({"": X}, ("",), (), (), id="npy file"),
        pytest.param({"image": X, "x": Y, "y": Y}, ("image",), ("y",), ("x",), id="name over x"),
        pytest.param({"x": X, "out": Y, "y": X}, ("x",), ("out",), ("y",), id="output's name"),
        pytest.param({"x": X, "label": Y}, ("x",), (), ("label",), id="unused array"),
    ],
)
def test_arrays_of_a_model_with_one_input(arrays, inputs, targets, unused):
    found = select_arrays(arrays, network("image"))
    assert (found.inputs, found.targets, found.unused) == (inputs, targets, unused)
    assert found.samples == 6


def test_targets_named_x_and_an_input_named_y_are_told_apart():
    found = select_arrays({"y": X, "x": Y}, network("y", outputs=("x",)))
    assert (found.inputs, found.targets) == (("y",), ("x",))


def test_arrays_are_given_in_the_structure_of_the_model():
    arrays = {"one": X, "two": X + 1, "a": Y, "b": Y + 1}
    found = select_arrays(arrays, network("one", "two", outputs=("a", "b")))
    assert [float(x.max()) for x in found.x] == [0, 1]
    assert [int(y.max()) for y in found.y] == [0, 1]
    by_key = select_arrays(arrays, network("one", "two", outputs=("c", "d"), as_dict=True))
    assert {key: int(y.max()) for key, y in by_key.y.items()} == {"a": 0, "b": 1}


def test_sequential_model_takes_x_and_y():
    found = select_arrays(
        {"x": X, "y": Y}, keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    )
    assert found.x is X
    assert found.y is Y


def test_values_that_are_not_finite_pass():
    assert select_arrays({"x": np.full((2, 3), np.nan)}, network("image")).samples == 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        pytest.param({"y": X}, "Received: arrays ['y']", id="targets only"),
        pytest.param({"a": X, "b": X}, "Received: arrays ['a', 'b']", id="no array for the input"),
        pytest.param({"x": X[:, :2]}, "Received: float32 of shape (6, 2)", id="size"),
        pytest.param({"x": X[0]}, "Received: float32 of shape (3,)", id="rank"),
        pytest.param({"x": X[:0]}, "Received: float32 of shape (0, 3)", id="no samples"),
        pytest.param({"x": X.astype(str)}, "Received: <U32 of shape (6, 3)", id="text"),
        pytest.param({"x": X.astype(complex)}, "Received: complex128", id="complex"),
        pytest.param({"x": X, "y": Y.astype(str)}, "Received: <U21 of shape (6,)", id="labels"),
        pytest.param({"x": X, "y": np.float32(1)}, "Received: float32 of shape ()", id="scalar"),
        pytest.param({"x": X, "y": Y[1:]}, "Received: 6 in 'x', 5 in 'y'", id="lengths"),
    ],
)
def test_unsuitable_arrays_are_refused(arrays, message):
    with pytest.raises(ExportError, match=re.escape(message)):
        select_arrays(arrays, network("image"))


def test_targets_for_some_outputs_are_refused():
    with pytest.raises(ExportError, match=re.escape("outputs ['a', 'b'], or for none")):
        select_arrays({"x": X, "a": Y}, network("x", outputs=("a", "b")))


def test_missing_input_is_refused():
    with pytest.raises(ExportError, match=re.escape("each of the inputs ['one', 'two']. Received")):
        select_arrays({"one": X, "x": X}, network("one", "two"))


def test_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    model = Subclassed()
    model(X)
    with pytest.raises(ExportError, match="which is subclassed"):
        select_arrays({"x": X}, model)


def test_batch_size_is_what_was_asked_for_or_what_the_model_fixes():
    assert batch_size_for(network("x"), 6, None) == 32
    assert batch_size_for(network("x"), 6, 4) == 4
    assert batch_size_for(network("x", batch_size=3), 6, None) == 3
    with pytest.raises(ExportError, match=re.escape("must be 3, which the model fixes")):
        batch_size_for(network("x", batch_size=3), 6, 2)
    with pytest.raises(ExportError, match=re.escape("Received: 7 samples. Leave out 1 of them")):
        batch_size_for(network("x", batch_size=3), 7, 3)
