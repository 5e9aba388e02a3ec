"""ONNX Runtime against Keras, both measured against Keras in float64.

The truth is the same Keras model evaluated in float64. Keras in the model's own precision misses
it by some error e, which the precision alone explains. ONNX Runtime adds in another order, so it
may miss by a little more, but not by much more:

    error(ONNX Runtime)  <=  MULTIPLE * error(Keras) + FLOOR * epsilon

where epsilon is the spacing at 1 of the coarsest dtype that the model computes in, and errors are
the largest over all values, relative to the output's largest magnitude. The same rule, with wider
constants, holds for each channel by itself, so that a small channel cannot hide behind a large one.
Measured with ONNX Runtime's optimisations off, so that its own folding does not hide ours, and at
their default.

Where no float64 copy can be made, or the copy is no copy (it misses Keras by more than the root of
epsilon), the truth is Keras in its own precision, e is unknown, and the allowance is `FALLBACK`
epsilons; the report says so.

`python -m keras_bn.export.parity MODEL.keras MODEL.onnx` is `keras-bn check`.
"""

import sys

if __name__ == "__main__":  # first, so that a misspelt file name need not wait for TensorFlow
    from keras_bn.export.__main__ import main

    main(["check", *sys.argv[1:]])

import os
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnxruntime

from .errors import ExportError, one_line
from .load import require_file
from .precision.choice import require_precision
from .report import OutputParity, ParityReport
from .runners import float64_copy, in_keras, in_onnxruntime, run_batches
from .samples import Samples, draw, split
from .signature import Signature, signature_of

__all__ = ["check_parity"]

MULTIPLE, FLOOR = 4.0, 16.0
CHANNEL_MULTIPLE, CHANNEL_FLOOR = 32.0, 256.0
CHANNEL_ABSOLUTE = 2.0  # of the whole output's scale: ONNX Runtime's Sigmoid has an absolute error
FALLBACK = 128.0
# A channel is judged by itself if this many of its values reach 1/16 of its largest: a channel that
# is active once says nothing about the size of Keras's error.
CHANNEL_VALUES = 4


def check_parity(
    model: keras.Model,
    onnx_path: str | os.PathLike[str],
    *,
    inputs: np.ndarray | dict[str, np.ndarray] | None = None,
    input_signature: Any = None,
    precision: str = "keep",
    seed: int = 0,
) -> ParityReport:
    """Measure whether an ONNX file computes what a Keras model computes in inference.

    Args:
        model: A Keras model; its state stays as it is.
        onnx_path: The ONNX file; inputs and outputs as in `model`.
        inputs: Samples, shape (N, ...): an array for a model with one input, or a dict by input
            name (other names are ignored). None draws them; see `samples.py`.
        input_signature: As for `export_onnx`.
        precision: What the file was exported with, as for `export_onnx`: a "float16" file is
            allowed the errors of float16.
        seed: Seed of the draws.

    Returns:
        The errors of every output and the verdict.

    Raises:
        ExportError: If `precision` is none of "keep", "float32" and "float16".
        ExportError: If the file cannot be run, or its inputs or outputs are not the model's.
        ExportError: If `inputs` do not fit the model, or Keras cannot run on them.
        ExportError: If an output of Keras has no finite value, so that there is nothing to compare.
    """
    require_precision("check", precision)
    path = Path(onnx_path)
    require_file(path, "MODEL.onnx")
    signature = signature_of(model, input_signature)
    specs = signature.specs
    batches = list(draw(specs, seed) if inputs is None else split(inputs, specs))
    run, names = in_keras(model, signature)
    try:
        own = run_batches(run, batches)
    except Exception as e:  # running a model runs the code of every layer
        raise ExportError(
            "check: Keras must be able to run the model on the samples. Received: "
            f"{[array.shape for array in batches[0]]}: {one_line(e)}. "
            "Give samples of a suitable shape with `inputs` or --input."
        ) from e
    levels = onnxruntime.GraphOptimizationLevel
    results = [
        run_batches(in_onnxruntime(path, level, [s.name for s in specs], names), batches)
        for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL)
    ]
    epsilon = _epsilon(model)
    truth, reference = _truth(model, signature, batches, own, epsilon)
    if precision != "keep":
        epsilon = float(np.finfo(precision).eps)
    outputs = []
    for i, name in enumerate(names):
        found = [result[i] for result in results]
        outputs.append(_compare(name, truth[i], own[i], found, epsilon, reference))
    return ParityReport(reference, sum(len(batch[0]) for batch in batches), tuple(outputs))


def _truth(
    model: keras.Model,
    signature: Signature,
    batches: list[Samples],
    own: Samples,
    epsilon: float,
) -> tuple[Samples, str]:
    """Return the outputs in float64 and "float64", or Keras's own outputs and why they must do."""
    try:
        copy = float64_copy(model)
        truth = run_batches(in_keras(copy, signature)[0], batches)
    except Exception as e:  # copying and running a model runs the code of every layer
        return own, f"Keras itself; no float64 copy: {one_line(e)}"
    limit = np.sqrt(epsilon)
    for wide, narrow in zip(truth, own, strict=True):
        if not np.array_equal(np.isfinite(wide), np.isfinite(narrow)):
            return own, "Keras itself; it is not finite where the float64 copy is"
        error, _ = _errors(wide, narrow, _scale(wide))
        if not error <= limit:
            return own, f"Keras itself; the float64 copy differs by {error:.1e}"
    return truth, "float64"


def _epsilon(model: keras.Model) -> float:
    """Return the spacing at 1 of the coarsest dtype that a model computes in."""
    dtypes = {layer.compute_dtype for layer in model._flatten_layers()} | {"float32"}
    known = [dtype for dtype in dtypes if dtype and keras.backend.is_float_dtype(dtype)]
    return max(2.0**-7 if dtype == "bfloat16" else float(np.finfo(dtype).eps) for dtype in known)


def _compare(
    name: str, truth: np.ndarray, own: np.ndarray, found: Samples, epsilon: float, reference: str
) -> OutputParity:
    if truth.size == 0 or not np.isfinite(truth).any():
        raise ExportError(
            f"check: output {name!r} of the Keras model must have finite values to compare. "
            f"Received: {truth.size} values, none finite. Give other samples, or mend the model."
        )
    scale = _scale(truth)
    keras_error, _ = _errors(truth, own, scale)
    (plain, rms), (optimised, _) = (_errors(truth, result, scale) for result in found)
    fallback = reference != "float64"
    allowed = FALLBACK * epsilon if fallback else MULTIPLE * keras_error + FLOOR * epsilon
    channel = None
    if not fallback and plain <= allowed and optimised <= allowed:
        channel = _worst_channel(truth, own, found, epsilon)
    return OutputParity(name, scale, plain, optimised, rms, keras_error, allowed, channel)


def _worst_channel(
    truth: np.ndarray, own: np.ndarray, found: Samples, epsilon: float
) -> int | None:
    """Return a channel, along the last axis, that is beyond its own allowance; None if all hold."""
    if truth.ndim < 2:
        return None
    truth, own, *found = (array.reshape(-1, truth.shape[-1]) for array in (truth, own, *found))
    finite = np.isfinite(truth)
    magnitude = np.abs(np.where(finite, truth, 0.0))
    scale = magnitude.max(0)

    def errors(result: np.ndarray) -> np.ndarray:
        difference = np.abs(
            np.where(finite, result, 0.0).astype(np.float64) - np.where(finite, truth, 0.0)
        )
        return np.asarray(difference.max(0) / np.where(scale > 0, scale, 1.0))

    judged = (magnitude >= scale / 16).sum(0) >= CHANNEL_VALUES
    absolute = CHANNEL_ABSOLUTE * scale.max() / np.where(scale > 0, scale, 1.0)
    allowed = CHANNEL_MULTIPLE * errors(own) + (CHANNEL_FLOOR + absolute) * epsilon
    beyond = np.any([errors(result) > allowed for result in found], axis=0) & judged & (scale > 0)
    return int(beyond.argmax()) if beyond.any() else None


def _scale(truth: np.ndarray) -> float:
    """Return the largest finite magnitude, 1 if that is 0."""
    return float(np.abs(truth[np.isfinite(truth)]).max(initial=0.0)) or 1.0


def _errors(truth: np.ndarray, result: np.ndarray, scale: float) -> tuple[float, float]:
    """Return the largest and the RMS error relative to `scale`; Inf and NaN must be the same."""
    finite = np.isfinite(truth)
    if result.shape != truth.shape or not np.array_equal(
        truth[~finite].astype(np.float64), result[~finite].astype(np.float64), equal_nan=True
    ):
        return float("inf"), float("inf")
    error = np.abs(result[finite].astype(np.float64) - truth[finite]) / scale
    if not np.isfinite(error).all():
        return float("inf"), float("inf")
    return float(error.max(initial=0.0)), float(np.sqrt(np.mean(error**2))) if error.size else 0.0
