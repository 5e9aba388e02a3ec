"""What this CPU's TensorFlow refuses, against layers with the channels last, or NumPy.

In float64 no CPU runs most of these, with oneDNN or without; in float32 it depends.
"""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.ops import gen_nn_ops

from keras_bn.export import ExportError, check_parity, export_onnx
from keras_bn.export.parity.expected import expected_of
from keras_bn.export.parity.reference.float64_weights import Float64Weights
from keras_bn.export.parity.reference.keras_runs import in_keras
from keras_bn.export.parity.reference.refused import StoodIn, standing_in
from keras_bn.export.signature import signature_of

pytestmark = pytest.mark.onednn

layers = keras.layers
# As many filters as the last axis is long, and Keras adds the bias along that axis.
SPACES = {1: (9,), 2: (8, 9), 3: (6, 7, 9)}
KINDS = {
    **{
        f"{kind} {n}D {words}": (n, f"{kind}{n}D", (10, 3), options)
        for kind, n in itertools.product(("Conv",), (1, 2, 3))
        for words, options in (
            ("plain", {}),
            ("strided same", {"strides": 2, "padding": "same"}),
            ("dilated same", {"dilation_rate": 2, "padding": "same"}),
            ("grouped", {"groups": 2}),
            ("grouped dilated", {"groups": 2, "dilation_rate": 2}),
        )
    },
    **{
        f"Conv {n}D transposed {words}": (n, f"Conv{n}DTranspose", (10, 3), options)
        for n in (1, 2, 3)
        for words, options in (
            ("strided", {"strides": 2}),
            ("strided same", {"strides": 2, "padding": "same", "output_padding": 1}),
        )
    },
    **{
        f"{kind} {n}D {words}": (n, f"{kind}Conv{n}D", arguments, options)
        for kind, arguments in (("Depthwise", (3,)), ("Separable", (10, 3)))
        for n in (1, 2)
        for words, options in (
            ("strided same", {"strides": 2, "padding": "same", "depth_multiplier": 2}),
            ("dilated", {"dilation_rate": 2}),
        )
    },
    **{
        f"{kind} pooling {n}D {padding}": (n, f"{kind}Pooling{n}D", (3, 2, padding), {})
        for kind in ("Max", "Average")
        for n in (1, 2, 3)
        for padding in ("valid", "same")
    },
    **{
        f"{kind} {n}D": (n, f"{kind}Pooling{n}D", arguments, {})
        for kind, arguments in (
            ("GlobalMax", ()),
            ("GlobalAverage", ()),
            ("AdaptiveMax", (2,)),
            ("AdaptiveAverage", (2,)),
        )
        for n in (1, 2, 3)
    },
}


def run(model, arrays, *, wide):
    """Run a model as the proof does."""
    signature = signature_of(model)
    return in_keras(model, signature, Float64Weights(model) if wide else None)[0](list(arrays))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("case", [pytest.param(v, id=k) for k, v in KINDS.items()])
def test_channels_first_as_channels_last(case, wide, randomised, rng):
    n, name, arguments, options = case
    first, last = (
        keras.Sequential(
            [keras.Input(shape), getattr(layers, name)(*arguments, data_format=data, **options)]
        )
        for data, shape in (
            ("channels_first", (4, *SPACES[n])),
            ("channels_last", (*SPACES[n], 4)),
        )
    )
    last.set_weights(randomised(first).get_weights())
    x = rng.normal(size=(2, 4, *SPACES[n]))
    (found,) = run(first, [x], wide=wide)
    (expected,) = run(last, [np.moveaxis(x, 1, -1)], wide=wide)
    if expected.ndim > 2:
        expected = np.moveaxis(expected, -1, 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 if wide else 1e-5)


def transposed(x, kernel, stride, rate, sizes, before):
    """Add x[o] w[t] at o stride + t rate - before, with the channels last, in float64."""
    found = np.zeros((len(x), *sizes, kernel.shape[-2]))
    for t in np.ndindex(kernel.shape[:-2]):
        for o in np.ndindex(x.shape[1:-1]):
            p = tuple(np.array(o) * stride + np.array(t) * rate - before)
            if all(0 <= i < size for i, size in zip(p, sizes, strict=True)):
                found[(slice(None), *p)] += np.einsum("ni,oi->no", x[(slice(None), *o)], kernel[t])
    return found


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_dilated_transposed_convolution(n, data_format, padding, wide, randomised, rng):
    space, kernel, rate = (5, 4, 3)[:n], (3, 2, 2)[:n], 2
    first = data_format == "channels_first"
    layer = getattr(layers, f"Conv{n}DTranspose")(
        3, kernel, dilation_rate=rate, padding=padding, data_format=data_format, use_bias=False
    )
    model = keras.Sequential([keras.Input((2, *space) if first else (*space, 2)), layer])
    x = rng.normal(size=(2, *space, 2)).astype("float32")
    (found,) = run(randomised(model), [np.moveaxis(x, -1, 1) if first else x], wide=wide)
    reach = (np.array(kernel) - 1) * rate
    sizes = space if padding == "same" else tuple(np.array(space) + reach)
    before = reach // 2 if padding == "same" else 0
    weights = np.asarray(layer.kernel, np.float64)
    expected = transposed(x.astype(np.float64), weights, 1, rate, sizes, before)
    found = np.moveaxis(found, 1, -1) if first else found
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 if wide else 1e-5)


def test_strided_and_dilated_transposed_convolution(rng):
    kernel = rng.normal(size=(3, 3, 3, 2))
    x = keras.Input((4, 5, 2), dtype="float64")
    y = layers.Lambda(
        lambda v: tf.nn.conv2d_transpose(v, kernel, (2, 8, 10, 3), 2, "SAME", dilations=2),
        output_shape=(8, 10, 3),
        dtype="float64",
    )(x)
    values = rng.normal(size=(2, 4, 5, 2))
    (found,) = run(keras.Model(x, y), [values], wide=False)
    expected = transposed(values, kernel, 2, 2, (8, 10), (3 * 2 + 4 + 1 - 8) // 2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_infinity_stays_where_it_is(randomised):
    layer = layers.Conv1DTranspose(1, 3, dilation_rate=2, use_bias=False)
    model = randomised(keras.Sequential([keras.Input((5, 1)), layer]))
    x = np.ones((1, 5, 1))
    x[0, 2] = np.inf
    (found,) = run(model, [x], wide=True)
    assert np.isfinite(found[0, :, 0]).tolist() == [p not in (2, 4, 6) for p in range(9)]


class Own(keras.Model):
    """Calls convolutions and pools itself, of Keras and of TensorFlow."""

    def __init__(self):
        super().__init__()
        self.conv = layers.Conv2D(4, 3, data_format="channels_first")
        self.kernel = self.add_weight(shape=(3, 3, 4, 4), name="kernel")

    def call(self, x):
        x = keras.ops.conv(self.conv(x), self.kernel, data_format="channels_first")
        x = tf.nn.conv2d(x, self.kernel, 1, "SAME", data_format="NCHW")
        x = keras.ops.max_pool(x, 2, data_format="channels_first")
        return tf.nn.avg_pool2d(x, 2, 1, "SAME", data_format="NCHW")


def nested():
    x = keras.Input((4, 8, 9), name="x")
    conv = layers.Conv2D(4, 3, padding="same", data_format="channels_first", name="conv")
    inner = keras.Sequential([keras.Input((4, 8, 9)), conv], name="inner")
    return keras.Model(x, inner(conv(inner(x))))


def in_time(length):
    x = keras.Input((length, 4, 8, 9), name="x")
    conv = layers.Conv2D(5, 3, data_format="channels_first", name="conv")
    return keras.Model(x, layers.TimeDistributed(conv)(x))


def own():
    model = Own()
    model(keras.Input((4, 10, 11)))
    return model


@pytest.mark.parametrize(
    "make",
    [nested, own, lambda: in_time(3), lambda: in_time(None)],
    ids=["nested and shared", "own code", "in time", "in time, unknown"],
)
def test_model_is_proven_in_float64(make, randomised, tmp_path):
    report = export_onnx(randomised(make()), tmp_path / "m.onnx").parity
    assert report.passed
    assert {row.reference for row in report.outputs} == {"float64"}


def runs(model, x):
    """Say whether TensorFlow runs a model on this CPU by itself."""
    try:
        model(x)
    except tf.errors.OpError:
        return False
    return True


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_note_names_what_is_refused(dtype, randomised, tmp_path):
    keras.config.set_dtype_policy(dtype)
    try:
        x = keras.Input((4, 8, 9), name="x")
        conv = layers.Conv2D(5, 3, data_format="channels_first", name="conv")
        model = randomised(keras.Model(x, conv(x)))
    finally:
        keras.config.set_dtype_policy("float32")
    notes = export_onnx(model, tmp_path / "m.onnx").parity.notes
    refused = (
        f"TensorFlow runs no convolution with the channels first in {dtype} on this CPU: for layer "
        "'conv' what Keras gives, and the truth, come from an equal computation",
    )
    assert notes == (() if runs(model, np.zeros((1, 4, 8, 9), dtype)) else refused)


def test_note_names_three_layers():
    stood_in = StoodIn()
    for name in "abcde":
        stood_in.add("max pooling with the channels first", "float16", name)
    (note,) = stood_in.notes
    assert "layers 'a', 'b', 'c' and 2 more" in note


@pytest.mark.parametrize("layer", ["conv", "up"])
def test_fault_is_found_and_located(layer, randomised, tmp_path):
    x = keras.Input((4, 8, 9), name="x")
    y = layers.Conv2D(5, 3, data_format="channels_first", name="conv")(x)
    y = layers.ReLU()(y)
    y = layers.Conv2DTranspose(
        3, 3, dilation_rate=2, data_format="channels_first", name="up", activation="relu"
    )(y)
    model = randomised(keras.Model(x, y))
    export_onnx(model, tmp_path / "m.onnx")
    kernel = model.get_layer(layer).kernel
    kernel.assign(np.asarray(kernel) * np.where(np.arange(kernel.shape[-1]) == 1, 1.001, 1.0))
    report = check_parity(model, tmp_path / "m.onnx")
    assert not report.passed
    assert layer in report.fault.layers


def test_what_has_no_stand_in_is_told_of_its_layer(rng):
    kernel = rng.normal(size=(3, 3, 1, 6))
    x = keras.Input((8, 9, 6), dtype="float64")
    grouped = layers.Lambda(
        lambda v: tf.nn.conv2d_transpose(v, kernel, (1, 8, 9, 2), 1, "SAME"),
        output_shape=(8, 9, 2),
        dtype="float64",
        name="grouped",
    )
    model = keras.Model(x, keras.Sequential([grouped])(x))
    kinds = {"given": [[np.zeros((1, 8, 9, 6))]]}
    with pytest.raises(ExportError, match="on this CPU") as error:
        expected_of(model, signature_of(model), kinds, "keep")
    assert "Received: layer 'grouped' (Lambda): InvalidArgumentError: Gradients" in str(error.value)
    assert "samples" not in str(error.value)


@pytest.mark.parametrize(
    "shapes",
    [
        pytest.param([(1, 8, 8, 8, 2), (None, None, None, 2, 3)], id="kernel"),
        pytest.param([(1, 8, 8, 8, 2), None], id="rank of the kernel"),
        pytest.param([(1, None, None, None, None), (3, 3, 3, 2, 3)], id="channels"),
    ],
)
def test_what_is_of_unknown_size_is_left_to_tensorflow(shapes):
    convolve = tf.function(
        lambda x, kernel: gen_nn_ops.conv3d(x, kernel, [1] * 5, "VALID", dilations=[1, 2, 2, 2, 1]),
        input_signature=[tf.TensorSpec(shape, tf.float32) for shape in shapes],
    )
    with standing_in(keras.Sequential(), StoodIn()):
        graph = convolve.get_concrete_function().graph
    assert next(op.type for op in graph.get_operations() if op.inputs) == "Conv3D"
