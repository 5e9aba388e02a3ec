import numpy as np
import pytest
from tolerances import FLOAT64, assert_close

from keras_bn.export.affine import Affine, absorb, batch_norm


def test_batch_norm_is_an_affine_map(rng):
    gamma, beta, mean = rng.normal(size=(3, 4))
    variance, x = rng.uniform(0.1, 2.0, 4), rng.normal(size=(5, 4))
    bn = batch_norm(gamma, beta, mean, variance, 1e-3)
    expected = gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta
    assert_close(bn.scale * x + bn.shift, expected, FLOAT64)


def test_batch_norm_of_a_negative_variance_is_nan():
    bn = batch_norm(np.ones(1), np.zeros(1), np.zeros(1), np.full(1, -1.0), 1e-3)
    assert np.isnan(bn.scale).all()


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("has_bias", [True, False])
def test_absorb_equals_the_map_after_the_operator(rng, axis, has_bias):
    weight = rng.normal(size=(3, 4))
    channels = weight.shape[axis]
    bias = rng.normal(size=channels) if has_bias else None
    after = Affine(rng.normal(size=channels), rng.normal(size=channels))
    x = rng.normal(size=(5, weight.shape[1 - axis]))

    def operate(w, b):
        return x @ (w.T if axis == 0 else w) + (0.0 if b is None else b)

    expected = after.scale * operate(weight, bias) + after.shift
    assert_close(operate(*absorb(weight, bias, after, axis)), expected, FLOAT64)


def test_absorb_adds_no_bias_for_a_zero_shift(rng):
    after = Affine(rng.normal(size=3), np.zeros(3))
    assert absorb(rng.normal(size=(3, 4)), None, after, 0)[1] is None
