import re

import numpy as np
import pytest
import tensorflow as tf

from keras_bn.weighting import combined_weights, in_ghost_batches

pytestmark = pytest.mark.onednn


def test_ghost_size_must_divide_the_batch():
    with pytest.raises(ValueError, match=re.escape("ghost_batch_size=4, batch size 6")):
        in_ghost_batches(tf.zeros((6, 3)), 4)
    dynamic = tf.function(
        lambda x: in_ghost_batches(x, 4), input_signature=[tf.TensorSpec((None, 3), tf.float32)]
    )
    with pytest.raises(tf.errors.InvalidArgumentError, match="ghost_batch_size=4"):
        dynamic(tf.zeros((6, 3)))


@pytest.mark.parametrize(
    ("sample_weight", "axis", "expected"),
    [
        ((6,), 3, (6, 1, 1, 1)),
        ((6, 4), 3, (6, 4, 1, 1)),
        ((6, 4, 5), 3, (6, 4, 5, 1)),
        ((6,), 1, (6, 1, 1, 1)),
        ((6, 4), 1, (6, 1, 4, 1)),
        ((6, 4, 5), 1, (6, 1, 4, 5)),
    ],
)
def test_sample_weights_are_a_leading_part_of_the_positions(sample_weight, axis, expected):
    x = tf.zeros((6, 4, 5, 3) if axis == 3 else (6, 3, 4, 5))
    assert combined_weights(x, axis, None, tf.ones(sample_weight)).shape == expected


def test_mask_and_sample_weights_multiply():
    x, mask = tf.zeros((2, 3, 4)), np.array([[True, True, False], [True, False, False]])
    w = combined_weights(x, 2, mask, tf.constant([2.0, 3.0]))
    np.testing.assert_array_equal(w[..., 0], [[2.0, 2.0, 0.0], [3.0, 0.0, 0.0]])


@pytest.mark.parametrize("shape", [(), (2, 3, 4)])
def test_sample_weight_of_wrong_rank_is_refused(shape):
    with pytest.raises(ValueError, match=re.escape(f"sample_weight.shape={shape}")):
        combined_weights(tf.zeros((2, 3, 4)), 2, None, tf.ones(shape))
