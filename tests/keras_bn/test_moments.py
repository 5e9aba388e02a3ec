import numpy as np
import pytest
import tensorflow as tf

from keras_bn.moments import batch_moments, per_channel
from keras_bn.weighting import in_ghost_batches
from tests.tolerances import FLOAT64, assert_close

pytestmark = pytest.mark.onednn


def weighted(x, w):
    """Return mean, variance, total and effective count over all axes but the last."""
    x, w = np.asarray(x, np.float64), np.broadcast_to(w, x.shape).astype(np.float64)
    axes = tuple(range(x.ndim - 1))
    total = w.sum(axes)
    mean = np.where(w > 0, w * x, 0.0).sum(axes) / total
    variance = np.where(w > 0, w * (x - mean) ** 2, 0.0).sum(axes) / total
    return mean, variance, total, total**2 / (w**2).sum(axes)


@pytest.mark.parametrize("mean", [0.0, 1e3, 1e5, -1e5])
def test_moments_keep_the_digits_of_the_spread(rng, mean):
    x = (mean + rng.normal(size=(32, 28, 28, 4))).astype(np.float32)
    m = batch_moments(tf.constant(x), [0, 1, 2])
    expected_mean, variance, _, _ = weighted(x, 1.0)
    assert_close(m.centred, x - expected_mean, 5e-5)
    assert_close(1.0 + m.mean[0, 0, 0], 1.0 + expected_mean, 1e-6)  # of the spread, or the mean
    assert_close(m.variance[0, 0, 0], variance, 5e-5)


def test_weights_enter_mean_variance_and_count(rng):
    x, w = rng.normal(3.0, 2.0, (6, 5, 4)), rng.uniform(0.0, 2.0, (6, 5, 1))
    m = batch_moments(tf.constant(x), [0, 1], tf.constant(w))
    for actual, expected in zip(
        (m.mean, m.variance, m.total, m.effective), weighted(x, w), strict=True
    ):
        assert_close(actual[0, 0], expected, FLOAT64)


def test_equal_weights_are_no_weights(rng):
    x = rng.normal(3.0, 2.0, (6, 5, 4))
    plain, half = (
        batch_moments(tf.constant(x), [0, 1]),
        batch_moments(tf.constant(x), [0, 1], tf.fill([6, 1, 1], tf.constant(0.5, tf.float64))),
    )
    assert_close(half.variance, plain.variance, FLOAT64)
    assert_close(half.effective[0, 0], np.full(4, 30.0), FLOAT64)
    assert float(plain.effective) == 30.0


def test_what_weighs_nothing_may_be_nan(rng):
    x, w = rng.normal(3.0, 2.0, (6, 4)), np.ones((6, 1))
    w[2] = 0.0
    expected = weighted(x, w)
    x[2] = np.nan
    m = batch_moments(tf.constant(x), [0], tf.constant(w))
    assert_close(m.mean[0], expected[0], FLOAT64)
    assert_close(m.variance[0], expected[1], FLOAT64)


@pytest.mark.parametrize("shape", [(0, 4), (3, 4)])
def test_no_weight_at_all_gives_zeros(shape):
    weights = None if shape[0] == 0 else tf.zeros((3, 1))
    m = batch_moments(tf.ones(shape), [0], weights)
    total, mean, variance, unbiased = per_channel(m, 4)
    for statistic in (total, mean, variance, unbiased):
        np.testing.assert_array_equal(statistic, np.zeros(4))


def test_nan_stays_nan():
    m = batch_moments(tf.constant([[1.0], [np.nan]]), [0])
    assert np.isnan(m.variance).all()


def test_gradients_of_weighted_moments(rng):
    """Against differences in float64."""
    x, w = rng.normal(size=(5, 2)), tf.constant(rng.uniform(0.5, 2.0, (5, 1)))
    upstream = tf.constant(rng.normal(size=(5, 2)))

    def loss(x):
        m = batch_moments(x, [0], w)
        return tf.reduce_sum(upstream * m.centred * tf.math.rsqrt(m.variance + 1e-3))

    with tf.GradientTape() as tape:
        point = tf.constant(x)
        tape.watch(point)
        value = loss(point)
    gradient = tape.gradient(value, point).numpy()
    step = 1e-6
    for index in np.ndindex(x.shape):
        ahead, behind = x.copy(), x.copy()
        ahead[index] += step
        behind[index] -= step
        slope = (loss(tf.constant(ahead)) - loss(tf.constant(behind))) / (2 * step)
        assert abs(float(slope) - gradient[index]) < 1e-6


def test_unbiased_variance_uses_the_effective_count(rng):
    x, w = rng.normal(size=(6, 4)), rng.uniform(0.1, 2.0, (6, 1))
    _, variance, total, n = weighted(x, w)
    result = per_channel(batch_moments(tf.constant(x), [0], tf.constant(w)), 4)
    assert_close(result[0], total, FLOAT64)
    assert_close(result[3], variance * n / (n - 1), FLOAT64)


def test_ghost_batches_are_averaged(rng):
    x = rng.normal(3.0, 2.0, (12, 5, 4))
    groups = in_ghost_batches(tf.constant(x), 3)
    assert groups.shape == (4, 3, 5, 4)
    _, mean, variance, unbiased = per_channel(batch_moments(groups, [1, 2]), 4)
    parts = [weighted(x[i : i + 3], 1.0) for i in range(0, 12, 3)]
    assert_close(mean, np.mean([p[0] for p in parts], 0), FLOAT64)
    assert_close(variance, np.mean([p[1] for p in parts], 0), FLOAT64)
    assert_close(unbiased, np.mean([p[1] * 15 / 14 for p in parts], 0), FLOAT64)


def test_ghost_batch_without_weight_does_not_count(rng):
    x, w = rng.normal(size=(4, 3)), np.ones((4, 1))
    w[2:] = 0.0
    groups, weights = (in_ghost_batches(tf.constant(t), 2) for t in (x, w))
    _, mean, *_ = per_channel(batch_moments(groups, [1], weights), 3)
    assert_close(mean, x[:2].mean(0), FLOAT64)
