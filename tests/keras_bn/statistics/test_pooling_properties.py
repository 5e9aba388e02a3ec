"""Laws of a pool, for all batches."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tests.keras_bn.statistics.test_pooling import pool_of
from tests.tolerances import assert_close


@st.composite
def parts(draw):
    """Draw batches of one channel and their weights."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    sizes = draw(st.lists(st.integers(2, 9), min_size=1, max_size=6))
    mean = draw(st.sampled_from([0.0, -3.0, 1e6]))
    batches = [rng.normal(mean + rng.normal(), rng.uniform(0.5, 2.0), (n, 1)) for n in sizes]
    return batches, [rng.uniform(0.5, 2.0, n) for n in sizes]


@given(parts(), st.randoms(use_true_random=False))
def test_order_of_batches_does_not_matter(drawn, random):
    pairs = list(zip(*drawn, strict=True))
    before = pool_of(*drawn)
    random.shuffle(pairs)
    batches, weights = map(list, zip(*pairs, strict=True))
    after = pool_of(batches, weights)
    for statistics in ("pooled", "averaged"):
        for one, other in zip(
            getattr(before, statistics)(), getattr(after, statistics)(), strict=True
        ):
            assert_close(one, other, 1e-9)


@given(parts())
def test_pooled_does_not_depend_on_where_batches_are_cut(drawn):
    batches, weights = drawn
    whole = [np.concatenate(batches)], [np.concatenate(weights)]
    for one, other in zip(pool_of(*drawn).pooled(), pool_of(*whole).pooled(), strict=True):
        assert_close(one, other, 1e-9)


@given(parts())
def test_scaling_all_weights_changes_no_statistic(drawn):
    batches, weights = drawn
    scaled = [7.0 * w for w in weights]
    for statistics in ("pooled", "averaged"):
        one, other = (getattr(pool_of(batches, w), statistics)() for w in (weights, scaled))
        assert_close(one[0], other[0], 1e-9)
        assert_close(one[1], other[1], 1e-9)


@given(parts())
def test_copies_of_the_data_have_the_same_mean_and_biased_variance(drawn):
    batches, weights = drawn
    once, thrice = pool_of(batches, weights), pool_of(3 * batches, 3 * weights)
    assert_close(thrice.mean, once.mean, 1e-9)
    assert_close(thrice.deviations, 3 * once.deviations, 1e-9)
