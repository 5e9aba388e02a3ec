"""Products of any rank absorb a map: MatMul and Einsum, with weights of both kinds."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_bn.export.stages.folding.algebra import absorbing, affine
from keras_bn.export.stages.folding.algebra.absorbing import values
from keras_bn.export.stages.folding.algebra.affine import Affine
from keras_bn.export.stages.folding.reason import NotExactError, Reason
from tests.export.stages.folding.algebra.affine_maps import (
    applied,
    applied_along,
    maps,
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
def products(draw, min_weight_rank=2):
    """Draw a constant operand, another, and whether the constant stands on the left."""
    rows, inner, columns = (draw(st.integers(1, 3)) for _ in range(3))
    stack = draw(st.lists(st.integers(1, 3), max_size=2))
    other_stack = draw(st.lists(st.integers(2, 3), max_size=2)) if not stack else list(stack)
    stack = [draw(st.sampled_from([1, n])) for n in stack]
    left = draw(flags)
    weight_rank = draw(st.sampled_from([min_weight_rank, 2, 2]))
    matrix = [rows, inner] if left else [inner, columns]
    weight_shape = [*stack, *matrix] if weight_rank == 2 else [inner]
    other_shape = [*other_stack, inner, columns] if left else [*other_stack, rows, inner]
    if draw(st.integers(0, 4)) == 0:
        other_shape = [inner]
    return draw(weights(*weight_shape)), draw(rngs()).normal(size=other_shape), left


def product(x, weight, left):
    w = values(weight)
    return run_operator("MatMul", w, x) if left else run_operator("MatMul", x, w)


@given(data, products(min_weight_rank=1))
def test_matmul_absorbs_a_scale_behind_it_or_refuses(data, operands):
    weight, x, left = operands
    y = product(x, weight, left)
    after = data.draw(maps(y.shape, kinds=["scale"]))
    contracted = -1 if left or weight.ndim == 1 else -2
    try:
        new_weight = absorbing.matmul_output(weight, after.scale, contracted)
    except NotExactError as e:
        assert e.reason is Reason.NOT_PER_CHANNEL  # noqa: PT017 (either is right)
        assert after.axes
    else:
        assert_close(product(x, new_weight, left), applied(after, y), FLOAT64)
        assert same_kind(new_weight, weight)


@given(data, products())
def test_matmul_absorbs_every_scale_of_its_channels(data, operands):
    weight, x, left = operands
    y = product(x, weight, left)
    if x.ndim == 1:
        return
    after = data.draw(maps(y.shape, along=[y.ndim - (2 if left else 1)], kinds=["scale"]))
    new_weight = absorbing.matmul_output(weight, after.scale, -1 if left else -2)
    assert_close(product(x, new_weight, left), applied(after, y), FLOAT64)


@pytest.mark.parametrize(
    ("scale", "weight"),
    [
        pytest.param((1, 2, 1), (3, 4), id="along the rows, which the weight sums over"),
        pytest.param((2, 1, 1), (3, 4), id="along a stack of products with one matrix"),
        pytest.param((2, 1, 1), (1, 3, 4), id="along a stack of one matrix"),
        pytest.param((1, 1, 2), (3,), id="a product with a vector"),
        pytest.param((1, 4), (2, 3, 4), id="a vector times a stack"),
    ],
)
def test_matmul_refuses_a_scale_that_its_weights_do_not_keep(scale, weight):
    with refused(Reason.NOT_PER_CHANNEL, "weights"):
        absorbing.matmul_output(
            np.ones(weight), np.arange(1.0, 1 + np.prod(scale)).reshape(scale), -2
        )


@given(data, products(min_weight_rank=1))
def test_matmul_absorbs_before_it(data, operands):
    weight, x, left = operands
    axis = -2 if left and x.ndim > 1 else -1
    before = data.draw(vectors(x.shape[axis]))
    new_weight, lacking = absorbing.matmul_input(
        weight, before, -1 if left or weight.ndim == 1 else -2
    )
    expected = product(applied_along(before, x, axis), weight, left)
    assert same_kind(new_weight, weight)
    assert lacking.ndim == weight.ndim
    if x.ndim == 1:  # the product has no axis in the place of the one that is summed
        lacking = lacking.squeeze(-1 if left or weight.ndim == 1 else -2)
    elif weight.ndim == 1:
        lacking = lacking.squeeze(-1)
    assert_close(product(x, new_weight, left) + lacking, expected, FLOAT64)


EQUATIONS = [
    ("ab", "bc", "ac"),
    ("abc", "cd", "abd"),
    ("abcd", "cde", "abe"),
    ("abc", "cde", "abde"),
    ("abc", "cb", "abc"),
    ("abc", "abd", "cd"),
    ("abc", "ce", "ab"),
    ("abc", "ce", "eba"),
    ("aab", "bc", "ac"),
    ("ab", "bbc", "ac"),
    ("aab", "ac", "bc"),
]
LENGTHS = {"a": 2, "b": 3, "c": 4, "d": 2, "e": 3}


def einsum(x, weight, operand, labels, output):
    return run_operator("Einsum", x, values(weight), equation=f"{operand},{labels}->{output}")


@st.composite
def sums(draw):
    """Draw two operands of an Einsum, any axis of which may be 1 where the other's is not."""
    operand, labels, output = draw(st.sampled_from(EQUATIONS))
    short = draw(st.sampled_from(["", "", "a", "b", "c"]))
    shorter = {**LENGTHS, short: 1}
    sizes, others = (LENGTHS, shorter) if draw(flags) else (shorter, LENGTHS)
    weight = draw(weights(*(sizes[label] for label in labels)))
    x = draw(rngs()).normal(size=[others[label] for label in operand])
    return x, weight, operand, labels, output


@given(data, sums())
def test_einsum_absorbs_a_scale_behind_it_or_refuses(data, operands):
    y = einsum(*operands)
    x, weight, _, labels, output = operands
    after = data.draw(maps(y.shape, kinds=["scale"]))
    try:
        new_weight = absorbing.einsum_output(weight, labels, after.scale, output)
    except NotExactError as e:
        assert e.reason is Reason.NOT_PER_CHANNEL  # noqa: PT017 (either is right)
        assert after.axes
    else:
        assert_close(einsum(x, new_weight, *operands[2:]), applied(after, y), FLOAT64)
        assert same_kind(new_weight, weight)


@given(data, sums())
def test_einsum_absorbs_before_it_or_refuses(data, operands):
    x, weight, operand, labels, output = operands
    before = data.draw(maps(x.shape))
    try:
        new_weight, lacking = absorbing.einsum_input(weight, labels, before, operand, output)
    except NotExactError as e:
        assert e.reason in (Reason.NOT_PER_CHANNEL, Reason.SHIFT)  # noqa: PT017
        assert before.axes or not before.is_scale
    else:
        assert lacking.ndim == len(output)
        expected = einsum(applied(before, x), *operands[1:])
        assert_close(einsum(x, new_weight, *operands[2:]) + lacking, expected, FLOAT64)
        assert same_kind(new_weight, weight)


@given(data, st.sampled_from(EQUATIONS[:5]))
def test_einsum_absorbs_every_map_of_its_channels(data, equation):
    operand, labels, output = equation
    x = data.draw(rngs()).normal(size=[LENGTHS[label] for label in operand])
    weight = data.draw(weights(*(LENGTHS[label] for label in labels)))
    operands = (x, weight, *equation)
    channels = [axis for axis, label in enumerate(operand) if label in labels]
    before = data.draw(maps(x.shape, along=channels))
    new_weight, lacking = absorbing.einsum_input(weight, labels, before, operand, output)
    expected = einsum(applied(before, x), weight, *equation)
    assert_close(einsum(x, new_weight, *equation) + lacking, expected, FLOAT64)
    y = einsum(*operands)
    channels = [axis for axis, label in enumerate(output) if label in labels]
    after = data.draw(maps(y.shape, along=channels, kinds=["scale"]))
    new_weight = absorbing.einsum_output(weight, labels, after.scale, output)
    assert_close(einsum(x, new_weight, *equation), applied(after, y), FLOAT64)


def test_einsum_refuses_an_axis_that_its_weights_do_not_have():
    rows = np.array([[[1.0], [2.0]]])
    weight = np.ones((3, 4))
    with refused(Reason.NOT_PER_CHANNEL, "'cd' has not one axis 'b'"):
        absorbing.einsum_output(weight, "cd", rows, "abd")
    with refused(Reason.NOT_PER_CHANNEL, "'cd' has not one axis 'b'"):
        absorbing.einsum_input(weight, "cd", Affine(rows, np.zeros((1, 1, 1))), "abc", "abd")
    with refused(Reason.NOT_PER_CHANNEL, "'cc' has not one axis 'c'"):
        absorbing.einsum_output(np.ones((2, 2)), "cc", np.array([1.0, 2.0]), "c")
    with refused(Reason.NOT_PER_CHANNEL, "repeat along axis 'd'"):
        absorbing.einsum_output(np.ones((3, 1)), "cd", np.array([[1.0, 2.0]]), "ad")


@pytest.mark.parametrize(
    ("labels", "shape"),
    [pytest.param("bd", (2, 4), id="none"), pytest.param("cd", (1, 4), id="of size 1")],
)
def test_einsum_refuses_a_shift_of_what_it_sums_without_weights(labels, shape):
    shift = affine.identity(3).after(Affine(np.ones((1, 1, 1)), np.full((1, 1, 1), 2.0)))
    with refused(Reason.SHIFT, "a sum over an axis that the weights do not have"):
        absorbing.einsum_input(np.ones(shape), labels, shift, "abc", "abd")
