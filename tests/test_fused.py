import numpy as np
import pytest
from oracles import moments, normalise
from tolerances import assert_close

from keras_bn.fused import fused_inference, fused_training, why_not_fused


@pytest.mark.parametrize("axis", [-1, 3])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_kernel_takes_rank_4_channels_last(axis, dtype):
    assert why_not_fused(4, axis, dtype) is None


@pytest.mark.parametrize(
    ("rank", "axis", "dtype", "reason"),
    [
        (3, -1, "float32", "rank 3"),
        (None, -1, "float32", "rank None"),
        (4, 1, "float32", "`axis` is 1"),
        (4, -1, "float64", "float64"),
        (4, -1, "int32", "int32"),
    ],
)
def test_kernel_refuses_the_rest_with_a_reason(rank, axis, dtype, reason):
    assert reason in why_not_fused(rank, axis, dtype)


def test_training_returns_the_unbiased_variance(rng):
    x = rng.normal(3.0, 2.0, (2, 3, 3, 4)).astype(np.float32)
    gamma, beta = np.full(4, 2.0, np.float32), np.full(4, 0.5, np.float32)
    y, mean, variance = fused_training(x, gamma, beta, 1e-3)
    expected_mean, expected_variance, m = moments(x)
    assert_close(y, normalise(x, expected_mean, expected_variance, gamma, beta, 1e-3))
    assert_close(mean, expected_mean)
    assert_close(variance, expected_variance * m / (m - 1))


def test_inference_uses_what_it_is_given(rng):
    x = rng.normal(3.0, 2.0, (2, 3, 3, 4)).astype(np.float32)
    parameters = rng.uniform(0.5, 2.0, (4, 4)).astype(np.float32)
    gamma, beta, mean, variance = parameters
    y = fused_inference(x, gamma, beta, mean, variance, 1e-3)
    assert_close(y, normalise(x, mean, variance, gamma, beta, 1e-3))
