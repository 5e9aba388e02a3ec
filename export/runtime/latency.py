"""How long models take for a batch, each against the others in turns in one process.

Each turn runs every contestant once, in a new order, so that a busy machine slows all alike. A
fixed order would always let the same one run on a cache that another has just filled. What is
quoted are the median and the quartiles of the turns, and the median of the ratios within a turn.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

__all__ = ["FOLDED", "UNFOLDED", "Latency", "Timing", "alternate", "measure_latency"]

UNFOLDED, FOLDED = "ONNX Runtime, before folding", "ONNX Runtime, folded"
WARM_UP = 3  # turns that do not count; the first one compiles
FEWEST, MOST = 9, 2001  # turns that do


@dataclasses.dataclass(frozen=True)
class Timing:
    """One contestant.

    Attributes:
        name: What it is, in words.
        median: Milliseconds for a batch.
        low: Likewise the first quartile.
        high: Likewise the third quartile.
        ratio: How many times as long as the last contestant it takes, the median over the turns;
            None if they did not run in turns.
    """

    name: str
    median: float
    low: float
    high: float
    ratio: float | None = None


@dataclasses.dataclass(frozen=True)
class Latency:
    """The contestants, in the order in which they were given.

    Attributes:
        batch_size: Samples in the batch.
        turns: How often each of them ran.
        threads: Threads of each ONNX Runtime session.
        timings: An entry for each contestant.
    """

    batch_size: int
    turns: int
    threads: int
    timings: tuple[Timing, ...]


def measure_latency(
    contestants: Mapping[str, Callable[[], object]],
    *,
    batch_size: int,
    threads: int,
    seconds: float = 3.0,
) -> Latency:
    """Time functions that run a model on a batch.

    Args:
        contestants: The functions, by what they are in words; ratios are to the last one.
        batch_size: Samples in the batch, for the report.
        threads: Threads that each may use, likewise.
        seconds: About how long to measure, in all; it takes longer where `FEWEST` turns do.

    Returns:
        Their times.
    """
    functions = list(contestants.values())
    trial = alternate(functions, runs=1, warm_up=WARM_UP).sum()
    turns = int(min(max(seconds / max(trial, 1e-9), FEWEST), MOST))
    taken = alternate(functions, turns, warm_up=0)
    low, median, high = 1e3 * np.quantile(taken, (0.25, 0.5, 0.75), axis=0)
    ratios = np.median(taken / taken[:, -1:], axis=0)
    timings = tuple(
        Timing(name, *map(float, figures))
        for name, *figures in zip(contestants, median, low, high, ratios, strict=True)
    )
    return Latency(batch_size, turns, threads, timings)


def alternate(
    functions: Sequence[Callable[[], object]],
    runs: int,
    warm_up: int = 1,
    clock: Callable[[], float] | None = None,
) -> np.ndarray:
    """Return seconds, shape (runs, len(functions)); each row is one turn of all functions.

    Args:
        functions: What to time.
        runs: Number of counted turns.
        warm_up: Number of turns before those, not counted.
        clock: Returns seconds; None takes `time.perf_counter`. `time.thread_time` counts what this
            thread has of a CPU, which a busy machine leaves as it is.
    """
    clock = clock or time.perf_counter
    order = np.random.default_rng(0)
    seconds = np.zeros((warm_up + runs, len(functions)))
    for turn in seconds:
        for i in order.permutation(len(functions)):
            start = clock()
            functions[i]()
            turn[i] = clock() - start
    return seconds[warm_up:]
