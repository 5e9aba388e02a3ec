"""Whole networks, exported and proven: those of this package, and every family of Keras's own."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

import keras_bn
from keras_bn.export import export_onnx
from tests.export.leftovers import OWN, build, documented, left, trained
from tests.networks import APPLICATIONS
from tests.tolerances import assert_close

# A recurrent layer wants time first, and gives it first.
MORE_TRANSPOSES = {"crnn": 2}


def samples(model, count, rng):
    """Draw an array for each input, unknown sizes 32."""
    shapes = {tensor.name: [count, *(n or 32 for n in tensor.shape[1:])] for tensor in model.inputs}
    return {name: rng.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def assert_agrees(model, path, rng):
    """Compare at 1e-4 of the output's scale, batches of 1 and 3, with optimisations and without."""
    for level in ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL"):
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        assert {value.name for value in session.get_inputs()} == {v.name for v in model.inputs}
        for count in (1, 3):
            feed = samples(model, count, rng)
            tensors = keras.tree.pack_sequence_as(
                model.input, [feed[tensor.name] for tensor in keras.tree.flatten(model.input)]
            )
            expected = keras.tree.flatten(model(tensors, training=False))
            for actual, wanted in zip(session.run(None, feed), expected, strict=True):
                assert_close(actual, wanted, 1e-4)


def assert_clean(model, path):
    """Assert that nothing is in the graph that does nothing."""
    graph = onnx.load(path).graph
    kinds = [node.op_type for node in graph.node]
    assert not {"Identity", "Dropout", "Shape", "Cast"} & set(kinds)
    ends = [t for t in (*model.inputs, *keras.tree.flatten(model.output)) if len(t.shape) > 2]
    assert kinds.count("Transpose") <= len(ends) + MORE_TRANSPOSES.get(model.name, 0)
    read = {name for node in graph.node for name in node.input}
    assert {tensor.name for tensor in graph.initializer} <= read


OLD_AND_FAST = ("crnn", "unet")  # every kind of layer meets opset 13 in test_layers.py as well


def check(name, opset, rng, path):
    """Assert that a model's file agrees, and keeps nothing but what docs/folding.md says."""
    model = trained(build(name), rng)
    report = export_onnx(model, path, opset=opset)
    assert report.parity.passed
    if opset == 18:
        assert left(report.fold) == documented()[name]
    assert_agrees(model, path, rng)
    assert_clean(model, path)


@pytest.mark.parametrize(
    ("name", "opset"),
    [
        *((name, 18) for name in OWN),
        *(
            pytest.param(name, 13, marks=() if name in OLD_AND_FAST else pytest.mark.slow)
            for name in OWN
        ),
    ],
)
def test_own_model(name, opset, rng, tmp_path):
    check(name, opset, rng, tmp_path / "model.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("opset", [13, 18])
@pytest.mark.parametrize("name", APPLICATIONS)
def test_family_of_keras_applications(name, opset, rng, tmp_path):
    check(name, opset, rng, tmp_path / "model.onnx")


@pytest.mark.parametrize("name", ["MobileNetV2", "ResNet50V2"])
def test_stock_batch_norm_gives_the_graph_of_ours(name, rng, tmp_path):
    model = trained(getattr(keras.applications, name)(weights=None, input_shape=(32, 32, 3)), rng)
    graphs = []
    for _ in range(2):
        export_onnx(model, tmp_path / "model.onnx", check=False)
        graphs.append(onnx.load(tmp_path / "model.onnx").graph)
        keras_bn.use_fused_batch_norm(model)
    stock, ours = graphs
    assert [node.op_type for node in stock.node] == [node.op_type for node in ours.node]
    for a, b in zip(stock.initializer, ours.initializer, strict=True):
        assert_close(onnx.numpy_helper.to_array(a), onnx.numpy_helper.to_array(b), 1e-6)
