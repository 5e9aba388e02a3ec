"""Dilated convolutions and PReLU: one operator each, with the batch norm behind folded into it."""

import collections

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf

from keras_bn import BatchNormalization
from keras_bn.export import export_onnx
from tests.tolerances import assert_close

layers = keras.layers

DILATED = {
    "Conv1D": (1, layers.Conv1D, (6, 3), {}),
    "Conv1D grouped": (1, layers.Conv1D, (6, 2), {"groups": 2}),
    "Conv2D": (2, layers.Conv2D, (5, (3, 4)), {}),
    "Conv2D grouped": (2, layers.Conv2D, (6, 3), {"groups": 2}),
    "Conv3D": (3, layers.Conv3D, (3, 2), {}),
    "DepthwiseConv1D": (1, layers.DepthwiseConv1D, (3,), {}),
    "DepthwiseConv2D": (2, layers.DepthwiseConv2D, (3,), {"depth_multiplier": 2}),
    "SeparableConv1D": (1, layers.SeparableConv1D, (5, 4), {}),
    "SeparableConv2D": (2, layers.SeparableConv2D, (5, 3), {"depth_multiplier": 2}),
}
CASES = [pytest.param(*case, id=name) for name, case in DILATED.items()]
SEPARATE = [case for case in CASES if case.id.startswith(("Depthwise", "Separable"))]


def exported(model, tmp_path, **options):
    """Return the operators of a proven file, counted."""
    report = export_onnx(model, tmp_path / "model.onnx", **options)
    assert report.parity.passed
    nodes = onnx.load(tmp_path / "model.onnx").graph.node
    return collections.Counter(node.op_type for node in nodes)


def normalised(shape, layer, **options):
    x = keras.Input(shape, name="x", **options)
    return keras.Model(x, BatchNormalization()(layer(x)))


def convolutions(layer):
    return 2 if "Separable" in layer.__name__ else 1


@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("rank", "layer", "arguments", "options"), CASES)
def test_dilated_convolution_of_any_size_is_one_conv(
    rank, layer, arguments, options, padding, randomised, tmp_path
):
    made = layer(*arguments, padding=padding, dilation_rate=(3, 2, 2)[:rank], **options)
    model = randomised(normalised((*[None] * rank, 4), made))
    assert exported(model, tmp_path) == {"Transpose": 2, "Conv": convolutions(layer)}


@pytest.mark.parametrize("size", [None, 13])
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize(("rank", "layer", "arguments", "options"), SEPARATE)
def test_dilated_convolution_with_strides_is_one_conv(
    rank, layer, arguments, options, padding, size, randomised, tmp_path
):
    made = layer(*arguments, padding=padding, dilation_rate=3, strides=2, **options)
    model = randomised(normalised((*[size] * rank, 4), made))
    found = exported(model, tmp_path)
    assert found["Conv"] == convolutions(layer)
    assert found["Slice"] == 0 or (size is None and padding == "same")
    assert found["BatchNormalization"] == 0


@pytest.mark.parametrize(
    ("kernel", "dilation", "stride", "computed"), [(3, 2, 2, 1), (3, 2, 3, 1), ((4, 2), 3, 2, 0)]
)
def test_padding_of_a_dilated_convolution_with_strides_follows_the_size(
    kernel, dilation, stride, computed, rng, randomised, tmp_path
):
    made = layers.DepthwiseConv2D(kernel, padding="same", dilation_rate=dilation, strides=stride)
    model = randomised(normalised((None, None, 4), made))
    assert exported(model, tmp_path)["Pad"] == computed
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for height in range(1, 10):
        x = rng.normal(size=(2, height, 12 - height, 4)).astype(np.float32)
        assert_close(session.run(None, {"x": x})[0], model(x).numpy())


def test_image_smaller_than_a_dilated_window(rng, randomised, tmp_path):
    made = layers.Conv2D(3, 5, padding="same", dilation_rate=4)
    model = randomised(normalised((None, None, 2), made))
    exported(model, tmp_path, inputs=rng.normal(size=(3, 2, 1, 2)).astype(np.float32))


def test_causal_convolution_of_any_length_is_one_conv(randomised, tmp_path):
    made = layers.Conv1D(3, 3, padding="causal", dilation_rate=4)
    assert exported(randomised(normalised((None, 4), made)), tmp_path)["Conv"] == 1


@pytest.mark.parametrize("fixed", [(None, 12), (12, None)])
def test_one_size_of_a_dilated_convolution_is_known(fixed, randomised, tmp_path):
    made = layers.Conv2D(3, 3, padding="same", dilation_rate=2)
    assert set(exported(randomised(normalised((*fixed, 4), made)), tmp_path)) == {
        "Transpose",
        "Conv",
    }


def test_dilated_convolution_that_a_subclass_writes_itself(rng, randomised, tmp_path):
    class Context(keras.Model):
        def __init__(self):
            super().__init__()
            self.inner = layers.Conv2D(4, 1)
            self.norm = BatchNormalization()
            self.filters = self.add_weight(shape=(3, 3, 4, 5), name="filters")

        def call(self, x):
            y = keras.ops.conv(self.inner(x), self.filters, padding="same", dilation_rate=2)
            return self.norm(y)

    model = Context()
    model(rng.normal(size=(2, 9, 8, 3)).astype(np.float32))
    spec = keras.InputSpec(shape=(None, None, None, 3), dtype="float32")
    found = exported(randomised(model), tmp_path, input_signature=[spec])
    assert found == {"Transpose": 2, "Conv": 2}


def test_shared_dilated_convolution_in_a_nested_model(randomised, tmp_path):
    inner = keras.Sequential([layers.Conv1D(4, 3, padding="same", dilation_rate=2)])
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, BatchNormalization()(inner(layers.ReLU()(inner(x)))))
    assert exported(randomised(model), tmp_path)["Conv"] == 2


@pytest.mark.parametrize("precision", ["keep", "float16"])
def test_half_precision(precision, randomised, tmp_path):
    policy = "mixed_float16" if precision == "keep" else "float32"
    made = layers.Conv2D(4, 3, padding="same", dilation_rate=2, dtype=policy)
    x = keras.Input((None, None, 4), name="x")
    y = layers.PReLU(shared_axes=[1, 2], dtype=policy)(BatchNormalization(dtype=policy)(made(x)))
    found = exported(randomised(keras.Model(x, y)), tmp_path, precision=precision)
    assert (found["Conv"], found["PRelu"], found["BatchNormalization"]) == (1, 1, 0)


def test_double_precision_has_no_kernel_for_prelu(randomised, tmp_path):
    x = keras.Input((4,), name="x", dtype="float64")
    y = layers.PReLU(dtype="float64")(layers.Dense(3, dtype="float64")(x))
    assert exported(randomised(keras.Model(x, y)), tmp_path)["PRelu"] == 0


def test_keras_convolves_as_before_once_traced(randomised, tmp_path):
    before = [getattr(keras.src.backend.nn, name) for name in ("conv", "separable_conv")]
    made = layers.Conv1D(3, 3, padding="same", dilation_rate=2)
    exported(randomised(normalised((None, 4), made)), tmp_path)
    assert [getattr(keras.src.backend.nn, name) for name in ("conv", "separable_conv")] == before


@pytest.mark.parametrize("shared", [None, 1, [2], [1, 2], [1, 2, 3], [3]])
def test_prelu_is_one_operator(shared, randomised, tmp_path):
    x = keras.Input((6, 7, 4), name="x")
    y = layers.PReLU(shared_axes=shared)(BatchNormalization()(layers.Conv2D(3, 3)(x)))
    found = exported(randomised(keras.Model(x, y)), tmp_path)
    assert found == {"Transpose": 2, "Conv": 1, "PRelu": 1}


@pytest.mark.parametrize("rank", [0, 1, 2, 3])
def test_prelu_of_every_rank(rank, randomised, tmp_path):
    x = keras.Input((*[5] * rank, 4), name="x")
    layer = layers.PReLU(shared_axes=list(range(1, rank + 1)))
    found = exported(randomised(keras.Model(x, BatchNormalization()(layer(x)))), tmp_path)
    assert found["PRelu"] == 1
    assert found["Neg"] == 0


@pytest.mark.parametrize("shape", [(None, None, 4), (4, None, None)])
def test_prelu_of_any_size_in_either_layout(shape, randomised, tmp_path):
    shared = [axis + 1 for axis, size in enumerate(shape) if size is None]
    x = keras.Input(shape, name="x")
    y = BatchNormalization(axis=shape.index(4) + 1)(layers.PReLU(shared_axes=shared)(x))
    assert exported(randomised(keras.Model(x, y)), tmp_path)["PRelu"] == 1


def test_prelu_that_a_subclass_overrides_is_traced_as_it_is(randomised, tmp_path):
    class Doubled(layers.PReLU):
        def call(self, inputs):
            return 2.0 * super().call(inputs)

    x = keras.Input((6, 4), name="x")
    assert exported(randomised(keras.Model(x, Doubled()(x))), tmp_path)["PRelu"] == 0


def test_prelu_of_infinite_values_is_that_of_keras(tmp_path):
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.PReLU(alpha_initializer="ones")(x))
    exported(model, tmp_path)
    row = np.array([[np.inf, -np.inf, np.nan, -0.0]], np.float32)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {"x": row})[0]
    np.testing.assert_array_equal(found, tf.convert_to_tensor(model(row)).numpy())
