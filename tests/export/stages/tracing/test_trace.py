import logging
import re

import keras
import numpy as np
import onnx_ir as ir
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.export import ExportError
from keras_bn.export.graph.layer_names import name_after_layers
from keras_bn.export.stages.constants.evaluate import evaluate_constants
from keras_bn.export.stages.tracing.trace import DEFAULT_OPSET, OPSETS, trace
from tests.export.graphs import operators, run_onnxruntime
from tests.tolerances import assert_close


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
    assert graph.opset_imports[""] == DEFAULT_OPSET


def test_graph_computes_what_keras_computes(small_model, rng):
    x = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)
    assert_close(run_onnxruntime(trace(small_model), image=x)[0], small_model(x, training=False))


@pytest.mark.parametrize("layer", [keras.layers.BatchNormalization, BatchNormalization])
def test_batch_norm_is_one_operator_between_transposes(layer, randomised, rng):
    model = randomised(keras.Sequential([keras.Input((4, 4, 3), name="x"), layer()]))
    traced = evaluate_constants(trace(model))
    kinds = [kind for kind in operators(traced) if kind != "Identity"]
    assert kinds == ["Transpose", "BatchNormalization", "Transpose"]
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


def test_strings_are_refused():
    words = keras.Input((), dtype="string", name="words")
    lookup = keras.layers.TextVectorization(10, output_sequence_length=4, vocabulary=["a", "b"])
    with pytest.raises(ExportError, match=re.escape("Received: 'words', of strings")):
        trace(keras.Model(words, lookup(words)))


def test_tracing_leaves_the_model_as_it_was(small_model, rng):
    x = rng.normal(size=(2, 6, 6, 3)).astype(np.float32)
    weights, output = small_model.get_weights(), small_model(x, training=False).numpy()
    trace(small_model)
    for before, after in zip(weights, small_model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    np.testing.assert_array_equal(small_model(x, training=False), output)


@pytest.mark.parametrize("opset", OPSETS)
def test_every_opset_computes_the_same(small_model, rng, opset):
    traced = trace(small_model, opset=opset)
    assert traced.graph.opset_imports[""] == opset
    x = rng.normal(size=(3, 6, 6, 3)).astype(np.float32)
    assert_close(run_onnxruntime(traced, image=x)[0], small_model(x, training=False))


@pytest.mark.parametrize("opset", [12, 19, None, "18"])
def test_other_opset_is_refused(small_model, opset):
    with pytest.raises(ExportError, match=re.escape(f"Received: opset={opset!r}")):
        trace(small_model, opset=opset)


def test_nodes_are_named_after_keras_layers(small_model):
    graph = evaluate_constants(trace(small_model)).graph
    name_after_layers(graph)
    names = {node.name for node in graph}
    assert {"re_lu", "global_average_pooling2d", "conv/Conv", "dense/MatMul", "dense/Add"} <= names
    values = [v for node in trace(small_model).graph for v in node.outputs]
    assert not [value.name for value in values if value.name.endswith(":0")]


def test_same_model_gives_the_same_graph_twice(small_model):
    graphs = [ir.to_proto(trace(small_model)).SerializeToString(deterministic=True) for _ in "ab"]
    assert graphs[0] == graphs[1]


def test_layers_of_one_name_in_nested_models_keep_their_paths(rng):
    def inner(name):
        x = keras.Input((3,))
        return keras.Model(x, keras.layers.Dense(3, name="dense")(x), name=name)

    x = keras.Input((3,), name="x")
    model = keras.Model(x, inner("b_1")(inner("b")(x)))
    nodes = {node.name for node in trace(model).graph if node.op_type == "MatMul"}
    assert nodes == {"b/dense/MatMul", "b_1/dense/MatMul"}


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(4, name="dense")
        self.norm = BatchNormalization(name="norm")

    def call(self, x):
        return {"features": x, "scores": self.norm(self.dense(x))}


def test_subclassed_model_that_was_called(rng):
    model = Subclassed(name="mine")
    x = rng.normal(size=(2, 3)).astype(np.float32)
    expected = model(x)["scores"]
    traced = trace(model)
    assert [(v.name, str(v.shape)) for v in traced.graph.inputs] == [("x", "[batch,3]")]
    assert [v.name for v in traced.graph.outputs] == ["features", "scores"]
    assert "mine/dense/kernel" in traced.graph.initializers
    assert_close(run_onnxruntime(traced, x=x)[1], expected)


def test_model_that_was_never_called_with_a_signature():
    model = Subclassed(name="mine")
    traced = trace(model, input_signature=[keras.InputSpec(shape=(None, 3), dtype="float32")])
    assert [(v.name, str(v.shape)) for v in traced.graph.inputs] == [("x", "[batch,3]")]


def test_something_else_than_a_model_is_refused():
    with pytest.raises(ExportError, match="Received: model=3 of type int"):
        trace(3)


def test_operator_without_an_onnx_equivalent_is_named_with_its_layer():
    class Cholesky(keras.layers.Layer):
        def call(self, x):
            return keras.ops.cholesky(x)

    x = keras.Input((3, 3))
    model = keras.Model(x, Cholesky(name="decompose")(x), name="linear_algebra")
    with pytest.raises(
        ExportError,
        match=r"Received: model 'linear_algebra'.*TensorFlow's Cholesky in layer 'decompose'",
    ):
        trace(model)


def test_python_function_is_refused_with_its_layer():
    class Foreign(keras.layers.Layer):
        def call(self, x):
            return tf.ensure_shape(tf.numpy_function(np.sort, [x], tf.float32), x.shape)

    x = keras.Input((3,))
    model = keras.Model(x, Foreign(name="sorted")(x))
    with pytest.raises(ExportError, match="PyFunc in layer 'sorted'"):
        trace(model)


def test_grouped_convolution_and_functions_are_inlined(rng):
    class Function(keras.layers.Layer):
        @tf.function
        def call(self, x):
            return tf.nn.relu(x) * 2.0

    x = keras.Input((6, 6, 4), name="x")
    model = keras.Model(x, Function()(keras.layers.Conv2D(6, 3, groups=2)(x)))
    traced = trace(model)
    assert "Conv" in operators(traced)
    data = rng.normal(size=(2, 6, 6, 4)).astype(np.float32)
    assert_close(run_onnxruntime(traced, x=data)[0], model(data))


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
    with pytest.raises(ExportError, match=r"trace the model as a graph.*'broken': KeyError"):
        trace(model)


def test_bfloat16_is_refused():
    x = keras.Input((3,))
    model = keras.Model(x, keras.layers.Dense(2, dtype="mixed_bfloat16")(x))
    with pytest.raises(ExportError, match="a model that computes in bfloat16"):
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
