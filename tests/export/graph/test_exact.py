import tracemalloc

import ml_dtypes
import numpy as np
import onnx_ir as ir
import pytest

from keras_bn.export.graph import exact as module
from keras_bn.export.graph.exact import ExactTensor, blocks, constant, exact, rearranged
from tests.tolerances import FLOAT64, assert_close


def held(array):
    return ExactTensor.of(ir.Tensor(array))


def test_transposed_and_scaled_weight_is_a_view(rng):
    kernel = rng.normal(size=(3, 3, 16, 32)).astype(np.float32)
    scale = rng.normal(size=(32, 1, 1, 1))
    weight = rearranged(held(kernel), lambda array: array.transpose(3, 2, 0, 1)) * scale
    assert np.shares_memory(weight.base, kernel)
    assert [factor.shape for factor in weight.factors] == [(32, 1, 1, 1)]
    expected = kernel.transpose(3, 2, 0, 1).astype(np.float64) * scale
    np.testing.assert_array_equal(weight.exact, expected)
    np.testing.assert_array_equal(weight.numpy(), expected.astype(np.float32))
    assert weight.numpy().flags.c_contiguous


def test_rearranged_tensor_of_a_graph_is_a_view(rng):
    kernel = rng.normal(size=(3, 4)).astype(np.float32)
    assert np.shares_memory(rearranged(ir.Tensor(kernel), np.transpose).numpy(), kernel)


def test_factors_along_the_same_axes_are_joined_and_others_are_not(rng):
    weight = held(rng.normal(size=(16, 32)).astype(np.float32))
    rows, columns = rng.normal(size=(16, 1)), rng.normal(size=32)
    product = weight * rows * columns * np.float64(2.0) * rows
    assert [factor.shape for factor in product.factors] == [(16, 1), (1, 32)]
    assert_close(product.exact, weight.exact * rows**2 * columns * 2.0, FLOAT64)


def test_factor_that_is_not_much_smaller_is_multiplied_at_once(rng):
    value, factor = rng.normal(size=(2, 5)).astype(np.float32)
    product = held(value) * factor
    assert product.factors == ()
    np.testing.assert_array_equal(product.exact, value.astype(np.float64) * factor)


def test_factor_that_no_longer_fits_its_axis_is_multiplied_in(rng):
    weight = held(rng.normal(size=(8, 16, 9)).astype(np.float32)) * rng.normal(size=(8, 1, 1))
    moved = rearranged(weight, lambda array: array.reshape(128, 9).T)
    assert_close(moved.exact, weight.exact.reshape(128, 9).T, FLOAT64)


def test_value_of_another_dtype_is_held_in_float64():
    tensor = ExactTensor([1, 2], ir.DataType.FLOAT)
    assert tensor.base.dtype == np.float64
    assert repr(tensor) == "ExactTensor(shape=(2,), dtype=FLOAT)"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_every_float_is_rounded_once(rng, dtype):
    base, scale = rng.normal(size=(16, 8)).astype(dtype), rng.normal(size=8)
    product = held(base) * scale
    np.testing.assert_array_equal(
        product.numpy(), (base.astype(np.float64) * scale).astype(dtype), strict=True
    )
    assert product.numpy().dtype == dtype
    assert product.is_finite()
    assert not (product * np.array(1e308)).is_finite()


def test_overflow_is_judged_by_the_channel_that_overflows():
    weight = np.ones((16, 8), np.float16)
    weight[:, 1] = 300.0
    scale = np.ones(8)
    scale[0] = 300.0
    assert (held(weight) * scale).is_finite()
    scale[1] = 300.0
    assert not (held(weight) * scale).is_finite()


def test_largest_finite_value_and_the_next():
    largest = float(np.finfo(np.float32).max)
    half_a_step = largest * 2.0**-25
    ones = held(np.ones((4, 4), np.float32))
    assert (ones * np.array(largest + 0.9 * half_a_step)).is_finite()
    assert not (ones * np.array(largest + 1.1 * half_a_step)).is_finite()


def test_bound_for_two_factors_is_not_taken_for_the_truth():
    weight = np.zeros((16, 32), np.float32)
    weight[0, 1] = weight[1, 0] = 1.0
    rows, columns = np.ones((16, 1)), np.ones(32)
    rows[0], columns[0] = 1e30, 1e30  # no element gets both
    product = held(weight) * rows * columns
    assert len(product.factors) == 2
    assert product.is_finite()
    weight[0, 0] = 1.0
    assert not (held(weight) * rows * columns).is_finite()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_base_or_factor_that_is_not_finite(bad):
    weight, scale = np.zeros((16, 8), np.float32), np.zeros(8)
    weight[3, 4] = bad
    assert not held(weight).is_finite()
    assert not (held(weight) * scale).is_finite()
    scale[2] = bad
    assert not (held(np.zeros((16, 8), np.float32)) * scale).is_finite()


def test_tensor_without_elements():
    tensor = held(np.zeros((0, 3), np.float32)) * np.ones(3)
    assert tensor.is_finite()
    assert b"".join(blocks(tensor)) == b""


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_peaks_are_those_of_the_rounded_elements(rng, dtype):
    weight = held(rng.normal(size=(16, 8, 3, 3)).astype(dtype))
    rows, columns = rng.normal(size=(16, 1, 1, 1)), rng.normal(size=(8, 1, 1))
    for product in (weight, weight * rows, weight * columns, weight * rows * columns):
        elements = np.abs(product.numpy().astype(np.float64))
        for axis in range(4):
            others = tuple(other for other in range(4) if other != axis)
            np.testing.assert_array_equal(product.peaks(axis), elements.max(others), strict=True)
            np.testing.assert_array_equal(product.peaks(axis - 4), product.peaks(axis))


def test_peak_that_overflows_or_is_no_number():
    weight = np.ones((3, 16), np.float16)
    weight[1, 4], weight[2, 5] = np.nan, -300.0
    product = held(weight) * np.array([300.0])
    np.testing.assert_array_equal(product.peaks(0), [300.0, np.nan, np.inf])


def test_peak_that_rounds_to_zero_is_seen_in_another_dtype():
    sinking = held(np.ones((2, 16), np.float16)) * np.array([[1e-9], [0.0]])
    np.testing.assert_array_equal(sinking.peaks(0), [0.0, 0.0])
    np.testing.assert_array_equal(sinking.with_dtype(ir.DataType.DOUBLE).peaks(0), [1e-9, 0.0])


def test_zero_beside_a_factor_that_is_not_finite_is_no_number():
    weight = np.ones((2, 16), np.float32)
    weight[1, 3] = 0.0
    product = held(weight) * np.array([[np.inf], [np.inf]])
    np.testing.assert_array_equal(product.peaks(0), [np.inf, np.nan])


def test_peaks_of_a_tensor_without_elements():
    assert held(np.zeros((0, 3), np.float32)).peaks(0).shape == (0,)
    np.testing.assert_array_equal(held(np.zeros((0, 3), np.float32)).peaks(1), np.zeros(3))


@pytest.mark.parametrize("axis", [0, 1])
def test_peaks_of_a_large_weight_take_no_copy_of_it(rng, axis, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 2**20)
    weight = (
        held(np.ones((4096, 1024), np.float32)) * rng.normal(size=1024) * rng.normal(size=(4096, 1))
    )
    tracemalloc.start()
    weight.peaks(axis)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5 * module.BLOCK


def test_large_weight_is_written_without_a_copy_of_it(rng):
    weight = held(np.ones((4096, 1024), np.float32)).__mul__(rng.normal(size=1024))
    tracemalloc.start()
    assert weight.is_finite()
    size = sum(len(block) for block in blocks(weight))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 2**24
    assert peak < 2.5 * module.BLOCK


@pytest.mark.parametrize("dtype", [ir.DataType.INT4, ir.DataType.FLOAT8E5M2, ir.DataType.BOOL])
def test_bytes_of_other_dtypes(dtype):
    array = np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype.numpy())
    tensor = ir.Tensor(array, dtype=dtype)
    assert b"".join(blocks(tensor)) == tensor.tobytes()


def test_exact_needs_a_constant():
    with pytest.raises(ValueError, match="`value` must be a constant"):
        exact(ir.Value(name="x"))


def test_exact_leaves_integers_alone():
    assert exact(constant("n", ir.tensor([1, 2]))).dtype == np.int64
