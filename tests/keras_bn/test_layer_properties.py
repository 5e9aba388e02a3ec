"""Laws of batch norm, on shapes, axes and options that Hypothesis chooses."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_bn import BatchNormalization
from tests.oracles import moments, normalise
from tests.tolerances import assert_close

pytestmark = pytest.mark.onednn


@st.composite
def batches(draw):
    """Draw a batch and a channel axis that is not the batch axis."""
    rank = draw(st.integers(2, 5))
    shape = [draw(st.integers(2, 5)) for _ in range(rank)]
    axis = draw(st.integers(1, rank - 1))
    seed = draw(st.integers(0, 2**16))
    x = np.random.default_rng(seed).normal(1.0, 2.0, shape).astype(np.float32)
    return x, axis


FUSED = st.sampled_from([None, False])


def train(x, axis, **options):
    layer = BatchNormalization(axis=axis, **options)
    return layer, np.asarray(layer(x, training=True))


@settings(max_examples=60)
@given(batches(), FUSED)
def test_output_and_statistics_follow_the_definition(batch, fused):
    x, axis = batch
    layer, y = train(x, axis, fused=fused, momentum=0.0)
    mean, variance, m = moments(x, axis)
    assert_close(y, normalise(x, mean, variance, 1.0, 0.0, layer.epsilon, axis))
    assert_close(layer.moving_variance, variance * m / (m - 1))


@settings(max_examples=40)
@given(batches(), FUSED, st.floats(-1e4, 1e4))
@example((np.arange(24, dtype=np.float32).reshape(4, 3, 2), 2), None, 1e4)
def test_output_does_not_see_a_shift_of_the_input(batch, fused, shift):
    x, axis = batch
    shifted = x + np.float32(shift)
    _, y = train((shifted - np.float32(shift)), axis, fused=fused)  # rounded alike
    assert_close(train(shifted, axis, fused=fused)[1], y, 2e-4)


@settings(max_examples=40)
@given(batches(), FUSED, st.randoms(use_true_random=False))
def test_order_of_the_batch_carries_through(batch, fused, random):
    x, axis = batch
    order = random.sample(range(len(x)), len(x))
    assert_close(train(x[order], axis, fused=fused)[1], train(x, axis, fused=fused)[1][order])


@settings(max_examples=40)
@given(batches(), FUSED, st.randoms(use_true_random=False))
def test_order_of_the_channels_carries_through(batch, fused, random):
    x, axis = batch
    order = random.sample(range(x.shape[axis]), x.shape[axis])
    moved = train(x.take(order, axis), axis, fused=fused)[1]
    assert_close(moved, train(x, axis, fused=fused)[1].take(order, axis))


@settings(max_examples=40)
@given(batches(), FUSED, st.floats(0.0, 1.0), st.integers(1, 4))
def test_equal_batches_follow_the_closed_form(batch, fused, momentum, times):
    x, axis = batch
    layer = BatchNormalization(axis=axis, momentum=momentum, fused=fused)
    for _ in range(times):
        layer(x, training=True)
    mean, variance, m = moments(x, axis)
    past = momentum**times
    expected = past * 1.0 + (1.0 - past) * variance * m / (m - 1)  # the initial variance is 1
    assert_close(layer.moving_variance, expected)
    assert_close(1.0 + np.asarray(layer.moving_mean), 1.0 + (1.0 - past) * mean, 1e-4)


@settings(max_examples=30)
@given(batches(), st.integers(1, 3))
def test_whole_weights_are_repetitions(batch, weight):
    x, axis = batch
    layer = BatchNormalization(axis=axis)
    weighted = layer(x, training=True, sample_weight=np.full(len(x), weight, np.float32))
    assert_close(weighted, train(x, axis)[1])


@settings(max_examples=40)
@given(
    axis=st.integers(-4, 4),
    momentum=st.none() | st.floats(0.0, 1.0),
    epsilon=st.floats(1e-9, 1.0),
    center=st.booleans(),
    scale=st.booleans(),
    bessel_correction=st.booleans(),
    fused=st.none() | st.booleans(),
    ghost_batch_size=st.none() | st.integers(1, 9),
    skip_nonfinite=st.booleans(),
)
def test_config_round_trips(**arguments):
    config = BatchNormalization(**arguments).get_config()
    assert {name: config[name] for name in arguments} == arguments
    assert BatchNormalization.from_config(config).get_config() == config
