import re

import keras
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from graphs import graph

from keras_bn import BatchNormalization
from keras_bn.export import ExportError, check_parity, export_onnx
from keras_bn.export.parity import DRAWN_BATCHES


@pytest.fixture
def exported(small_model, tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(small_model, path)
    return path


def edit(path, name, change):
    """Change one initializer of a file."""
    proto = onnx.load(path)
    for tensor in proto.graph.initializer:
        if tensor.name == name:
            array = change(onnx.numpy_helper.to_array(tensor).copy())
            tensor.CopyFrom(onnx.numpy_helper.from_array(array, name))
            break
    else:
        raise AssertionError(f"no initializer {name}")
    onnx.save(proto, path)


def test_honest_export_agrees(small_model, exported):
    report = check_parity(small_model, exported)
    assert report.passed
    assert report.reference == "float64"
    assert report.samples == sum(DRAWN_BATCHES)
    assert 0.0 < report.outputs[0].onnx_max_error < report.outputs[0].tolerance


@pytest.mark.parametrize("seed", range(20))
def test_honest_exports_raise_no_alarm(seed, tmp_path):
    rng = np.random.default_rng(seed)
    x = keras.Input((8, 8, 2), name="x")
    y = x
    for _ in range(rng.integers(1, 6)):
        y = keras.layers.Conv2D(int(rng.integers(1, 9)), 3, padding="same")(y)
        y = BatchNormalization()(y)
        y = keras.layers.Activation(str(rng.choice(["relu", "tanh", "linear"])))(y)
    model = keras.Model(x, keras.layers.Flatten()(y))
    for variable in model.variables:
        values = rng.normal(size=variable.shape)
        variable.assign(np.exp(3 * values) if "variance" in variable.path else values)
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


@pytest.mark.parametrize("name", ["conv/kernel", "conv/bias", "depthwise/kernel", "dense/bias"])
def test_weight_off_by_a_thousandth_is_found(small_model, exported, name):
    def change(array):
        array.reshape(-1)[0] += 1e-3 * np.abs(array).max()
        return array

    edit(exported, name, change)
    assert not check_parity(small_model, exported).passed


def test_wrong_epsilon_is_found(small_model, exported):
    small_model.get_layer("conv_bn").epsilon = 1e-2
    assert not check_parity(small_model, exported).passed


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_output_that_is_not_finite_is_found(small_model, exported, value):
    edit(exported, "dense/bias", lambda array: np.full_like(array, value))
    report = check_parity(small_model, exported)
    assert not report.passed
    assert report.outputs[0].onnx_max_error == np.inf


def test_truth_that_is_not_finite_must_be_matched(small_model, tmp_path):
    small_model.get_layer("dense_bn").beta.assign(np.full(5, np.nan))
    report = export_onnx(small_model, tmp_path / "model.onnx", check=True)
    assert report.parity.passed


def test_output_of_another_shape_is_found(small_model, exported):
    proto = onnx.load(exported)
    proto.graph.node.append(onnx.helper.make_node("Identity", ["image"], ["twice"]))
    proto.graph.output[0].CopyFrom(
        onnx.helper.make_tensor_value_info("twice", onnx.TensorProto.FLOAT, None)
    )
    onnx.save(proto, exported)
    assert not check_parity(small_model, exported).passed


def test_given_samples_are_compared(small_model, exported, rng):
    x = rng.normal(size=(70, 6, 6, 3))
    assert check_parity(small_model, exported, inputs=x).samples == 70
    assert check_parity(small_model, exported, inputs={"image": x, "label": x}).samples == 70


@pytest.mark.parametrize(
    ("inputs", "received"),
    [
        ({"picture": np.zeros((1, 6, 6, 3))}, "Received: arrays ['picture']"),
        (np.zeros((1, 5, 5, 3)), "float64 of shape (1, 5, 5, 3)"),
        (np.zeros((0, 6, 6, 3)), "float64 of shape (0, 6, 6, 3)"),
        (np.zeros(()), "float64 of shape ()"),
        (np.full((1, 6, 6, 3), "a"), "<U1 of shape (1, 6, 6, 3)"),
    ],
)
def test_samples_that_do_not_fit_are_refused(small_model, exported, inputs, received):
    with pytest.raises(ExportError, match=re.escape(received)):
        check_parity(small_model, exported, inputs=inputs)


def test_inputs_of_different_length_are_refused(tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    model = keras.Model([a, b], keras.layers.Add()([a, b]))
    export_onnx(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="as many as those of the other inputs"):
        check_parity(
            model, tmp_path / "model.onnx", inputs={"a": np.zeros((2, 3)), "b": np.zeros((3, 3))}
        )


def test_file_of_another_model_is_refused(small_model, tmp_path):
    other = graph("g (float[1] x) => (float[1] y) { y = Relu(x) }")
    ir.save(other, tmp_path / "other.onnx")
    with pytest.raises(ExportError, match=re.escape("Received: ['x']")):
        check_parity(small_model, tmp_path / "other.onnx")


def test_file_that_is_no_model_is_refused(small_model, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a protobuf")
    with pytest.raises(ExportError, match="must be a file that ONNX Runtime loads"):
        check_parity(small_model, tmp_path / "model.onnx")


def test_integer_inputs_and_unknown_dimensions_are_drawn(tmp_path):
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(5, 4)(tokens)
    model = keras.Model(tokens, BatchNormalization()(keras.layers.Dense(3)(x)))
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


def test_model_without_float64_copy_says_so(tmp_path):
    @keras.saving.register_keras_serializable("test")
    class Stubborn(keras.layers.Layer):
        def get_config(self):
            raise NotImplementedError("no config")

        def call(self, x):
            return x * 2.0

    x = keras.Input((3,), name="x")
    model = keras.Model(x, Stubborn()(x))
    report = export_onnx(model, tmp_path / "model.onnx").parity
    assert report.passed
    assert "no config" in report.reference
