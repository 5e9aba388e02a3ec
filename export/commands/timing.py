"""A Keras model -> how long it takes for a batch here, next to what it is made into.

    Keras, compiled as its `predict` is; the graph before folding; the folded graph

All take turns in this process on the same drawn batch. ONNX Runtime runs at its default level of
optimisation. What is found holds for this machine and its load alone.
"""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from ..defaults import CPU
from ..errors import ExportError, one_line
from ..files.provenance import versions
from ..files.whole_file import scratch_folder
from ..parity.samples.samples import draw
from ..runtime.latency import FOLDED, UNFOLDED, Latency, measure_latency
from ..runtime.providers import require_providers
from ..runtime.session import LEVELS, OnnxRuntime, Samples
from ..signature import output_names, signature_of
from ..stages.conversion import convert
from ..stages.converted import StageFiles
from ..stages.folding.report import FoldReport
from .print_latency import machine, print_latency

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "Bench",
    "bench_keras",
    "cannot_run",
    "limit_keras",
    "print_bench",
    "runner_of",
    "size_of",
]

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
        raise cannot_run(str(path), batch, e) from e
    runs: dict[str, Callable[[], object]] = {keras_name: predict}
    with scratch_folder() as folder:
        stages = stages or StageFiles(folder, convert)
        fold = list(stages.converted(model))[-1].fold
        for name, graph in (
            (UNFOLDED, stages.of("layout")),
            (FOLDED, file or stages.of("folding")),
        ):
            runs[name] = runner_of(graph, inputs, outputs, batch, threads, provider)
        latency = measure_latency(runs, batch_size=size_of(batch), threads=threads, seconds=seconds)
    return Bench(str(path), provider, latency, fold, machine(), versions())


def runner_of(
    path: Path,
    inputs: list[str],
    outputs: list[str],
    batch: Samples,
    threads: int,
    provider: str,
) -> Callable[[], object]:
    """Return a function that runs a file on a batch, with ONNX Runtime's optimisations."""
    run = OnnxRuntime(path, LEVELS[-1], provider, threads=threads).runner(inputs, outputs)
    return lambda: run(batch)


def size_of(batch: Samples) -> int:
    """Return the number of samples in a batch."""
    return next((len(array) for array in batch if array.ndim), 1)


def cannot_run(source: str, batch: Samples, error: Exception) -> ExportError:
    """Return the error of a model that does not run on a batch."""
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
