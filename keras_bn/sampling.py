"""A few values of every channel, spread over a batch: enough to see where its mean is.

The places follow the golden ratio: frac(i * 0.618...) of each axis. Equally spaced ones would hit
the same pixel of every image, such as a corner, which may be nothing like the rest.
"""

from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["spread_sample"]

GOLDEN = (5**0.5 - 1) / 2
EACH = {1: 16, 2: 6, 3: 4}  # values along each axis, by the number of axes; 3 for more axes


def spread_sample(x: Any, axes: list[int]) -> Any:
    """Pick a few places along each of some axes.

    Args:
        x: Any tensor of known rank.
        axes: The axes to sample.

    Returns:
        A tensor of the same rank and dtype with at most 16 places along an axis, and 81 in all over
        up to 4 axes; without elements if `x` has none.
    """
    fractions = (np.arange(1, EACH.get(len(axes), 3) + 1) * GOLDEN) % 1.0
    for axis in axes:
        size = x.shape[axis]
        if size is None:
            size = tf.shape(x, out_type=tf.int64)[axis]
            places = tf.cast(fractions * tf.cast(size, tf.float64), tf.int64)
            places = places[: tf.minimum(size, len(fractions))]
        else:
            places = (fractions * size).astype(np.int64)[:size]
        x = tf.gather(x, places, axis=axis)
    return x
