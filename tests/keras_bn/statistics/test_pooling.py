"""The moments of many batches against NumPy on their values laid end to end."""

import numpy as np
import pytest

from keras_bn.statistics.pooling import Pool
from tests.oracles import averaged_statistics, moments, pooled_statistics
from tests.tolerances import FLOAT64, assert_close

SIZES = (32, 7, 1, 40)


def drawn(rng, sizes=SIZES, mean=3.0):
    """Return batches of three channels and their weights, each batch around a mean of its own."""
    batches = [rng.normal(mean + i, 1.0 + i, (n, 3)) for i, n in enumerate(sizes)]
    return batches, [rng.uniform(0.5, 2.0, n) for n in sizes]


def described(x, w=None):
    """Return a batch as `Pool.add` takes it: W, effective number, mean, biased variance."""
    w = np.ones(len(x)) if w is None else w
    mean, variance, total = moments(x, mask=w)
    return total, total**2 / np.sum(w**2), mean, variance


def pool_of(batches, weights=None):
    pool = Pool(batches[0].shape[1])
    for x, w in zip(batches, weights or [None] * len(batches), strict=True):
        pool.add(*described(x, w))
    return pool


def test_pooled_is_the_moments_of_all_values(rng):
    batches, _ = drawn(rng)
    values = np.concatenate(batches)
    mean, variance = pool_of(batches).pooled()
    assert_close(mean, values.mean(0), FLOAT64)
    assert_close(variance, values.var(0, ddof=1), FLOAT64)


def test_pooled_weighs_values(rng):
    batches, weights = drawn(rng)
    pool = pool_of(batches, weights)
    assert_close(pool.pooled(), pooled_statistics(batches, weights=weights), FLOAT64)
    w = np.concatenate(weights)
    assert_close(pool.effective, np.full(3, w.sum() ** 2 / np.sum(w**2)), FLOAT64)


def test_averaged_counts_a_batch_once_whatever_its_size(rng):
    batches = [x for x in drawn(rng)[0] if len(x) > 1]
    mean, variance = pool_of(batches).averaged()
    assert_close(mean, np.mean([x.mean(0) for x in batches], axis=0), FLOAT64)
    assert_close(variance, np.mean([x.var(0, ddof=1) for x in batches], axis=0), FLOAT64)


def test_averaged_corrects_by_the_effective_number(rng):
    batches, weights = drawn(rng)
    found = pool_of(batches, weights).averaged()
    assert_close(found, averaged_statistics(batches, weights=weights), FLOAT64)


def test_pooled_counts_the_spread_between_batches_and_averaged_does_not():
    batches = [np.full((4, 1), 0.0), np.full((4, 1), 2.0)]
    pool = pool_of(batches)
    assert pool.averaged()[1] == 0.0
    assert_close(pool.pooled()[1], [8 / 7], FLOAT64)


def test_single_value_has_variance_zero():
    pool = pool_of([np.array([[5.0]])])
    assert pool.pooled() == (5.0, 0.0)
    assert pool.averaged()[0] == 5.0
    assert (pool.batches, pool.variance_batches) == (1, 0)


def test_large_mean_costs_no_digits_of_the_spread(rng):
    batches = [rng.normal(1e6, 1.0, (50, 2)) for _ in range(200)]
    mean, variance = pool_of(batches).pooled()
    centred = np.concatenate(batches) - 1e6
    assert_close(mean - 1e6, centred.mean(0), 1e-6)
    assert_close(variance, centred.var(0, ddof=1), 1e-9)


def test_factor_of_many_values_keeps_its_digits():
    pool = Pool(1)
    pool.add([2.0**30], [2.0**30], [0.0], [1.0])  # m / (m - 1) is 1 in float32
    assert pool.pooled()[1] == 2.0**30 / (2.0**30 - 1)


@pytest.mark.parametrize("split", range(len(SIZES) + 1))
def test_merge_equals_add(rng, split):
    batches, weights = drawn(rng)
    whole, first, second = pool_of(batches, weights), Pool(3), Pool(3)
    for i, (x, w) in enumerate(zip(batches, weights, strict=True)):
        (first if i < split else second).add(*described(x, w))
    first.merge(second)
    assert_close(first.to_array(), whole.to_array(), FLOAT64)


def test_merge_of_an_empty_pool_changes_no_bit(rng):
    pool = pool_of(*drawn(rng))
    before = pool.to_array()
    pool.merge(Pool(3))
    np.testing.assert_array_equal(pool.to_array(), before)


def test_array_there_and_back_keeps_every_bit(rng):
    pool = pool_of(*drawn(rng))
    again = Pool.from_array(pool.to_array())
    assert pool.to_array().shape == (len(Pool.FIELDS), 3)
    np.testing.assert_array_equal(again.to_array(), pool.to_array())
    for statistics in ("pooled", "averaged"):
        np.testing.assert_array_equal(getattr(again, statistics)(), getattr(pool, statistics)())


def test_batch_without_weight_changes_no_bit(rng):
    pool = pool_of(*drawn(rng))
    before = pool.to_array()
    pool.add(np.zeros(3), np.zeros(3), np.full(3, 7.0), np.full(3, 7.0))
    np.testing.assert_array_equal(pool.to_array(), before)


def test_channel_without_weight_is_left_out_of_that_batch(rng):
    x = rng.normal(size=(5, 2))
    total, effective, mean, variance = described(x)
    pool = pool_of([x])
    pool.add(total * [1, 0], effective * [1, 0], mean, variance)
    np.testing.assert_array_equal(pool.batches, [2, 1])
    assert_close(pool.averaged()[1], x.var(0, ddof=1), FLOAT64)


def test_add_all_takes_a_batch_for_each_group_of_each_use(rng):
    groups = rng.normal(size=(4, 6, 3))
    rows = [np.broadcast_arrays(*described(x), np.empty(3))[:4] for x in groups]
    uses = [tuple(map(np.stack, zip(*part, strict=True))) for part in (rows[:3], rows[3:])]
    pool = Pool(3)
    pool.add_all(uses)
    assert_close(pool.to_array(), pool_of(list(groups)).to_array(), FLOAT64)


def test_empty_pool_has_zeros_and_not_nan():
    for statistic in (*Pool(2).pooled(), *Pool(2).averaged(), Pool(2).effective):
        np.testing.assert_array_equal(statistic, np.zeros(2))
