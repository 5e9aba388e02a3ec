"""Sizes of batches and of unknown dimensions."""

import keras
import numpy as np
import pytest

from keras_bn.export import ExportError, check_parity, export_onnx
from keras_bn.export.parity.report import KINDS
from keras_bn.export.parity.samples.given import split
from keras_bn.export.parity.samples.samples import Sampling, draw
from keras_bn.export.signature import signature_of


def shapes(model):
    """Return the shapes drawn for the first input, by kind of batch."""
    batches, _, notes = draw(model, signature_of(model), seed=0)
    found = {}
    for batch in batches:
        found.setdefault(batch.case, []).append(batch.arrays[0].shape)
    return found, notes


def convolution(shape, **options):
    x = keras.Input(shape, name="x")
    return keras.Model(x, keras.layers.Conv2D(2, 3, **options)(x))


def test_batches_of_one_two_and_an_odd_number():
    found, notes = shapes(convolution((8, 8, 3)))
    assert [shape[0] for shape in found["drawn"]] == [1, 2, 3]
    assert set(found) == {"drawn", "constant", "out of range"}
    assert notes == []


def test_unknown_dimensions_get_two_sizes_odd_and_not_square():
    found, notes = shapes(convolution((None, None, 3)))
    assert found["drawn"][0] == (1, 32, 32, 3)
    assert found["another size"] == [(2, 45, 38, 3)]
    assert set(found) == set(KINDS)  # each is explained where it is printed
    assert notes == []


def test_network_that_halves_its_input_gets_multiples():
    x = keras.Input((None, None, 3), name="x")
    y = keras.layers.Conv2D(3, 4, strides=16)(x)
    y = keras.layers.Add()([keras.layers.UpSampling2D(16)(y), x])
    found, _ = shapes(keras.Model(x, keras.layers.Conv2D(1, 1)(y)))
    assert found["another size"] == [(2, 48, 48, 3)]


class Choosy(keras.layers.Layer):
    """Takes some sizes only."""

    def __init__(self, takes):
        super().__init__()
        self.takes = takes

    def call(self, inputs):
        if inputs.shape[1] is not None and not self.takes(inputs.shape[1]):
            raise ValueError("not of this size")
        return inputs


def choosy(takes):
    x = keras.Input((None, 4), name="x")
    return keras.Model(x, Choosy(takes)(x))


def test_network_that_needs_a_large_input_gets_one():
    found, _ = shapes(choosy(lambda size: size >= 75))
    assert found["drawn"][0] == (1, 96, 4)
    assert found["another size"] == [(2, 109, 4)]


def test_one_size_alone_is_noted():
    found, notes = shapes(choosy(lambda size: size == 32))
    assert "another size" not in found
    assert notes == ["unknown dimensions at one size alone, 32: none other runs"]


def test_network_that_crops_thousands_gets_what_is_left():
    x = keras.Input((None, 4), name="x")
    found, notes = shapes(keras.Model(x, keras.layers.Cropping1D(5000)(x)))
    assert found["drawn"][0] == (1, 14336, 4)
    assert found["another size"] == [(2, 14349, 4)]
    assert notes == ["unknown dimensions at 14336: no smaller size that was tried runs"]


def test_images_are_doubled_as_far_as_a_sample_may_be_large():
    x = keras.Input((None, None, 3), name="x")
    found, _ = shapes(keras.Model(x, keras.layers.Cropping2D(300)(x)))
    assert found["drawn"][0] == (1, 896, 896, 3)
    with pytest.raises(ExportError, match="No size from 32 to 896 runs"):
        shapes(keras.Model(x, keras.layers.Cropping2D(500)(x)))


def test_network_that_takes_no_size_is_refused():
    with pytest.raises(ExportError, match=r"suitable shape.*No size from 32 to 57344 runs"):
        shapes(choosy(lambda size: size > 100_000))


def behind(function, shape=(6, 3), **options):
    """Make a model whose one output mixes all that a function makes of its input."""
    x = keras.Input(shape, name="x", **options)
    return keras.Model(x, keras.layers.Dense(2)(keras.ops.mean(function(x), axis=1)))


@pytest.mark.parametrize(
    ("function", "limits"),
    [
        pytest.param(keras.ops.log, "[0, 1)", id="log"),
        pytest.param(keras.ops.arccos, "[0, 1)", id="arccos"),
        pytest.param(lambda x: keras.ops.sqrt(x - 1.0), "[1, 10)", id="root of what exceeds 1"),
    ],
)
def test_outputs_that_are_nan_on_normal_draws_get_others(function, limits, tmp_path):
    report = export_onnx(behind(function), tmp_path / "model.onnx").parity
    assert report.passed
    assert report.outputs[0].case == "drawn"
    assert f"x was drawn from {limits}" in " ".join(report.notes)
    assert report.drawn["x"].startswith(f"uniform in {limits[:2]}")
    assert "out of range inputs were left out" in " ".join(report.notes)


def test_fault_behind_a_logarithm_is_found(tmp_path):
    model, path = behind(keras.ops.log), tmp_path / "model.onnx"
    export_onnx(model, path, check=False)
    kernel = model.layers[-1].kernel
    kernel.assign(kernel * 1.001)
    assert not check_parity(model, path, explain=False).passed


def test_input_with_a_stated_range_is_drawn_from_no_other(tmp_path):
    model, path = behind(keras.ops.log), tmp_path / "model.onnx"
    export_onnx(model, path, check=False)
    with pytest.raises(ExportError, match="none finite, on drawn inputs"):
        check_parity(model, path, ranges={"x": (-2, -1)})
    assert check_parity(model, path, ranges={"x": (1, 2)}).drawn["x"].endswith("as stated")


def test_model_that_is_finite_nowhere_is_refused(tmp_path):
    model = behind(lambda x: keras.ops.log(-keras.ops.abs(x) - 1.0))
    tried = r"none finite, on drawn inputs.* Draws from \[0, 1\) and \[1, 10\) give none either"
    with pytest.raises(ExportError, match=tried):
        export_onnx(model, tmp_path / "model.onnx")
    with pytest.raises(ExportError, match="none finite, on drawn inputs"):
        export_onnx(model, tmp_path / "model.onnx", precision="float16")


def test_float16_is_placed_by_the_draws_that_are_finite(tmp_path):
    model = behind(lambda x: keras.ops.sqrt(x - 1.0))
    report = export_onnx(model, tmp_path / "model.onnx", precision="float16").parity
    assert report.passed
    assert "drawn from [1, 10)" in " ".join(report.notes)


def test_float16_behind_a_logarithm(tmp_path):
    report = export_onnx(behind(keras.ops.log), tmp_path / "model.onnx", precision="float16")
    assert report.parity.passed
    assert report.precision.float16 > 0


def test_inputs_that_go_together_get_sizes_that_do():
    a, b = keras.Input((None, 3), name="a"), keras.Input((None, 3), name="b")
    batches, _, _ = draw(
        model := keras.Model([a, b], keras.layers.Add()([a, b])), signature_of(model), seed=0
    )
    assert all(x.shape == y.shape for x, y in (batch.arrays for batch in batches))


def test_given_samples_are_cut_into_one_two_and_odd_numbers():
    model = convolution((8, 8, 3))
    specs = signature_of(model).specs
    batches = [
        batch.arrays[0] for batch in split(np.arange(70 * 192.0).reshape(70, 8, 8, 3), specs)
    ]
    assert [len(batch) for batch in batches] == [1, 2, 63, 4]
    assert np.array_equal(np.concatenate(batches).reshape(-1), np.arange(70 * 192.0))


@pytest.mark.parametrize("count", [1, 3, 8])
def test_fixed_batch_is_filled_up(count):
    x = keras.Input(batch_shape=(4, 2), name="x")
    model = keras.Model(x, keras.layers.Dense(1)(x))
    batches = list(split(np.zeros((count, 2)), signature_of(model).specs))
    assert {batch.arrays[0].shape for batch in batches} == {(4, 2)}


def test_float16_file_is_made_on_the_draws_of_an_export_whatever_a_check_draws():
    model = convolution((8, 8, 3))
    other = {"seed": 3, "ranges": {"x": (0.0, 9.0)}}
    exported, checked = (
        Sampling(model, precision="float16", **options).of_float16_file(["x"])
        for options in ({}, other)
    )
    assert exported[0]["x"].shape == (1, 3, 8, 8)
    for one, another in zip(exported, checked, strict=True):
        np.testing.assert_array_equal(one["x"], another["x"])
