"""Each law of what absorbs a map against the operator itself, on weights of both kinds."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_bn.export.graph.exact import ExactTensor
from keras_bn.export.stages.folding.algebra import absorbing
from keras_bn.export.stages.folding.algebra.absorbing import values
from keras_bn.export.stages.folding.reason import Reason
from tests.export.stages.folding.algebra.affine_maps import (
    applied_along,
    of,
    refused,
    rngs,
    run_operator,
    same_kind,
    vectors,
    weights,
)
from tests.tolerances import FLOAT64, assert_close

data = st.data()
flags = st.booleans()
GATES = {"LSTM": 4, "GRU": 3}


@st.composite
def biases(draw, size):
    return draw(rngs()).normal(size=size) if draw(flags) else None


@st.composite
def convolutions(draw):
    """Draw a group, its widths, a kernel, and the attributes of a convolution without padding."""
    rank, group = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2, 3]))
    rows, columns = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    kernel = draw(st.lists(st.integers(1, 3), min_size=rank, max_size=rank))
    steps = st.lists(st.integers(1, 2), min_size=rank, max_size=rank)
    return group, rows, columns, kernel, {"strides": draw(steps), "dilations": draw(steps)}


# Behind the operator


@given(data, st.sampled_from([0, 1, -1]))
def test_absorb_equals_the_map_after_the_product(data, axis):
    weight = data.draw(weights(5, 4))
    channels = weight.shape[axis]
    bias, after = data.draw(biases(channels)), data.draw(vectors(channels))
    x = data.draw(rngs()).normal(size=(3, 20 // channels))

    def operate(w, b):
        return x @ (values(w).T if axis == 0 else values(w)) + (0.0 if b is None else b)

    new_weight, new_bias = absorbing.absorb(weight, bias, after, axis)
    assert_close(
        operate(new_weight, new_bias), applied_along(after, operate(weight, bias), 1), FLOAT64
    )
    assert same_kind(new_weight, weight)
    assert (new_bias is None) == (bias is None and after.is_scale)
    assert new_bias is None or new_bias.shape == (channels,)


@given(data, flags, flags, st.sampled_from([(), (1,), (4,), (1, 4), (3, 1), (3, 4)]))
def test_gemm_absorbs_on_either_side(data, transposed_a, transposed_b, bias_shape):
    rng, weight = data.draw(rngs()), data.draw(weights(*((4, 5) if transposed_b else (5, 4))))
    x, bias = rng.normal(size=(5, 3) if transposed_a else (3, 5)), rng.normal(size=bias_shape)
    after, before = data.draw(vectors(4)), data.draw(vectors(5))

    def gemm(x, w, c, **options):
        return run_operator(
            "Gemm", x, values(w), c, alpha=0.5, transA=transposed_a, transB=transposed_b, **options
        )

    expected = applied_along(after, gemm(x, weight, bias, beta=-2.0), 1)
    absorbed = absorbing.absorb(weight, -2.0 * bias, after, 0 if transposed_b else 1)
    assert_close(gemm(x, *absorbed, beta=1.0), expected, FLOAT64)

    expected = gemm(applied_along(before, x, 0 if transposed_a else 1), weight, bias, beta=-2.0)
    new_weight, lacking = absorbing.matmul_input(weight, before, -1 if transposed_b else -2)
    added = 0.5 * lacking.ravel() - 2.0 * bias
    assert_close(gemm(x, new_weight, added, beta=1.0), expected, FLOAT64)


@given(data, convolutions(), flags)
def test_conv_absorbs_behind_it(data, convolution, padded):
    group, rows, columns, kernel, options = convolution
    weight = data.draw(weights(group * rows, columns, *kernel))
    bias, after = data.draw(biases(group * rows)), data.draw(vectors(group * rows))
    x = data.draw(rngs()).normal(size=(2, group * columns, *(6 for _ in kernel)))
    pads = [0] * len(kernel) + [int(padded)] * len(kernel)

    def conv(w, b):
        return run_operator("Conv", x, values(w), b, group=group, pads=pads, **options)

    new_weight, new_bias = absorbing.absorb(weight, bias, after, 0)
    assert_close(conv(new_weight, new_bias), applied_along(after, conv(weight, bias), 1), FLOAT64)


def conv_transpose(x, weight, bias, group, **options):
    """Evaluate a grouped ConvTranspose group for group: onnx.reference 1.23 has one group only."""
    pairs = zip(np.split(x, group, 1), np.split(values(weight), group, 0), strict=True)
    parts = [run_operator("ConvTranspose", *pair, **options) for pair in pairs]
    y = np.concatenate(parts, axis=1)
    return y if bias is None else y + bias.reshape(-1, *(1 for _ in y.shape[2:]))


@st.composite
def transposed_convolutions(draw):
    """Draw the arguments of `conv_transpose`, without the input."""
    group, rows, columns, kernel, options = draw(convolutions())
    strides, dilations = options["strides"], options["dilations"]
    output_padding = [draw(st.integers(0, s - 1)) for s in strides]
    extents = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    pads = [draw(st.integers(0, extent // 2)) for extent in extents]
    weight = draw(weights(group * rows, columns, *kernel))
    return weight, draw(biases(group * columns)), group, {
        **options, "output_padding": output_padding, "pads": pads * 2
    }  # fmt: skip


@given(data, transposed_convolutions())
def test_transposed_conv_absorbs_behind_it(data, convolution):
    weight, bias, group, options = convolution
    after = data.draw(vectors(group * weight.shape[1]))
    x = data.draw(rngs()).normal(size=(2, weight.shape[0], *(2 for _ in options["strides"])))
    new_weight, new_bias = absorbing.conv_transpose_output(weight, bias, after, group)
    expected = applied_along(after, conv_transpose(x, weight, bias, group, **options), 1)
    assert_close(conv_transpose(x, new_weight, new_bias, group, **options), expected, FLOAT64)
    assert same_kind(new_weight, weight)
    assert (new_bias is None) == (bias is None and after.is_scale)


@pytest.mark.parametrize("bias", [None, np.zeros(3)])
def test_no_bias_is_added_for_a_zero_shift(bias, rng):
    after, weight = of(rng.normal(size=3)), rng.normal(size=(3, 3, 1))
    for absorbed in (
        absorbing.absorb(weight, bias, after, 0),
        absorbing.conv_transpose_output(weight, bias, after, 1),
        absorbing.conv_input(weight, bias, after, 1, True),
        absorbing.recurrent_input(weight, bias, after),
    ):
        assert (absorbed[1] is None) == (bias is None)


def test_new_bias_may_be_changed_without_a_trace(rng):
    after = of(2.0, 3.0)
    bias = absorbing.absorb(rng.normal(size=(4, 2)), None, after, 0)[1]
    bias += 1.0
    assert after.shift.item() == 3.0


@given(data)
def test_table_of_embeddings_absorbs_a_map(data):
    table, after = data.draw(weights(7, 3)), data.draw(vectors(3))
    indices = np.array([[0, 6], [2, 2]])
    new_table, shift = absorbing.absorb(table, None, after, 1)
    mapped = values(new_table) + (0.0 if shift is None else shift)
    expected = applied_along(after, run_operator("Gather", values(table), indices), 2)
    np.testing.assert_array_equal(run_operator("Gather", mapped, indices), expected)


# Before the operator


@given(data, convolutions())
def test_conv_absorbs_before_it(data, convolution):
    group, rows, columns, kernel, options = convolution
    weight = data.draw(weights(group * rows, columns, *kernel))
    bias, before = data.draw(biases(group * rows)), data.draw(vectors(group * columns))
    x = data.draw(rngs()).normal(size=(2, group * columns, *(6 for _ in kernel)))
    new_weight, new_bias = absorbing.conv_input(weight, bias, before, group, False)
    expected = run_operator(
        "Conv", applied_along(before, x, 1), values(weight), bias, group=group, **options
    )
    actual = run_operator("Conv", x, values(new_weight), new_bias, group=group, **options)
    assert_close(actual, expected, FLOAT64)
    assert same_kind(new_weight, weight)


@given(data, convolutions())
def test_padded_conv_absorbs_a_scale_before_it(data, convolution):
    group, rows, columns, kernel, options = convolution
    options = {**options, "group": group, "pads": [1, 2] * len(kernel)}
    weight, bias = (
        data.draw(weights(group * rows, columns, *kernel)),
        data.draw(biases(group * rows)),
    )
    before = data.draw(vectors(group * columns, kinds=["scale"]))
    x = data.draw(rngs()).normal(size=(2, group * columns, *(4 for _ in kernel)))
    new_weight, new_bias = absorbing.conv_input(weight, bias, before, group, True)
    expected = run_operator("Conv", applied_along(before, x, 1), values(weight), bias, **options)
    assert new_bias is bias
    assert_close(run_operator("Conv", x, values(new_weight), bias, **options), expected, FLOAT64)


def test_padded_conv_refuses_a_shift():
    with refused(Reason.ZERO_PADDING, "a shift of up to 3"):
        absorbing.conv_input(np.ones((2, 2, 3)), None, of([1.0, 2.0], [1.0, -3.0]), 1, True)


@given(data, transposed_convolutions())
def test_transposed_conv_absorbs_a_scale_before_it(data, convolution):
    weight, bias, group, options = convolution
    before = data.draw(vectors(weight.shape[0], kinds=["scale"]))
    x = data.draw(rngs()).normal(size=(2, weight.shape[0], *(2 for _ in options["strides"])))
    new_weight = absorbing.conv_transpose_input(weight, before)
    expected = conv_transpose(applied_along(before, x, 1), weight, bias, group, **options)
    assert_close(conv_transpose(x, new_weight, bias, group, **options), expected, FLOAT64)
    assert same_kind(new_weight, weight)


def test_transposed_conv_refuses_a_shift():
    with refused(Reason.SHIFT, "overlaps less at its borders"):
        absorbing.conv_transpose_input(np.ones((2, 2, 3)), of(1.0, 1.0))


@pytest.mark.parametrize("op_type", GATES)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
@given(data)
def test_recurrent_layer_absorbs_before_it(op_type, direction, data):
    directions, hidden, channels = 1 + (direction != "forward"), 2, 3
    rows, rng = GATES[op_type] * hidden, data.draw(rngs())
    weight, bias = (
        data.draw(weights(directions, rows, channels)),
        data.draw(biases((directions, 2 * rows))),
    )
    recurrent = rng.normal(size=(directions, rows, hidden))
    before, x = data.draw(vectors(channels)), rng.normal(size=(4, 2, channels))
    options = {"hidden_size": hidden, "direction": direction}
    if op_type == "GRU":
        options["linear_before_reset"] = data.draw(st.integers(0, 1))

    def run(x, w, b):
        return run_operator(op_type, x, values(w), recurrent, b, **options)

    new_weight, new_bias = absorbing.recurrent_input(weight, bias, before)
    expected = run(applied_along(before, x, 2), weight, bias)
    assert_close(run(x, new_weight, new_bias), expected, FLOAT64)
    assert same_kind(new_weight, weight)


# Exactly


@given(data)
def test_powers_of_two_change_no_bit_of_a_number(data):
    """A power of two scales every sum and every rounding with it."""
    rng = data.draw(rngs())
    after, before = (of(2.0 ** rng.integers(-9, 9, size=4) * rng.choice([-1, 1], 4)) for _ in "ab")
    weight = data.draw(weights(4, 4, 3, 3))
    x = rng.normal(size=(1, 4, 5, 5))
    conv = lambda x, w: run_operator("Conv", x, values(w))  # noqa: E731
    expected = applied_along(after, conv(x, weight), 1)
    behind, bias = absorbing.absorb(weight, np.zeros(4), after, 0)
    np.testing.assert_array_equal(conv(x, behind), expected)
    np.testing.assert_array_equal(bias, np.zeros(4))
    ahead, _ = absorbing.conv_input(weight, None, before, 1, True)
    np.testing.assert_array_equal(conv(x, ahead), conv(applied_along(before, x, 1), weight))
    undone, _ = absorbing.absorb(behind, None, after.inverse(), 0)
    np.testing.assert_array_equal(values(undone), values(weight))


@given(data)
def test_chain_of_maps_is_rounded_once(data):
    rng = data.draw(rngs())
    array, (a, b) = rng.normal(size=(8, 4, 3, 3)).astype(np.float32), rng.normal(size=(2, 8))
    weight = ExactTensor.of(ir.Tensor(array))
    weight, _ = absorbing.absorb(weight, None, of(a), 0)
    weight, _ = absorbing.absorb(weight, None, of(b), 0)
    once = (array.astype(np.float64) * (a * b).reshape(8, 1, 1, 1)).astype(np.float32)
    np.testing.assert_array_equal(weight.numpy(), once)


def test_scales_are_held_beside_the_weight(rng):
    array, vector = rng.normal(size=(16, 32, 1, 1)).astype(np.float32), of(rng.normal(size=32))
    for weight in (
        absorbing.conv_input(ExactTensor.of(ir.Tensor(array)), None, vector, 1, False)[0],
        absorbing.conv_transpose_output(ExactTensor.of(ir.Tensor(array)), None, vector, 1)[0],
    ):
        assert np.shares_memory(weight.base, array)
        assert [factor.shape for factor in weight.factors] == [(1, 32, 1, 1)]
    uniform = absorbing.conv_input(ExactTensor.of(ir.Tensor(array)), None, of(2.0), 1, False)[0]
    assert [factor.size for factor in uniform.factors] == [1]


@pytest.mark.parametrize("bad", [1e300, np.inf, np.nan])
def test_what_is_not_finite_is_seen_in_the_result_and_warns_nobody(bad):
    """The caller refuses it; a warning would be an error here."""
    weight, vector = np.array([[[1e300, 0.0]]]), of(bad, bad)
    bias = np.full(1, 1e300)
    for new_weight in (
        absorbing.absorb(weight, bias, vector, 0)[0],
        absorbing.conv_input(weight, bias, vector, 1, False)[0],
        absorbing.conv_transpose_output(weight, bias, vector, 1)[0],
        absorbing.conv_transpose_input(weight, vector.only_scale()),
        absorbing.matmul_input(weight, vector, -2)[0],
        absorbing.matmul_output(weight, vector.scale, -2),
        absorbing.einsum_output(weight, "abc", vector.scale, "a"),
        absorbing.einsum_input(weight[0], "ab", vector, "a", "ab")[0],
        absorbing.recurrent_input(weight, np.full((1, 2), 1e300), vector)[0],
    ):
        assert not np.isfinite(new_weight).all()


def test_weights_without_channels(rng):
    empty = np.ones((0, 3, 3))
    assert absorbing.conv_input(empty, None, of(rng.normal(size=3), 1.0), 1, False)[1].shape == (0,)
    assert absorbing.absorb(empty, None, of(2.0, 1.0), 0)[1].shape == (0,)
