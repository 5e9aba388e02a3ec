import numpy as np
import pytest
import tensorflow as tf

from keras_bn.sampling import spread_sample


@pytest.mark.parametrize(
    ("shape", "axes", "expected"),
    [
        ((1000, 3), [0], (16, 3)),
        ((20, 3, 30), [0, 2], (6, 3, 6)),
        ((8, 9, 10, 3), [0, 1, 2], (4, 4, 4, 3)),
        ((2, 9, 10, 3), [0, 1, 2], (2, 4, 4, 3)),
        ((0, 3), [0], (0, 3)),
        ((4, 0, 3), [0, 1], (4, 0, 3)),
    ],
)
@pytest.mark.parametrize("static", [True, False])
def test_sample_has_a_few_places_of_each_axis(shape, axes, expected, static):
    known = [n if static or i not in axes else None for i, n in enumerate(shape)]
    function = tf.function(
        lambda x: spread_sample(x, axes), input_signature=[tf.TensorSpec(known, tf.float32)]
    )
    assert function(tf.zeros(shape)).shape == expected


def test_places_do_not_repeat_a_grid():
    """Of 64 x 64 pixels, in rows, no column is hit twice."""
    rows = tf.range(32 * 64 * 64)[:, tf.newaxis]
    columns = spread_sample(rows, [0]).numpy().ravel() % 64
    assert len(np.unique(columns)) >= 12
