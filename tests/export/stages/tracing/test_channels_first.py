"""Convolutions with the channels first, exported: one operator, batch norm and bias folded in."""

import keras
import onnx
import pytest

from keras_bn import BatchNormalization
from keras_bn.export import export_onnx

layers = keras.layers
SPACES = {1: (9,), 2: (8, 9), 3: (4, 6, 7)}
KINDS = [
    *((f"Conv{n}D", n, {}) for n in SPACES),
    *((f"Conv{n}D", n, {"groups": 2, "padding": "same"}) for n in SPACES),
    *((f"Conv{n}DTranspose", n, {"strides": 2, "padding": "same"}) for n in SPACES),
    *((f"Conv{n}DTranspose", n, {"dilation_rate": 2, "padding": "same"}) for n in SPACES),
    *((f"DepthwiseConv{n}D", n, {"strides": 2, "padding": "same"}) for n in (1, 2)),
    *((f"SeparableConv{n}D", n, {}) for n in (1, 2)),
]


def exported(layer, shape, randomised, path, *, axis=1):
    """Export a layer and a batch norm; return the report and the file's operators."""
    x = keras.Input(shape, name="x")
    report = export_onnx(randomised(keras.Model(x, BatchNormalization(axis=axis)(layer(x)))), path)
    assert report.parity.passed
    return report, [node.op_type for node in onnx.load(path).graph.node]


@pytest.mark.parametrize("free", [False, True], ids=["", "any width"])
@pytest.mark.parametrize(
    "case", [pytest.param(c, id=" ".join([c[0], *c[2]])) for c in KINDS], ids=str
)
def test_convolution_is_one_operator(case, free, randomised, tmp_path):
    name, n, options = case
    arguments = (3,) if name.startswith("Depthwise") else (10, 3)
    layer = getattr(layers, name)(*arguments, data_format="channels_first", **options)
    shape = (4, *SPACES[n][:-1], None if free else SPACES[n][-1])
    _, operators = exported(layer, shape, randomised, tmp_path / "m.onnx")
    separable = name.startswith("Separable")
    assert operators == ["ConvTranspose" if "Transpose" in name else "Conv"] * (1 + separable)


@pytest.mark.parametrize(
    ("name", "filters", "shape"),
    [
        ("Conv1D", 7, (4, 9)),
        ("Conv2D", 7, (4, 8, 9)),
        ("Conv2DTranspose", 11, (4, 8, 9)),
        ("Conv3D", 5, (4, 6, 9, 7)),
    ],
)
def test_bias_along_the_last_axis_is_what_keras_adds(name, filters, shape, randomised, tmp_path):
    layer = getattr(layers, name)(filters, 3, data_format="channels_first")
    report, operators = exported(layer, shape, randomised, tmp_path / "m.onnx")
    assert "Add" in operators
    assert [refusal.operator for refusal in report.fold.refusals] == ["Add"]


def test_grouped_convolution_in_three_dimensions_with_the_channels_last(randomised, tmp_path):
    layer = layers.Conv3D(6, 3, groups=2)
    _, operators = exported(layer, (5, 6, 7, 4), randomised, tmp_path / "m.onnx", axis=-1)
    assert operators == ["Transpose", "Conv", "Transpose"]
