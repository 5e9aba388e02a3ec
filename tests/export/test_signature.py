import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_bn.export import ExportError
from keras_bn.export.signature import output_names, signature_of

SPEC = keras.InputSpec(shape=(None, 3), dtype="float32")


class Two(keras.Model):
    def call(self, first, second=None):
        return first if second is None else first + second


class Inside(keras.Model):
    def call(self, inputs):
        return inputs["b"] + inputs["a"]


def described(signature):
    return [(s.name, tuple(s.shape), s.dtype.name) for s in signature.specs]


def test_functional_model_knows_its_inputs():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b", dtype="int32")
    model = keras.Model({"b": b, "a": a}, a)
    assert described(signature_of(model)) == [
        ("a", (None, 3), "float32"),
        ("b", (None, 3), "int32"),
    ]


def test_sequential_model_built_by_a_call_has_a_free_batch():
    model = keras.Sequential([keras.layers.Dense(2)])
    model(np.zeros((5, 3), np.float32))
    assert signature_of(model).specs[0].shape.as_list() == [None, 3]


def test_fixed_batch_of_a_functional_model_is_kept():
    x = keras.Input(batch_shape=(4, 3))
    assert signature_of(keras.Model(x, x)).specs[0].shape.as_list() == [4, 3]


def test_subclassed_models_are_named_by_argument_and_key():
    assert [n for n, _, _ in described(signature_of(Two(), [SPEC, SPEC]))] == ["first", "second"]
    model = Inside()
    model({"b": np.zeros((5, 3), np.float32), "a": np.zeros((5, 3), np.float32)})
    assert [name for name, _, _ in described(signature_of(model))] == ["a", "b"]


@pytest.mark.parametrize(
    "leaf",
    [
        SPEC,
        tf.TensorSpec((None, 3), tf.float32),
        keras.KerasTensor((None, 3), "float32", name="first"),
        np.zeros((7, 3), np.float32),
        tf.zeros((7, 3)),
    ],
    ids=["InputSpec", "TensorSpec", "KerasTensor", "array", "tensor"],
)
def test_given_signature_takes_every_kind_of_leaf(leaf):
    for signature in (signature_of(Two(), [leaf]), signature_of(Two(), leaf)):
        assert described(signature) == [("first", (None, 3), "float32")]


def test_given_signature_builds_a_model_that_was_never_called():
    model = keras.Sequential([keras.layers.Dense(2)])
    signature_of(model, [SPEC])
    assert model.built


def test_functional_model_keeps_the_names_of_its_inputs():
    inputs = [keras.Input((3,), name="left"), keras.Input((3,), name="right")]
    model = keras.Model(inputs, keras.layers.Add()(inputs))
    spec = keras.InputSpec(shape=(None, 3), dtype="float32")
    own = described(signature_of(model))
    assert described(signature_of(model, [[spec, spec]])) == own
    assert [name for name, _, _ in own] == ["left", "right"]


def test_keys_of_a_signature_name_the_inputs_whatever_order_the_model_has():
    inputs = [keras.Input((3,), name="z"), keras.Input((2,), name="a")]
    model = keras.Model(inputs, keras.layers.Concatenate()(inputs))
    specs = {
        name: keras.InputSpec(shape=(None, n), dtype="float32") for name, n in (("z", 3), ("a", 2))
    }
    found = signature_of(model, [specs]).arguments[0]
    assert {key: (spec.name, spec.shape[1]) for key, spec in found.items()} == {
        "a": ("a", 2),
        "z": ("z", 3),
    }


def test_names_in_the_signature_count():
    spec = keras.InputSpec(shape=(None, 3), dtype="float32", name="mine")
    assert [n for n, _, _ in described(signature_of(Two(), [spec, spec]))] == ["mine", "mine_1"]


@pytest.mark.parametrize("leaf", [3, "x", keras.InputSpec(ndim=2), tf.TensorSpec(None, tf.float32)])
def test_leaf_without_shape_or_dtype_is_refused(leaf):
    with pytest.raises(ExportError, match=re.escape("must have leaves with a shape and a dtype")):
        signature_of(Two(), [leaf])


def test_empty_signature_is_refused():
    with pytest.raises(ExportError, match=re.escape("Received: input_signature=[]")):
        signature_of(Two(), [])


def test_signature_that_does_not_fit_is_refused():
    model = keras.Sequential([keras.layers.Conv2D(2, 3)], name="image")
    with pytest.raises(ExportError, match=r"Received: \[\(None, 3\)\] for model 'image'"):
        signature_of(model, [SPEC])


@pytest.mark.parametrize("model", [Two(name="net"), keras.Sequential(name="net")])
def test_model_that_was_never_called_is_refused(model):
    with pytest.raises(ExportError, match="Received: model 'net', which was never called"):
        signature_of(model)


def test_model_that_needs_several_arguments_is_refused_without_a_signature():
    class Needs(keras.Model):
        def call(self, first, second, training=False):
            return first + second

    model = Needs(name="net")
    model(np.zeros((5, 3), np.float32), np.zeros((5, 3), np.float32))
    with pytest.raises(ExportError, match=r"model 'net', whose call needs \['first', 'second'\]"):
        signature_of(model)


def test_something_else_than_a_model_is_refused():
    with pytest.raises(ExportError, match="Received: model=3 of type int"):
        signature_of(3)


def test_outputs_of_a_dict_are_named_by_their_keys():
    x = keras.Input((3,), name="x")
    layer = keras.layers.ReLU(name="r")
    assert output_names(keras.Model(x, {"z": layer(x), "a": x}), ["x"]) == ["a", "z"]
    assert output_names(keras.Model(x, [layer(x)]), ["x"]) == ["r"]
    assert output_names(Two(), ["x"], {"b": x, "a": x}) == ["a", "b"]
    assert output_names(Two(), ["x"], (x, x)) == ["output_0", "output_1"]


def test_output_that_is_called_like_an_input_is_numbered():
    x = keras.Input((3,), name="x")
    assert output_names(keras.Model(x, x), ["x"]) == ["output_0"]
