"""A Keras model -> how long it takes for a batch here, next to what it is made into.

    Keras, compiled as its `predict` is; the graph before folding; the folded graph

All take turns in this process on the same drawn batch. ONNX Runtime runs at its default level of
optimisation. What is found holds for this machine and its load alone.
"""

import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..defaults import CPU
from ..files.provenance import versions
from ..parity.samples.samples import draw
from ..runtime.latency import FOLDED, UNFOLDED, measure_latency
from ..runtime.providers import require_providers
from ..signature import output_names, signature_of
from ..stages.converted import StageFiles
from .benched import Bench, cannot_run, runner_of, size_of
from .print_latency import machine

__all__ = ["bench_keras", "limit_keras"]

IN_KERAS = "Keras"


def limit_keras(threads: int) -> bool:
    """Let TensorFlow use so many threads; return whether it still could be told."""
    with contextlib.suppress(RuntimeError):  # it has begun to compute
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    return bool(tf.config.threading.get_intra_op_parallelism_threads() == threads)


def bench_keras(
    model: keras.Model,
    path: Path,
    stages: StageFiles,
    *,
    file: Path | None = None,
    batch_size: int = 1,
    threads: int = 1,
    provider: str = CPU,
    seconds: float = 3.0,
) -> Bench:
    """Time a Keras model, its graph before folding, and the folded one.

    Args:
        model: The model.
        path: The file that it is from, for the report.
        stages: The stages of its export; filled if they are not complete.
        file: The folded graph; None takes that of the stages.
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
    fold = list(stages.converted(model))[-1].fold
    for name, graph in (
        (UNFOLDED, stages.of("layout")),
        (FOLDED, file or stages.of("folding")),
    ):
        runs[name] = runner_of(graph, inputs, outputs, batch, threads, provider)
    latency = measure_latency(runs, batch_size=size_of(batch), threads=threads, seconds=seconds)
    return Bench(str(path), provider, latency, fold, machine(), versions())
