"""A weight that is held with its factors is the same as one computed at once in float64."""

import numpy as np
import onnx_ir as ir
from hypothesis import given
from hypothesis import strategies as st

from keras_bn.export.graph import exact as module
from keras_bn.export.graph.exact import ExactTensor, blocks, rearranged
from tests.tolerances import FLOAT64, assert_close


@st.composite
def histories(draw):
    """Draw a weight, what happens to it as functions, and the same on a float64 array."""
    shape = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    base = rng.normal(size=shape).astype(draw(st.sampled_from([np.float16, np.float32])))
    weight, expected = ExactTensor.of(ir.Tensor(base)), base.astype(np.float64)
    for step in draw(st.lists(st.sampled_from(["scale", "transpose", "reshape"]), max_size=6)):
        if step == "scale":
            sizes = [size if draw(st.booleans()) else 1 for size in expected.shape]
            sizes = sizes[draw(st.integers(0, len(sizes))) :]
            factor = rng.normal(size=sizes) * 10.0 ** draw(st.integers(-3, 3))
            weight, expected = weight * factor, expected * factor
            continue
        if step == "transpose":
            perm = draw(st.permutations(range(expected.ndim)))
            move = lambda array, perm=perm: array.transpose(perm)  # noqa: E731
        else:
            cut = draw(st.integers(1, expected.ndim))
            sizes = (int(np.prod(expected.shape[:cut])), *expected.shape[cut:], 1)
            move = lambda array, sizes=sizes: array.reshape(sizes)  # noqa: E731
        weight, expected = rearranged(weight, move), move(expected)
    return weight, expected


@given(histories())
def test_exact_value_is_that_of_float64(history):
    weight, expected = history
    assert weight.exact.shape == expected.shape == tuple(weight.shape.numpy())
    assert_close(weight.exact, expected, FLOAT64)


@given(histories(), st.integers(8, 100))
def test_bytes_are_those_of_the_rounded_value(history, block):
    weight, _ = history
    whole = weight.numpy().tobytes()
    before, module.BLOCK = module.BLOCK, block
    try:
        assert b"".join(blocks(weight)) == whole
    finally:
        module.BLOCK = before
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(
            weight.numpy(), weight.exact.astype(weight.dtype.numpy()), strict=True
        )


@given(histories(), st.integers(0, 10))
def test_finite_is_what_the_elements_are(history, exponent):
    weight, _ = history
    weight = weight * np.array(10.0**exponent)
    assert weight.is_finite() == bool(np.isfinite(weight.numpy()).all())


@given(histories(), st.integers(0, 10), st.integers(8, 100))
def test_peaks_are_what_the_elements_are(history, exponent, block):
    weight, _ = history
    weight = weight * np.array(10.0**exponent)
    elements = np.abs(weight.numpy().astype(np.float64))
    before, module.BLOCK = module.BLOCK, block
    try:
        for axis in range(weight.ndim):
            expected = np.moveaxis(elements, axis, 0).reshape(len(weight.peaks(axis)), -1).max(1)
            np.testing.assert_array_equal(weight.peaks(axis), expected, strict=True)
    finally:
        module.BLOCK = before
