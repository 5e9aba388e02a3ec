"""Bring together what the workers of a `tf.distribute` strategy have found, the same on all.

Each worker adds its numbers to a row of its own in one all-reduce. A worker that fails says so in
its row, so that the others raise instead of waiting for it.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

__all__ = ["gather"]


def gather(strategy: Any, local: Callable[[], np.ndarray], where: str) -> np.ndarray:
    """Compute numbers on every worker and return those of all workers.

    Args:
        strategy: The strategy that the model was made under; only a
            `tf.distribute.MultiWorkerMirroredStrategy` has several workers.
        local: Computes this worker's numbers: shape (n,), float64, the same n on all workers.
        where: Name of the function that was called, for messages.

    Returns:
        Shape (workers, n), float64.

    Raises:
        RuntimeError: If `local` raised on another worker; what it raises here goes through.
    """
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return local()[np.newaxis]
    try:
        numbers = local()
    except Exception:
        _exchange(strategy, -1)
        raise
    sizes = _exchange(strategy, len(numbers))
    if (sizes < 0).any():
        failed = [int(i) for i in np.flatnonzero(sizes < 0)]
        raise RuntimeError(
            f"{where}: every worker must finish. Received: an error on worker {failed}. "
            "Its own message says why; nothing was changed."
        )
    return _rows(strategy, numbers)


def _exchange(strategy: Any, number: int) -> np.ndarray:
    return _rows(strategy, np.array([number], np.float64))[:, 0]


def _rows(strategy: Any, numbers: np.ndarray) -> np.ndarray:
    """Return the numbers of all workers, a row each; one replica of each worker speaks for it."""
    on_this_worker = len(strategy.extended.worker_devices)
    workers = strategy.num_replicas_in_sync // on_this_worker

    def collect(numbers: Any) -> Any:
        context = tf.distribute.get_replica_context()
        index = context.replica_id_in_sync_group
        row = tf.one_hot(index // on_this_worker, workers, dtype=tf.float64)
        row *= tf.cast(index % on_this_worker == 0, tf.float64)
        own = row[:, tf.newaxis] * numbers[tf.newaxis]
        return context.all_reduce(tf.distribute.ReduceOp.SUM, own)

    run = tf.function(lambda numbers: strategy.run(collect, args=(numbers,)))
    run._omit_frequent_tracing_warning = True  # each call has a function of its own
    rows = strategy.experimental_local_results(run(tf.constant(numbers)))[0]
    return np.asarray(rows)
