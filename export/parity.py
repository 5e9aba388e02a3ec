"""ONNX Runtime against Keras, both measured against Keras in float64.

The truth is the same Keras model evaluated in float64. Keras in the model's own precision misses
it by some error e, which the precision alone explains. ONNX Runtime adds in another order, so it
may miss by a little more, but not by much more:

    error(ONNX Runtime)  <=  MULTIPLE * error(Keras) + FLOOR * epsilon

where epsilon is the spacing of the output's dtype at 1 and errors are the largest over all values,
relative to the output's largest magnitude. Measured with ONNX Runtime's optimisations off, so that
its own folding does not hide ours, and at their default.

Where no float64 copy can be made (a subclassed model inside, say), the truth is Keras in its own
precision, e is unknown, and the allowance is `FALLBACK` epsilons; the report says so.

`python -m keras_bn.export.parity MODEL.keras MODEL.onnx` is `keras-bn check`.
"""

import sys

if __name__ == "__main__":  # first, so that a misspelt file name need not wait for TensorFlow
    from keras_bn.export.__main__ import main

    main(["check", *sys.argv[1:]])

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime

from .errors import ExportError
from .load import require_file
from .report import OutputParity, ParityReport
from .trace import input_specs, output_names

__all__ = ["check_parity"]

MULTIPLE = 4.0
FLOOR = 16.0
FALLBACK = 128.0

DRAWN_BATCHES = (1, 2, 5)
LARGEST_BATCH = 64
DYNAMIC_SIZE = 32  # drawn for an unknown dimension other than the batch

Samples = list[np.ndarray]
Run = Callable[[Samples], Samples]


def check_parity(
    model: keras.Model,
    onnx_path: str | os.PathLike[str],
    *,
    inputs: np.ndarray | dict[str, np.ndarray] | None = None,
    seed: int = 0,
) -> ParityReport:
    """Measure whether an ONNX file computes what a Keras model computes in inference.

    Args:
        model: A built functional or sequential Keras model.
        onnx_path: The ONNX file; inputs and outputs as in `model`.
        inputs: Samples, shape (N, ...): an array for a model with one input, or a dict by input
            name (other names are ignored). Compared in batches of 1 and at most `LARGEST_BATCH`.
            None draws batches of 1, 2 and 5: floats normal with mean 0 and deviation 1, integers
            and booleans 0 or 1; unknown dimensions get the size `DYNAMIC_SIZE`.
        seed: Seed of the draws.

    Returns:
        The errors of every output and the verdict.

    Raises:
        ExportError: If the file cannot be run, or its inputs or outputs are not the model's.
        ExportError: If `inputs` do not fit the model.
    """
    path = Path(onnx_path)
    require_file(path, "MODEL.onnx")
    specs = keras.tree.flatten(input_specs(model))
    batches = list(_draw(specs, seed) if inputs is None else _split(inputs, specs))
    levels = onnxruntime.GraphOptimizationLevel
    runtimes = [
        _session(path, level, specs) for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL)
    ]
    keras_run = _keras_runner(model)
    try:
        truth_run, reference = _keras_runner(_float64_copy(model)), "float64"
    except Exception as e:  # cloning runs the code of every layer
        truth_run, reference = keras_run, f"Keras itself; no float64 copy: {type(e).__name__}: {e}"
    truth, own = _run(truth_run, batches), _run(keras_run, batches)
    results = [_run(runtime, batches) for runtime in runtimes]
    outputs = tuple(
        _compare(name, truth[i], own[i], [result[i] for result in results], reference == "float64")
        for i, name in enumerate(output_names(model))
    )
    return ParityReport(reference, sum(len(batch[0]) for batch in batches), outputs)


def _draw(specs: list[Any], seed: int) -> Iterator[Samples]:
    generator = np.random.default_rng(seed)
    for size in DRAWN_BATCHES:
        batch = []
        for spec in specs:
            shape = [size, *(n if n is not None else DYNAMIC_SIZE for n in spec.shape[1:])]
            if spec.dtype.is_floating:
                values: np.ndarray = generator.normal(size=shape)
            else:
                values = generator.integers(0, 2, size=shape)
            batch.append(values.astype(spec.dtype.as_numpy_dtype))
        yield batch


def _split(inputs: np.ndarray | dict[str, np.ndarray], specs: list[Any]) -> Iterator[Samples]:
    """Check samples against the model's inputs and cut them into batches, the first of size 1."""
    by_name = inputs if isinstance(inputs, dict) else {specs[0].name: inputs}
    if len(specs) == 1 and list(by_name) == [""]:
        by_name = {specs[0].name: by_name[""]}
    samples: Samples = []
    for spec in specs:
        if spec.name not in by_name:
            raise ExportError(
                f"check: the samples must have an array for each of the inputs "
                f"{[s.name for s in specs]}. Received: arrays {sorted(by_name)}."
            )
        array = np.asarray(by_name[spec.name])
        fits = (
            array.dtype.kind in "fiub"
            and array.ndim > 0
            and spec.shape.is_compatible_with(array.shape)
        )
        if not fits or len(array) == 0 or (samples and len(array) != len(samples[0])):
            raise ExportError(
                f"check: the samples of input {spec.name!r} must be numbers of shape {spec.shape}, "
                f"at least one, and as many as those of the other inputs. "
                f"Received: {array.dtype} of shape {array.shape}."
            )
        samples.append(array.astype(spec.dtype.as_numpy_dtype))
    yield [array[:1] for array in samples]
    for start in range(1, len(samples[0]), LARGEST_BATCH):
        yield [array[start : start + LARGEST_BATCH] for array in samples]


def _session(path: Path, level: Any, specs: list[Any]) -> Run:
    """Open a file in ONNX Runtime, on the CPU in one thread, for inputs in the model's order."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = 1  # the same sums in the same order, run after run
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as e:  # ONNX Runtime's exceptions have no common base but Exception
        raise ExportError(
            "check: MODEL.onnx must be a file that ONNX Runtime loads. "
            f"Received: {str(path)!r}: {' '.join(str(e).split())[:300]}"
        ) from e
    names = [i.name for i in session.get_inputs()]
    wanted = [spec.name for spec in specs]
    if sorted(names) != sorted(wanted):
        raise ExportError(
            f"check: the inputs of MODEL.onnx must be those of the Keras model, {wanted}. "
            f"Received: {names}. Is it an export of another model?"
        )

    def run(batch: Samples) -> Samples:
        try:
            return list(session.run(None, dict(zip(wanted, batch, strict=True))))
        except Exception as e:
            raise ExportError(
                "check: MODEL.onnx must accept the inputs of the Keras model. "
                f"Received: {' '.join(str(e).split())[:300]}"
            ) from e

    return run


def _keras_runner(model: keras.Model) -> Run:
    structure = input_specs(model)

    def run(batch: Samples) -> Samples:
        outputs = model(keras.tree.pack_sequence_as(structure, batch), training=False)
        return [keras.ops.convert_to_numpy(output) for output in keras.tree.flatten(outputs)]

    return run


def _float64_copy(model: keras.Model) -> keras.Model:
    """Rebuild a functional or sequential model with every layer in float64, same weights."""

    def in_float64(layer: Any) -> Any:
        config = layer.get_config()
        if isinstance(layer, keras.Layer):
            config["dtype"] = "float64"
        return layer.__class__.from_config(config)

    copy = keras.models.clone_model(model, clone_function=in_float64, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _run(run: Run, batches: list[Samples]) -> Samples:
    """Run every batch and join the results of each output."""
    columns = zip(*(run(batch) for batch in batches), strict=True)
    return [np.concatenate([part.reshape(len(part), -1) for part in column]) for column in columns]


def _compare(
    name: str, truth: np.ndarray, own: np.ndarray, results: Samples, truth_is_float64: bool
) -> OutputParity:
    finite = np.isfinite(truth)
    scale = float(np.abs(truth[finite]).max(initial=0.0)) or 1.0
    epsilon = float(np.finfo(own.dtype).eps) if own.dtype.kind == "f" else 0.0
    keras_error, _ = _errors(truth, own, finite, scale)
    errors = [_errors(truth, result, finite, scale) for result in results]
    allowed = MULTIPLE * keras_error + FLOOR * epsilon if truth_is_float64 else FALLBACK * epsilon
    return OutputParity(
        name=name,
        scale=scale,
        onnx_max_error=max(largest for largest, _ in errors),
        onnx_rms_error=max(rms for _, rms in errors),
        keras_max_error=keras_error,
        tolerance=allowed,
    )


def _errors(
    truth: np.ndarray, result: np.ndarray, finite: np.ndarray, scale: float
) -> tuple[float, float]:
    """Return the largest and the RMS error relative to `scale`; Inf and NaN must be the same."""
    if result.shape != truth.shape or not np.array_equal(
        truth[~finite].astype(np.float64), result[~finite].astype(np.float64), equal_nan=True
    ):
        return float("inf"), float("inf")
    error = np.abs(result[finite].astype(np.float64) - truth[finite]) / scale
    if not np.isfinite(error).all():
        return float("inf"), float("inf")
    return float(error.max(initial=0.0)), float(np.sqrt(np.mean(error**2))) if error.size else 0.0
