"""An ONNX file -> how long it takes for a batch here, next to itself with its batch norms folded.

They take turns on the same drawn batch. Needs no TensorFlow; `timing.py` times Keras models.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..defaults import CPU
from ..errors import ExportError
from ..files.onnx_file import write
from ..files.provenance import OF_ONNX, versions
from ..files.whole_file import scratch_folder
from ..foreign.fold_opened import fold_opened
from ..foreign.opening import open_model
from ..foreign.weight_files import read_small
from ..parity.samples.kinds import SIZES
from ..runtime.latency import FOLDED, UNFOLDED, measure_latency
from ..runtime.providers import require_providers
from .benched import Bench, cannot_run, runner_of, size_of
from .print_latency import machine

__all__ = ["bench_onnx"]


def bench_onnx(
    path: Path,
    *,
    batch_size: int = 1,
    threads: int = 1,
    provider: str = CPU,
    seconds: float = 3.0,
) -> Bench:
    """Time an ONNX file against the same with its batch norms folded.

    Args:
        path: The file.
        batch_size: Samples in the batch, where the file does not fix that.
        threads: Threads of each session.
        provider: ONNX Runtime's execution provider.
        seconds: About how long to measure.

    Raises:
        ExportError: If the file cannot be read, folded or run, or there is no such provider.
    """
    require_providers([provider])
    opened = open_model(path)
    folded, fold = fold_opened(opened)
    values = opened.inputs
    inputs, outputs = ([str(v.name) for v in some] for some in (values, opened.model.graph.outputs))
    with scratch_folder() as folder:
        target = path
        if folded is not None:
            target = folder / "folded.onnx"
            read_small(folded)
            write(folded, target)
        failures = []
        for size in SIZES:  # what an unknown dimension is
            batch = [_drawn(value, batch_size, size) for value in values]
            runs: dict[str, Callable[[], object]] = {
                name: runner_of(file, inputs, outputs, batch, threads, provider)
                for name, file in ((UNFOLDED, path), (FOLDED, target))
            }
            try:
                for run in runs.values():
                    run()
                break
            except ExportError as e:
                failures.append(e)
        else:
            raise cannot_run(str(path), batch, failures[0]) from failures[0]
        latency = measure_latency(runs, batch_size=size_of(batch), threads=threads, seconds=seconds)
    return Bench(str(path), provider, latency, fold, machine(), versions(OF_ONNX))


def _drawn(value: Any, batch_size: int, size: int) -> np.ndarray:
    """Draw a batch for an input of a graph: normal floats, else 0 or 1."""
    if value.shape is None or value.dtype is None:
        raise ExportError(
            f"bench: an input must say its type and shape. Received: {value.name!r}, which does "
            "not. Infer them with onnx.shape_inference."
        )
    shape = [
        dimension if isinstance(dimension, int) else (size if axis else batch_size)
        for axis, dimension in enumerate(value.shape)
    ]
    dtype, generator = value.dtype.numpy(), np.random.default_rng(0)
    if value.dtype.is_floating_point():
        return np.asarray(generator.normal(size=shape)).astype(dtype)
    return np.asarray(generator.integers(0, 2, size=shape)).astype(dtype)
