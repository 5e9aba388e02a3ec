"""A float64 model, which ONNX Runtime has few kernels for, exported in float32."""

import keras
import onnx
import pytest

from keras_bn import BatchNormalization
from keras_bn.export import ExportError, check_parity, export_onnx

layers = keras.layers
DOUBLE = {"dtype": "float64"}
FLOAT = onnx.TensorProto.FLOAT


def double_model(randomised):
    x = keras.Input((8, 8, 3), name="x", dtype="float64")
    y = layers.ReLU(**DOUBLE)(BatchNormalization(**DOUBLE)(layers.Conv2D(4, 3, **DOUBLE)(x)))
    return randomised(keras.Model(x, layers.Dense(2, **DOUBLE)(layers.Flatten(**DOUBLE)(y))))


def test_float64_model_narrows(randomised, tmp_path):
    model, path = double_model(randomised), tmp_path / "model.onnx"
    report = export_onnx(model, path, precision="float32")
    assert report.parity.passed
    assert report.fold.folds[0].operator == "BatchNormalization"
    graph = onnx.load(path).graph
    kinds = {value.type.tensor_type.elem_type for value in (*graph.input, *graph.output)}
    assert kinds | {tensor.data_type for tensor in graph.initializer if tensor.dims} <= {FLOAT, 7}
    assert check_parity(model, path, precision="float32").passed


def test_float64_layer_in_a_float32_model(randomised, tmp_path):
    x = keras.Input((8, 8, 3), name="x")
    model = randomised(keras.Model(x, layers.BatchNormalization(**DOUBLE)(layers.Conv2D(4, 3)(x))))
    assert export_onnx(model, tmp_path / "model.onnx", precision="float32").parity.passed


def test_float64_recurrent_layer(randomised, tmp_path):
    x = keras.Input((5, 3), name="x", dtype="float64")
    model = randomised(keras.Model(x, layers.LSTM(4, **DOUBLE)(x)))
    assert export_onnx(model, tmp_path / "model.onnx", precision="float32").parity.passed


@pytest.mark.parametrize(("precision", "advice"), [("keep", "float32"), ("float16", "'float32'")])
def test_other_precisions_point_to_float32(precision, advice, randomised, tmp_path):
    with pytest.raises(ExportError, match=advice):
        export_onnx(double_model(randomised), tmp_path / "model.onnx", precision=precision)
