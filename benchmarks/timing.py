"""Time functions in turn, in a new order each turn, so that a busy machine slows all alike.

A fixed order would always let the same function run on a cache that another has just filled.
"""

import time
from collections.abc import Callable, Sequence

import numpy as np

__all__ = ["alternate"]


def alternate(functions: Sequence[Callable[[], object]], runs: int, warm_up: int = 1) -> np.ndarray:
    """Return seconds, shape (runs, len(functions)); each row is one turn of all functions.

    Quote medians over the rows, and medians of ratios within a row.

    Args:
        functions: What to time.
        runs: Number of counted turns.
        warm_up: Number of turns before those, not counted.
    """
    order = np.random.default_rng(0)
    seconds = np.zeros((warm_up + runs, len(functions)))
    for turn in seconds:
        for i in order.permutation(len(functions)):
            start = time.perf_counter()
            functions[i]()
            turn[i] = time.perf_counter() - start
    return seconds[warm_up:]
