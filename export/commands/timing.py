"""A model file -> how long it takes for a batch here, next to what it is made from or into.

    MODEL.keras    Keras, compiled as its `predict` is; the graph before folding; the folded graph
    MODEL.onnx     the file; the file with its batch norms folded

All take turns in this process on the same drawn batch. ONNX Runtime runs at its default level of
optimisation. What is found holds for this machine and its load alone.
"""

import collections
import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from ..errors import ExportError, one_line
from ..files.onnx_file import write
from ..files.provenance import versions
from ..files.whole_file import scratch_folder
from ..foreign.fold_any import fold_opened
from ..foreign.opening import open_model
from ..foreign.weight_files import read_small
from ..parity.samples.kinds import SIZES
from ..parity.samples.samples import draw
from ..runtime.latency import FOLDED, UNFOLDED, Latency, measure_latency
from ..runtime.providers import CPU, require_providers
from ..runtime.session import LEVELS, OnnxRuntime, Samples
from ..signature import output_names, signature_of
from ..stages.conversion import convert
from ..stages.converted import StageFiles
from ..stages.folding.report import FoldReport
from .print_latency import machine, print_latency

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Bench", "bench_keras", "bench_onnx", "limit_keras", "print_bench"]

SCHEMA = 1  # version of the JSON; rises when a field changes its meaning or goes
IN_KERAS = "Keras"


@dataclasses.dataclass(frozen=True)
class Bench:
    """How long a model takes.

    Attributes:
        path: The model file.
        provider: ONNX Runtime's execution provider.
        latency: The times.
        fold: What folding changed.
        machine: Where it was measured, in words.
        versions: Versions of what it was measured with, by name.
    """

    path: str
    provider: str
    latency: Latency
    fold: FoldReport
    machine: str
    versions: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON-compatible data."""
        data = dataclasses.asdict(self)
        return {"schema": SCHEMA, **data, "fold": self.fold.to_dict()}


def limit_keras(threads: int) -> bool:
    """Let TensorFlow use so many threads; return whether it still could be told."""
    with contextlib.suppress(RuntimeError):  # it has begun to compute
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    return bool(tf.config.threading.get_intra_op_parallelism_threads() == threads)


def bench_keras(
    model: keras.Model,
    path: Path,
    *,
    file: Path | None = None,
    stages: StageFiles | None = None,
    batch_size: int = 1,
    threads: int = 1,
    provider: str = CPU,
    seconds: float = 3.0,
) -> Bench:
    """Time a Keras model, its graph before folding, and the folded one.

    Args:
        model: The model.
        path: The file that it is from, for the report.
        file: The folded graph; None takes that of the stages.
        stages: The stages of its export; exported here if they are not complete.
        batch_size: Samples in the batch, where the model does not fix that.
        threads: Threads of each ONNX Runtime session, and of Keras if it can still be told.
        provider: ONNX Runtime's execution provider.
        seconds: About how long to measure.

    Raises:
        ExportError: If the model cannot be exported or run, or there is no such provider.
    """
    require_providers([provider])
    keras_name = IN_KERAS if limit_keras(threads) else f"{IN_KERAS}, threads not limited"
    signature = signature_of(model)
    inputs = [spec.name for spec in signature.specs]
    batches, _, _ = draw(model, signature, seed=0)
    batch = [
        array if spec.shape.rank == 0 or spec.shape[0] else np.repeat(array, batch_size, axis=0)
        for spec, array in zip(signature.specs, batches[0].arrays, strict=True)
    ]
    compiled = tf.function(
        lambda *tensors: model(*signature.pack(list(tensors)), training=False),
        jit_compile=bool(model.jit_compile),
    )

    def predict() -> Any:
        return keras.tree.map_structure(
            keras.ops.convert_to_numpy, compiled(*map(tf.convert_to_tensor, batch))
        )

    try:
        outputs = output_names(model, inputs, predict())
    except Exception as e:  # running a model runs the code of every layer
        raise _cannot_run(str(path), batch, e) from e
    runs: dict[str, Callable[[], object]] = {keras_name: predict}
    with scratch_folder() as folder:
        stages = stages or StageFiles(folder)
        if not stages.complete:
            collections.deque(stages.keep(convert(model)), maxlen=0)
        for name, graph in (
            (UNFOLDED, stages.of("layout")),
            (FOLDED, file or stages.of("folding")),
        ):
            runs[name] = _runner(graph, inputs, outputs, batch, threads, provider)
        latency = measure_latency(runs, batch_size=_size(batch), threads=threads, seconds=seconds)
    return Bench(str(path), provider, latency, stages.files[-1].fold, machine(), versions())


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
                name: _runner(file, inputs, outputs, batch, threads, provider)
                for name, file in ((UNFOLDED, path), (FOLDED, target))
            }
            try:
                for run in runs.values():
                    run()
                break
            except ExportError as e:
                failures.append(e)
        else:
            raise _cannot_run(str(path), batch, failures[0]) from failures[0]
        latency = measure_latency(runs, batch_size=_size(batch), threads=threads, seconds=seconds)
    return Bench(str(path), provider, latency, fold, machine(), versions())


def _runner(
    path: Path,
    inputs: list[str],
    outputs: list[str],
    batch: Samples,
    threads: int,
    provider: str,
) -> Callable[[], object]:
    run = OnnxRuntime(path, LEVELS[-1], provider, threads=threads).runner(inputs, outputs)
    return lambda: run(batch)


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


def _size(batch: Samples) -> int:
    return next((len(array) for array in batch if array.ndim), 1)


def _cannot_run(source: str, batch: Samples, error: Exception) -> ExportError:
    return ExportError(
        "bench: the model must run on a drawn batch. "
        f"Received: {source!r}, on arrays of shape {[array.shape for array in batch]}: "
        f"{one_line(error)}."
    )


def print_bench(bench: Bench, console: "Console") -> None:
    """Print the times as a table.

    Args:
        bench: The times.
        console: Where to.
    """
    from .console import one_line_of

    title = f"{one_line_of(bench.path)}: {bench.fold.totals()}"
    console.print(title, soft_wrap=True, style="bold")
    print_latency(bench.latency, bench.provider, console)
