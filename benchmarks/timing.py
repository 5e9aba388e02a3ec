"""Time two functions in turn, A B A B ..., so that a busy machine slows both alike."""

import statistics
import time
from collections.abc import Callable

__all__ = ["compare"]


def compare(
    ours: Callable[[], object], peer: Callable[[], object], runs: int
) -> tuple[float, float, float]:
    """Return the median seconds of both and the median of the ratios peer / ours, pair by pair.

    Args:
        ours: What this package does; the first call is not counted.
        peer: What the peer does; likewise.
        runs: Number of counted pairs.
    """
    pairs = []
    for run in range(runs + 1):
        seconds = []
        for function in (ours, peer):
            start = time.perf_counter()
            function()
            seconds.append(time.perf_counter() - start)
        if run:
            pairs.append(seconds)
    ratio = statistics.median(b / a for a, b in pairs)
    return statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs), ratio
