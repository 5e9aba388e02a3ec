"""What the order of additions may make of a sum, and that a check allows for it and no more."""

import keras
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

from keras_bn.export import check_parity, export_onnx
from keras_bn.export.parity.reference.sums import LONG, convolution_share, sum_error
from tests.export.graphs import graph
from tests.export.parity.normed_networks import normed
from tests.export.parity.parity_faults import weight_of_one_channel

EPSILON = float(np.finfo(np.float32).eps)


def test_equal_terms_are_all_rounded_the_same_way():
    error = sum_error(np.full((9216, 1), 0.7371), (0,))
    assert error.shape == (1, 1)
    assert error.item() / (9216 * 0.7371) > 100 * EPSILON


def test_unequal_terms_are_rounded_either_way(rng):
    terms = rng.normal(size=(9216, 8))
    assert (sum_error(terms, (0,)) < 8 * EPSILON * np.abs(terms).sum(0)).all()


@pytest.mark.parametrize("value", [0.0, 1.0, 0.5])
def test_sums_that_float32_holds_are_exact(value):
    assert sum_error(np.full((100, 3), value), (0,)).max() == 0


def test_error_has_the_shape_of_the_sum(rng):
    terms = rng.normal(size=(2, 5, 6, 3))
    assert sum_error(terms, (1, 2)).shape == (2, 1, 1, 3)
    assert sum_error(terms, (3, 1)).shape == (2, 1, 6, 1)
    assert sum_error(terms, ()).max() == 0
    assert sum_error(terms[:, :0], (1,)).shape == (2, 1, 6, 3)


def test_terms_beyond_float32_have_no_error_to_tell():
    assert sum_error(np.array([[1e39], [np.nan], [np.inf]]), (0,)).tolist() == [[0.0]]


@pytest.mark.parametrize("axes", [(1, 2), (2, 3), (1, 2, 3), (3,)])
def test_onnx_runtime_is_not_further_off(axes, rng):
    text = (
        f"g (float[2,64,96,16] x) => (float[n,h,w,c] y) {{ y = ReduceMean <axes={[*axes]}> (x) }}"
    )
    session = onnxruntime.InferenceSession(ir.to_proto(graph(text, opset=17)).SerializeToString())
    for _ in range(5):
        x = np.full((2, 64, 96, 16), rng.normal(), np.float32)
        (found,) = session.run(None, {"x": x})
        count = np.prod([x.shape[axis] for axis in axes])
        allowed = 4 * sum_error(x.astype(np.float64), axes) / count + 4 * EPSILON
        assert (np.abs(found - x[(0,) * 4]) <= allowed).all()


def test_share_of_a_convolution_is_that_of_its_sum():
    x, kernel = np.full((1, 9216, 1), 0.7371), np.ones((9216, 1, 1))
    share = convolution_share(x, kernel, [1])
    assert share == pytest.approx(sum_error(x, (1,)).item() / (9216 * 0.7371))
    assert convolution_share(x[:, :96], kernel, [1]) < share  # the rest is padding
    assert convolution_share(np.zeros_like(x), kernel, [1]) == 0


def test_share_of_a_convolution_with_dilation_and_groups(rng):
    x = np.full((5, 100, 100, 8), 0.3)
    kernel = np.full((48, 48, 2, 12), 0.7)
    assert convolution_share(x, kernel, [2, 1]) > 10 * EPSILON
    assert convolution_share(rng.normal(size=x.shape), kernel, [2, 1]) < EPSILON


def test_share_of_a_short_convolution_is_not_looked_at():
    assert convolution_share(np.full((1, LONG - 1, 1), 0.7), np.ones((LONG - 1, 1, 1)), [1]) == 0


@pytest.mark.parametrize(
    ("shape", "size", "options"),
    [
        pytest.param((400, 400, 3), 400, {}, id="2-D"),
        pytest.param((3, 30, 30, 30), 30, {"data_format": "channels_first"}, id="3-D"),
    ],
)
def test_convolution_of_many_equal_terms_raises_no_alarm(shape, size, options, tmp_path):
    x = keras.Input(shape)
    count = 3 * size ** (len(shape) - 1)
    layer = keras.layers.Conv2D if len(shape) == 3 else keras.layers.Conv3D
    constant = keras.initializers.Constant(1 / count)
    model = keras.Model(x, layer(1, size, kernel_initializer=constant, **options)(x))
    report = export_onnx(model, tmp_path / "model.onnx")
    assert report.parity.passed
    kernel = model.layers[-1].kernel
    kernel.assign(kernel * 1.01)
    assert not check_parity(model, tmp_path / "model.onnx", explain=False).passed


@pytest.mark.parametrize(
    ("name", "seed"),
    [
        ("unet with norms", 0),  # group, fixed size, silu, 1e-3
        ("unet with norms", 7),  # group, relu, 1e-6
        ("resnet with norms", 21),  # instance, gelu, 1e-4
        ("resnet with norms", 35),  # layer, gelu, 1e-6
    ],
)
def test_norms_over_many_positions_raise_no_alarm(name, seed, tmp_path):
    keras.utils.set_random_seed(seed)
    report = export_onnx(normed(name, seed), tmp_path / "model.onnx")
    assert report.parity.passed


def test_long_signal_raises_no_alarm(tmp_path):
    keras.utils.set_random_seed(0)
    x = keras.Input((4096, 2))
    y = keras.layers.GroupNormalization(4)(keras.layers.Conv1D(16, 3, padding="same")(x))
    model = keras.Model(x, keras.layers.Conv1D(3, 1)(keras.layers.Activation("silu")(y)))
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


def test_model_that_sums_by_itself_raises_no_alarm(tmp_path):
    class Centred(keras.layers.Layer):
        def call(self, x):
            count = keras.ops.cast(keras.ops.shape(x)[1] * keras.ops.shape(x)[2], x.dtype)
            mean = keras.ops.sum(x, (1, 2), keepdims=True) / count
            return keras.ops.tanh(100 * (x - mean))

    x = keras.Input((96, 96, 2))
    model = keras.Model(x, Centred()(x))
    assert export_onnx(model, tmp_path / "model.onnx").parity.passed


@pytest.mark.parametrize("name", ["unet with norms", "resnet with norms"])
def test_fault_behind_a_norm_is_found_by_outputs_on_drawn_inputs(name, tmp_path, rng):
    keras.utils.set_random_seed(0)
    model = normed(name, 0, size=64)
    path = tmp_path / "model.onnx"
    weight_of_one_channel(model, path, rng)
    report = check_parity(model, path, explain=False)
    assert "drawn" in {row.case for row in report.outputs if not row.passed}


def test_another_epsilon_of_a_norm_is_found(tmp_path):
    keras.utils.set_random_seed(0)
    model = normed("resnet with norms", 12, size=64)
    path = tmp_path / "model.onnx"
    layer = next(x for x in model.layers if isinstance(x, keras.layers.GroupNormalization))
    before, layer.epsilon = layer.epsilon, 2e-3
    export_onnx(model, path, check=False)
    layer.epsilon = before
    report = check_parity(model, path)
    assert not report.passed
    assert layer.path in report.fault.layers
