"""Parts of a file that no sample shows are compared with a fresh export."""

import operator

import keras
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from keras_bn.export import check_parity, export_onnx
from tests.export.onnx_edits import change_weight


@pytest.fixture
def clipped(tmp_path):
    """A model in which only values between 1 and 5 reach the activations, and its file."""
    image = keras.Input((None, None, 3), name="image")
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    x = keras.layers.ReLU(6.0, name="bounded")(x)
    x = keras.layers.LeakyReLU(name="leaky")(x)
    model = keras.Model(image, keras.layers.Dense(2, name="dense")(x))
    model.get_layer("conv").kernel.assign(np.full((3, 3, 3, 4), 1e-3))
    model.get_layer("conv").bias.assign(np.full(4, 3.0))
    export_onnx(model, tmp_path / "model.onnx")
    return model, tmp_path / "model.onnx"


def other_slope(graph):
    node(graph, "leaky").attribute[0].f = 0.5


def other_bound(graph):
    graph.initializer.append(numpy_helper.from_array(np.float32(-1.0), "another"))
    node(graph, "bounded").input[1] = "another"


def no_slope(graph):
    node(graph, "leaky").ClearField("attribute")


def no_bound(graph):
    node(graph, "bounded").input[2] = ""


def no_activation(graph):
    node(graph, "leaky").op_type = "Identity"
    del node(graph, "leaky").attribute[:]


def node(graph, name):
    return next(node for node in graph.node if node.name == name)


@pytest.mark.parametrize(
    ("change", "layer", "expected"),
    [
        (other_slope, "leaky", "attribute 'alpha' of operator 'leaky' differs from that"),
        (other_bound, "bounded", "weight 'another' differs by 1.0e+00 of its scale from that"),
        (no_slope, "leaky", "attribute 'alpha' of operator 'leaky' differs from that"),
        (no_bound, "bounded", "operator 'bounded' has more or fewer inputs than that"),
        (no_activation, "leaky", "operator 'leaky' is Identity instead of the LeakyRelu"),
    ],
)
def test_part_that_no_sample_reaches_is_found(clipped, change, layer, expected):
    model, path = clipped
    assert check_parity(model, path).passed
    proto = onnx.load(path)
    change(proto.graph)
    onnx.save(proto, path)
    report = check_parity(model, path)
    assert all(row.passed for row in report.outputs)
    assert not report.passed
    assert (report.fault.stage, report.fault.layers) == ("file", (layer,))
    assert f"{expected} of the fresh export" in report.fault.detail


def test_file_with_other_options_is_compared_by_its_weights_alone(clipped):
    model, path = clipped
    fixed = [keras.InputSpec(shape=(None, 6, 6, 3), dtype="float32")]
    export_onnx(model, path, input_signature=fixed)
    proto = onnx.load(path)
    other_slope(proto.graph)
    onnx.save(proto, path)
    assert check_parity(model, path, inputs=np.ones((2, 6, 6, 3), np.float32)).passed
    assert not check_parity(model, path, input_signature=fixed).passed


def test_integer_weight_that_meets_only_zeros_is_found(tmp_path):
    x = keras.Input((4,), name="x")
    y = keras.layers.Dense(
        4, activation="relu", bias_initializer=keras.initializers.Constant(-1e3)
    )(x)
    model, path = keras.Model(x, keras.layers.Dense(2, name="int8")(y)), tmp_path / "model.onnx"
    model.get_layer("int8").quantize("int8")
    export_onnx(model, path)
    assert check_parity(model, path).passed
    change_weight(path, "int8/kernel", operator.neg)
    report = check_parity(model, path)
    assert all(row.passed for row in report.outputs)
    assert (report.fault.stage, report.fault.layers) == ("file", ("int8",))
