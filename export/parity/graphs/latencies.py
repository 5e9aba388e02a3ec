"""A folded ONNX file and the original -> how long each takes for a batch; imports no TensorFlow.

The batch is the first of those that `check_files` compares the two on: one sample, unless the file
fixes another number. ONNX Runtime runs at its default level of optimisation, in one thread.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from ...defaults import CPU
from ...runtime.latency import FOLDED, UNFOLDED, Latency, measure_latency
from ...runtime.session import LEVELS
from ..samples.given import split
from ..samples.kinds import draw_kinds
from .check_files import cannot_run
from .draws import distributions_of_graph, inputs_of
from .side import Side

__all__ = ["time_fold"]


def time_fold(
    original: Path,
    folded: Path,
    *,
    inputs: np.ndarray | dict[str, np.ndarray] | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seconds: float = 3.0,
) -> Latency:
    """Time a folded ONNX file against what it was folded from, in turns.

    Args:
        original: The original.
        folded: What became of it.
        inputs: Samples, as for `check_files`, of which the first is taken; None draws it.
        input_shapes: Sizes of some inputs, by name, for the draw; None leaves free ones to it.
        seconds: About how long to measure, in all.

    Raises:
        ExportError: If a file cannot be read or run, or the samples or sizes do not fit.
    """
    sides = [Side(original, "the first file", ""), Side(folded, "the second file", "the first")]
    proto = sides[0].proto
    specs = inputs_of(proto, input_shapes, told=True)
    names, outputs = [spec.name for spec in specs], [value.name for value in proto.graph.output]
    first, second = (side.runtime(LEVELS[-1], CPU).runner(names, outputs) for side in sides)
    if inputs is None:
        distributions = distributions_of_graph(proto, specs, {}, None)
        batches, _, _ = draw_kinds(specs, distributions, first, cannot_run, seed=0)
        batch = batches[0].arrays
    else:
        batch = next(split(inputs, specs)).arrays
    contestants: dict[str, Callable[[], object]] = {
        UNFOLDED: lambda: first(batch),
        FOLDED: lambda: second(batch),
    }
    size = next((len(array) for array in batch if array.ndim), 1)
    return measure_latency(contestants, batch_size=size, threads=1, seconds=seconds)
