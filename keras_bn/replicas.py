"""The replicas of a `tf.distribute` strategy: their moments merged in one all-reduce.

Each replica adds its (W, sum w^2, mean, M) to a slot of its own, and all merge the same slots in
the same order, by Chan's formula,

    M = M_a + M_b + (mean_b - mean_a)^2 W_a W_b / (W_a + W_b),        M = W variance

The gradient is one all-reduce more.

Reference:
    Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance".
"""

from typing import Any

import tensorflow as tf

__all__ = ["all_replicas", "merged_moments", "replicas"]


def replicas() -> int:
    """Return the number of replicas of the `tf.distribute` strategy that this code runs in."""
    context = tf.distribute.get_replica_context()
    return int(context.num_replicas_in_sync) if context is not None else 1


def all_replicas(own: Any) -> Any:
    """Gather a tensor of every replica, in one all-reduce.

    Args:
        own: This replica's, of one shape on all.

    Returns:
        Those of all, along a new first axis, the same on every replica.
    """
    context = tf.distribute.get_replica_context()
    slot = tf.range(replicas()) == context.replica_id_in_sync_group
    slot = tf.reshape(slot, [-1, *[1] * len(own.shape)])
    slots = tf.where(slot, own[tf.newaxis], tf.zeros_like(own)[tf.newaxis])
    return context.all_reduce(tf.distribute.ReduceOp.SUM, slots)


def merged_moments(total: Any, squares: Any, mean: Any, variance: Any) -> tuple[Any, Any, Any, Any]:
    """Merge the moments of all replicas; each argument is this replica's, and all are returned."""
    own = tf.stack(
        [tf.broadcast_to(part, tf.shape(mean)) for part in (total, squares, mean, variance * total)]
    )
    slots = all_replicas(own)
    totals, all_squares, means, deviations = tf.unstack(slots, axis=1)
    total, squares = tf.reduce_sum(totals, 0), tf.reduce_sum(all_squares, 0)
    # Means are averaged around that of the heaviest replica, the same on all, to keep their digits.
    heaviest = tf.one_hot(tf.argmax(totals), replicas(), axis=0, dtype=means.dtype)
    around = tf.stop_gradient(tf.reduce_sum(heaviest * means, 0))
    mean = around + tf.math.divide_no_nan(tf.reduce_sum(totals * (means - around), 0), total)
    deviation = tf.reduce_sum(deviations + totals * (means - mean) ** 2, 0)
    return total, squares, mean, tf.math.divide_no_nan(deviation, total)
