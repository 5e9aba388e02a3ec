"""Each law of the algebra against the operator itself, applied to a random tensor."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_bn.export.stages.folding.algebra import absorbing, affine
from keras_bn.export.stages.folding.algebra import rearranging as moving
from keras_bn.export.stages.folding.algebra.affine import Affine
from keras_bn.export.stages.folding.reason import NotExactError, Reason
from tests.export.stages.folding.algebra.affine_maps import (
    applied,
    maps,
    of,
    refused,
    rngs,
    run_operator,
    same,
    shapes,
    vectors,
)
from tests.tolerances import FLOAT32, FLOAT64, assert_close

data = st.data()


# The map


def test_batch_norm_is_an_affine_map(rng):
    gamma, beta, mean = rng.normal(size=(3, 4))
    variance, x = rng.uniform(0.1, 2.0, 4), rng.normal(size=(5, 4))
    bn = affine.batch_norm(gamma, beta, mean, variance, 1e-3)
    expected = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    assert_close(bn.scale * x + bn.shift, expected, FLOAT64)


@pytest.mark.parametrize("variance", [-1.0, 0.0, np.nan, np.inf])
def test_batch_norm_that_is_not_finite_does_not_warn(variance):
    one = np.ones(1)
    bn = affine.batch_norm(one, one, one, np.full(1, variance), 0.0)
    assert bn.is_finite == (variance == np.inf)  # which makes it constant: gamma / inf is 0


def test_map_is_of_size_1_where_it_is_the_same():
    a = Affine(np.full((2, 3), 4.0), np.arange(2.0).reshape(2, 1).repeat(3, 1))
    assert (a.scale.shape, a.shift.shape, a.axes) == ((1, 1), (2, 1), {0})


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_map_of_no_elements_is_the_identity(shape):
    none, one = np.zeros(shape), np.full((1,) * len(shape), 2.0)
    for a in (Affine(none, one), Affine(one, none)):
        assert (a.rank, a.axes, a.is_identity) == (len(shape), set(), True)


def test_map_of_a_scalar_stays_an_array():
    a = Affine(np.array(2.0), np.array(3.0))
    assert a.rank == 0
    for other in (a.after(a), a.inverse(), a.only_shift(), moving.transposed(a, [])):
        assert isinstance(other.scale, np.ndarray)
    assert applied(a.after(a), np.array(1.0)) == 13.0


@given(data, shapes(0))
def test_composition_applies_one_map_after_the_other(data, shape):
    a, b, c = (data.draw(maps(shape)) for _ in range(3))
    x = data.draw(rngs()).normal(size=shape)
    assert_close(applied(a.after(b), x), applied(a, applied(b, x)), FLOAT64)
    same(a.after(b).after(c), a.after(b.after(c)))
    same(a.after(affine.identity(a.rank)), a)
    same(affine.identity(a.rank).after(a), a)
    same(a.only_shift().after(a.only_scale()), a)


@given(data, shapes(0))
def test_inverse_undoes_without_a_trace(data, shape):
    a = data.draw(maps(shape, invertible=True))
    assert a.after(a.inverse()).is_identity
    assert a.inverse().after(a).is_identity
    x = data.draw(rngs()).normal(size=shape)
    assert_close(applied(a.inverse().inverse(), x), applied(a, x), FLOAT64)


@pytest.mark.parametrize(
    ("scale", "shift"), [(0.0, 1.0), (np.inf, 1.0), (np.nan, 1.0), (1.0, np.nan), (1e-300, 1e300)]
)
def test_inverse_refuses_what_it_cannot_undo(scale, shift):
    with refused(Reason.NOT_FINITE, "cannot be undone"):
        of([1.0, scale], [0.0, shift]).inverse()


def test_composition_keeps_what_is_not_finite():
    for bad in (np.inf, -np.inf, np.nan):
        assert not affine.identity(1).after(of(1.0, bad)).is_finite
        assert not of(1.0, bad).after(of(2.0, 3.0)).is_finite
        assert not of(2.0, 3.0).after(of(bad, 0.0)).is_finite
    assert not of(1e200).after(of(1e200)).is_finite


def test_composition_keeps_a_small_shift_and_drops_rounding():
    assert of(1.0, 1e-30).after(of(1.0, 1e-31)).shift.item() == 1e-30 + 1e-31
    assert of(3.0, -0.3).after(of(1.0, 0.1)).is_scale  # 3 * 0.1 - 0.3 is 5.6e-17


def test_refusal_says_why():
    error = NotExactError(Reason.SHIFT, "of 3")
    assert (error.reason, error.detail) == (Reason.SHIFT, "of 3")


# What lets only some maps through


@given(data)
def test_mean_keeps_a_map_that_is_the_same_along_its_axes(data):
    a, x = data.draw(maps((2, 3, 4), along=[0, 1])), data.draw(rngs()).normal(size=(2, 3, 4))
    mean = lambda x: run_operator("ReduceMean", x, np.array([2]))  # noqa: E731
    assert_close(mean(applied(a, x)), applied(affine.constant_along(a, {2}), mean(x)), FLOAT64)


@given(
    data,
    st.sampled_from(["linear", "nearest", "cubic"]),
    st.sampled_from(["half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel"]),
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
)
def test_interpolation_keeps_a_map_that_is_the_same_along_its_axes(data, mode, where, sizes):
    x = data.draw(rngs()).normal(size=(1, 3, 4, 3))
    a = affine.constant_along(data.draw(maps(x.shape, along=[0, 1])), {2, 3})

    def resize(x):
        return run_operator(
            "Resize", x, None, None, np.array([1, 3, *sizes]), mode=mode,
            coordinate_transformation_mode=where,
        )  # fmt: skip

    tolerance = FLOAT32 if mode == "cubic" else FLOAT64  # its coefficients are float32
    expected = resize(applied(a, x))
    assert np.abs(applied(a, resize(x)) - expected).max() <= tolerance * 10


def test_average_pool_keeps_a_map_of_channels(rng):
    x, a = rng.normal(size=(1, 2, 5, 5)), of([2.0, -3.0], [1.0, 4.0], (1, 2, 1, 1))
    pool = lambda x: run_operator("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4)  # noqa: E731
    assert_close(pool(applied(a, x)), applied(affine.constant_along(a, {2, 3}), pool(x)), FLOAT64)


def test_constant_along_names_the_axis_that_differs():
    a = of([1.0, 2.0], shape=(1, 2, 1))
    assert affine.constant_along(a, {0, 2}) is a
    with refused(Reason.NOT_PER_CHANNEL, "it differs along axis 1"):
        affine.constant_along(a, {1, 2})
    with refused(Reason.NOT_PER_CHANNEL, "it differs along axis 1"):
        affine.constant_along(a.inverse().only_scale(), frozenset({1}))


@given(data)
def test_maximum_keeps_a_scale_that_is_not_negative(data):
    x = data.draw(rngs()).normal(size=(1, 3, 4, 5))
    a = data.draw(maps(x.shape, along=[0, 1]))
    a = affine.through_maximum(Affine(np.abs(a.scale), a.shift))
    for f in (
        lambda x: run_operator("MaxPool", x, kernel_shape=[2, 3], pads=[1, 1, 0, 1]),
        lambda x: run_operator("ReduceMax", x, np.array([2, 3])),
    ):
        np.testing.assert_array_equal(f(applied(a, x)), applied(a, f(x)))


@pytest.mark.parametrize("scale", [-1e-300, -np.inf, np.nan])
def test_maximum_refuses_a_negative_scale(scale):
    with refused(Reason.NEGATIVE_SCALE, "a scale of (-1e-300|-inf|nan)"):
        affine.through_maximum(of([1.0, scale]))


@given(data)
def test_product_sum_and_relu_keep_a_scale(data):
    rng = data.draw(rngs())
    x, z = rng.normal(size=(2, 3, 4)), rng.normal(size=(1, 3, 4))
    a = affine.through_product(data.draw(maps(x.shape, along=[0, 1], kinds=["scale"])))
    assert_close(applied(a, x) * z, applied(a, x * z), FLOAT64)
    total = lambda x: run_operator("ReduceSum", x, np.array([2]))  # noqa: E731
    assert_close(total(applied(a, x)), applied(a, total(x)), FLOAT64)
    a = affine.through_maximum(Affine(np.abs(a.scale), a.shift))
    for f in ("Relu", "Abs"):
        np.testing.assert_array_equal(
            run_operator(f, applied(a, x)), applied(a, run_operator(f, x))
        )


@pytest.mark.parametrize("shift", [1e-300, np.inf, np.nan])
def test_product_refuses_a_shift(shift):
    with refused(Reason.SHIFT, "a shift of up to (1e-300|inf|nan)"):
        affine.through_product(of([1.0, 1.0], [0.0, shift]))


@given(data, st.floats(-4, 4))
def test_padding_is_mapped_with_the_tensor(data, value):
    x = data.draw(rngs()).normal(size=(1, 3, 4))
    a = data.draw(maps(x.shape, along=[], invertible=True))
    pads = np.array([0, 0, 2, 0, 0, 1])
    pad = lambda x, value: run_operator("Pad", x, pads, np.float64(value))  # noqa: E731
    after = affine.padding_after(a, value)
    np.testing.assert_array_equal(pad(applied(a, x), after), applied(a, pad(x, value)))
    before = affine.padding_before(a, value)
    assert_close(applied(a, pad(x, before)), pad(applied(a, x), value), FLOAT64)


def test_padding_that_channels_agree_on():
    assert affine.padding_after(of([1.0, 2.0]), 0.0) == 0.0
    assert affine.padding_after(of([1.0, 2.0], [2.0, 1.0]), 1.0) == 3.0
    assert affine.padding_before(of([1.0, 2.0], [2.0, 4.0]), 0.0) == -2.0
    assert affine.padding_before(of([0.0, 2.0], [6.0, 4.0]), 6.0) == 1.0
    assert affine.padding_before(of([0.0, 0.0], [6.0, 6.0]), 6.0) == 6.0  # any will do
    assert affine.padding_after(of([0.0, 0.0], [5.0, 5.0]), 7.0) == 5.0


def test_padding_with_infinity_stays_infinity_for_a_positive_scale():
    a = of([1.0, 2.0], [3.0, 4.0])
    assert affine.padding_before(a, -np.inf) == affine.padding_after(a, -np.inf) == -np.inf


@pytest.mark.parametrize(
    ("scale", "shift", "value"),
    [
        pytest.param([1.0, 1.0], [0.0, 1.0], 0.0, id="shifts"),
        pytest.param([1.0, 2.0], [0.0, 0.0], 1.0, id="scales"),
        pytest.param([1.0, -2.0], [0.0, 0.0], -np.inf, id="a sign"),
        pytest.param([1.0, np.nan], [0.0, 0.0], 0.0, id="no number"),
        pytest.param([0.0, 1.0], [0.0, 0.0], np.inf, id="infinity and a scale of zero"),
    ],
)
def test_padding_refuses_what_is_not_one_number(scale, shift, value):
    with refused(Reason.ZERO_PADDING):
        affine.padding_after(of(scale, shift), value)
    with refused(Reason.ZERO_PADDING):
        affine.padding_before(of(scale, shift), value)


def test_padding_before_a_scale_of_zero_that_gives_another_number():
    with refused(Reason.ZERO_PADDING, "a scale of zero"):
        affine.padding_before(of([0.0, 1.0], [3.0, 0.0]), 0.0)


# The map of a vector


@given(data, shapes())
def test_vector_is_the_map_along_one_axis(data, shape):
    axis = data.draw(st.integers(0, len(shape) - 1))
    vector = data.draw(vectors(shape[axis]))
    same(absorbing.vector(affine.along(vector, axis, len(shape)), axis, shape[axis]), vector)


def test_vector_refuses_another_axis_and_a_single_channel_that_repeats():
    with refused(Reason.NOT_PER_CHANNEL, "it differs along axis 0"):
        absorbing.vector(of([1.0, 2.0], shape=(2, 1)), 1, 2)
    with refused(Reason.NOT_PER_CHANNEL, "2 values for 1 channels"):
        absorbing.vector(of(1.0, [1.0, 2.0], (1, 2)), 1, 1)
