import logging
import re

import keras
import numpy as np
import pytest
import tensorflow as tf
from graphs import operators, run_onnxruntime
from tolerances import assert_close

from keras_bn import BatchNormalization
from keras_bn.export import ExportError
from keras_bn.export.constants import evaluate_constants
from keras_bn.export.trace import OPSET, trace


def test_weights_are_initializers_named_by_keras_path(small_model):
    graph = trace(small_model).graph
    assert set(graph.initializers) >= {variable.path for variable in small_model.variables}
    for variable in small_model.variables:
        tensor = graph.initializers[variable.path].const_value
        np.testing.assert_array_equal(tensor.numpy(), variable.numpy())


def test_inputs_and_outputs_are_those_of_keras(small_model):
    graph = trace(small_model).graph
    assert [(v.name, str(v.shape)) for v in graph.inputs] == [("image", "[batch,6,6,3]")]
    assert [(v.name, str(v.shape)) for v in graph.outputs] == [("dense_bn", "[batch,5]")]
    assert graph.opset_imports[""] == OPSET


def test_graph_computes_what_keras_computes(small_model, rng):
    x = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)
    assert_close(run_onnxruntime(trace(small_model), image=x)[0], small_model(x, training=False))


def test_stock_batch_norm_needs_only_weights_besides_its_input(randomised, rng):
    model = randomised(
        keras.Sequential([keras.Input((4, 4, 3), name="x"), keras.layers.BatchNormalization()])
    )
    traced = evaluate_constants(trace(model))
    assert sorted(operators(traced))[:2] == ["Add", "Identity"]
    x = rng.normal(size=(2, 4, 4, 3)).astype(np.float32)
    assert_close(run_onnxruntime(traced, x=x)[0], model(x))


def test_several_inputs_and_outputs_keep_names_and_order(rng):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    total = keras.layers.Add(name="total")([a, b])
    difference = keras.layers.Subtract(name="difference")([a, b])
    model = keras.Model({"b": b, "a": a}, [difference, total])
    graph = trace(model)
    assert sorted(value.name for value in graph.graph.inputs) == ["a", "b"]
    assert [value.name for value in graph.graph.outputs] == ["difference", "total"]
    x, y = rng.normal(size=(2, 4, 3)).astype(np.float32)
    assert_close(run_onnxruntime(graph, a=x, b=y)[0], x - y)


def test_captured_tensor_becomes_an_initializer_not_an_input(rng):
    normalization = keras.layers.Normalization(name="standardise")
    normalization.adapt(rng.normal(3.0, 2.0, (50, 4)))
    model = keras.Sequential([keras.Input((4,), name="x"), normalization])
    traced = trace(model)
    assert [value.name for value in traced.graph.inputs] == ["x"]
    x = rng.normal(size=(5, 4)).astype(np.float32)
    assert_close(run_onnxruntime(traced, x=x)[0], model(x))


def test_tracing_leaves_the_model_as_it_was(small_model, rng):
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    weights, output = small_model.get_weights(), small_model(x, training=False).numpy()
    trace(small_model)
    for before, after in zip(weights, small_model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(small_model(x, training=False), output)


def test_model_that_was_never_built_is_refused():
    model = keras.Sequential([keras.layers.Dense(3)], name="unbuilt")
    with pytest.raises(
        ExportError, match=re.escape("Received: model 'unbuilt', which is never built")
    ):
        trace(model)


def test_subclassed_model_is_refused():
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    model = Subclassed(name="mine")
    model(np.zeros((1, 3), np.float32))
    with pytest.raises(ExportError, match=re.escape("Received: model 'mine', which is subclassed")):
        trace(model)


def test_something_else_than_a_model_is_refused():
    with pytest.raises(ExportError, match="Received: model=3 of type int"):
        trace(3)


def test_operator_without_an_onnx_equivalent_is_named():
    class Cholesky(keras.layers.Layer):
        def call(self, x):
            return keras.ops.cholesky(x)

    x = keras.Input((3, 3))
    model = keras.Model(x, Cholesky()(x), name="linear_algebra")
    with pytest.raises(ExportError, match=r"Received: model 'linear_algebra'.*Cholesky"):
        trace(model)


def test_layer_that_tensorflow_cannot_trace_is_one_error():
    class Broken(keras.layers.Layer):
        def compute_output_shape(self, shape):
            return shape

        def call(self, x):
            if tf.compat.v1.get_default_graph().name != "scratch_graph" and not isinstance(
                x, keras.KerasTensor
            ):
                raise KeyError("two\nlines")
            return x

    x = keras.Input((3,))
    model = keras.Model(x, Broken()(x), name="broken")
    with pytest.raises(ExportError, match="Received: model 'broken': TensorFlow cannot trace it"):
        trace(model)


def test_bfloat16_is_refused():
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, dtype="mixed_bfloat16")(x))
    with pytest.raises(ExportError, match="it computes in bfloat16"):
        trace(model)


def test_conversion_leaves_no_log_handler_behind(small_model):
    before = list(logging.getLogger().handlers)
    trace(small_model)
    assert logging.getLogger().handlers == before


def test_layer_in_a_nested_model_keeps_its_path(rng):
    inner_input = keras.Input((3,))
    inner = keras.Model(inner_input, BatchNormalization(name="bn")(inner_input), name="inner")
    outer_input = keras.Input((3,), name="x")
    model = keras.Model(outer_input, keras.layers.Dense(2, name="dense")(inner(outer_input)))
    names = set(trace(model).graph.initializers)
    assert {variable.path for variable in model.variables} <= names
