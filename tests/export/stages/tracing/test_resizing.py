"""Images resized as Keras does it, to sizes that are no multiple too."""

import keras
import numpy as np
import onnx
import pytest

from keras_bn import BatchNormalization
from keras_bn.export import export_onnx
from keras_bn.export.runtime.session import LEVELS, OnnxRuntime
from keras_bn.export.stages.tracing.resizing import _cubic_shares, _shares
from tests.tolerances import assert_close

layers = keras.layers


def exported(model, tmp_path, **options):
    assert export_onnx(model, tmp_path / "model.onnx", **options).parity.passed
    return [node.op_type for node in onnx.load(tmp_path / "model.onnx").graph.node]


@pytest.mark.parametrize("size", [(6, 5), (4, 2), (5, 7), (13, 3), (24, 30), (12, 10), (1, 1)])
@pytest.mark.parametrize("interpolation", ["area", "bicubic"])
def test_resizing_to_any_size(interpolation, size, tmp_path):
    x = keras.Input((12, 10, 3), name="x")
    exported(keras.Model(x, layers.Resizing(*size, interpolation=interpolation)(x)), tmp_path)


@pytest.mark.parametrize("shape", [(None, None, 3), (None, 12, 3), (3, 14, None)])
@pytest.mark.parametrize("interpolation", ["area", "bicubic"])
def test_resizing_from_any_size(interpolation, shape, rng, tmp_path):
    first = "channels_first" if shape[0] == 3 else "channels_last"
    x = keras.Input(shape, name="x")
    resizing = layers.Resizing(9, 7, interpolation=interpolation, data_format=first, name="y")
    model = keras.Model(x, resizing(x))
    assert "Resize" not in exported(model, tmp_path)
    run = OnnxRuntime(tmp_path / "model.onnx", LEVELS[1]).runner(["x"], ["y"])
    for free in (1, 5, 9, 21, 100):
        images = rng.normal(size=(2, *(size or free for size in shape))).astype(np.float32)
        truth = model(images).numpy()
        off = np.abs(run([images])[0] - truth).max() / np.abs(truth).max()
        # TensorFlow looks its cubic's weights up, in a table of 1,024 places.
        assert off < (1e-5 if interpolation == "area" else 2e-3)


def test_area_by_whole_factors_is_one_pool(tmp_path):
    x = keras.Input((12, 10, 3), name="x")
    y = layers.Resizing(6, 5, interpolation="area")(layers.Conv2D(4, 3, padding="same")(x))
    found = exported(keras.Model(x, BatchNormalization()(y)), tmp_path)
    assert found == ["Transpose", "Conv", "AveragePool", "Transpose"]


@pytest.mark.parametrize("opset", [13, 18])
def test_area_of_pixels(opset, rng, tmp_path):
    x = keras.Input((9, 8, 3), name="x", dtype="uint8")
    y = layers.Resizing(4, 5, interpolation="area")(layers.Rescaling(1 / 255.0)(x))
    images = rng.integers(0, 256, (2, 9, 8, 3)).astype(np.uint8)
    exported(keras.Model(x, y), tmp_path, inputs=images, opset=opset)


@pytest.mark.parametrize("interpolation", ["area", "bilinear", "nearest"])
def test_whole_numbers_are_resized_as_floats_like_in_predict(interpolation, rng, tmp_path):
    x = keras.Input((12, 10, 3), name="x", dtype="uint8")
    resizing = layers.Resizing(7, 6, interpolation=interpolation)
    model = keras.Model(x, layers.Rescaling(1 / 255.0)(resizing(x)))
    exported(model, tmp_path)
    images = rng.integers(0, 256, (2, 12, 10, 3)).astype(np.uint8)
    found = OnnxRuntime(tmp_path / "model.onnx", LEVELS[0]).runner(["x"], [model.output_names[0]])(
        [images]
    )
    assert_close(found[0], model.predict(images, verbose=0))


def test_area_in_channels_first(tmp_path):
    x = keras.Input((3, 12, 10), name="x")
    y = layers.Resizing(5, 4, interpolation="area", data_format="channels_first")(x)
    exported(keras.Model(x, y), tmp_path)


@pytest.mark.parametrize("shares", [_shares, _cubic_shares])
@pytest.mark.parametrize(("before", "after"), [(12, 5), (10, 10), (3, 7), (1, 4), (97, 31)])
def test_shares_of_a_pixel_add_up_to_one(shares, before, after):
    found = shares(before, after)
    assert found.shape == (after, before)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=2e-6)


def test_shares_are_the_overlap_of_areas():
    thirds = [[2 / 3, 1 / 3, 0.0], [0.0, 1 / 3, 2 / 3]]
    np.testing.assert_allclose(_shares(3, 2), thirds, rtol=1e-6)
