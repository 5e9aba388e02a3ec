"""A Keras model -> an ONNX file: `stages/conversion.py`, the file beside its target, the check.

And the check alone, of a file that is there.
"""

import contextlib
import dataclasses
import gc
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_bn.version import __version__

from .defaults import CPU, DEFAULT_OPSET
from .errors import ExportError
from .files.metadata import (
    CHANNELS_SECOND,
    FOLDED,
    KERAS,
    LEFT,
    MODEL,
    PARITY,
    PRECISION,
    VERSION,
)
from .files.onnx_file import add_metadata, write
from .files.whole_file import replacing, scratch_folder
from .parity.check import check_samples
from .parity.report import ParityError, ParityReport
from .parity.samples.samples import Sampling
from .report import ExportReport
from .stages.conversion import convert
from .stages.converted import Converted, StageFiles
from .stages.precision.report import Precision, require_precision

__all__ = ["check_parity", "export_keeping", "export_onnx"]


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    inputs: np.ndarray | dict[str, np.ndarray] | None = None,
    input_signature: Any = None,
    opset: int = DEFAULT_OPSET,
    precision: Precision = "keep",
    inputs_as_nchw: Sequence[str] = (),
    outputs_as_nchw: Sequence[str] = (),
    external_data: bool | None = None,
    check: bool = True,
) -> ExportReport:
    """Export a Keras model to ONNX, fold its batch norms, and prove that the result agrees.

    The file appears under `path`, replacing an older one, only once ONNX Runtime has been found to
    agree with Keras; until then, and whenever this raises, `path` is untouched.

    Args:
        model: A Keras model: functional, sequential or subclassed. Exported as in inference.
        path: The file to write; its folder must exist.
        inputs: Samples to compare on, as for `check_parity`; None draws them.
        input_signature: What the model is called with, as in Keras's `model.export`: a list with a
            structure for each positional argument, whose leaves are `keras.InputSpec`,
            `tf.TensorSpec`, `keras.KerasTensor` or arrays. None asks the model, which must know: a
            functional model does, a subclassed one once it has been called.
        opset: Version of ONNX's operators, 13 to 18.
        precision: "keep" computes in the dtypes of the Keras model, "float32" in float32 what is
            half precision there, and "float16" in float16, with float32 where a value would
            overflow on the samples.
        inputs_as_nchw: Name or names of inputs whose channels, last in Keras, are at axis 1 in the
            file.
        outputs_as_nchw: Likewise of outputs.
        external_data: Whether weights of 1 kB and more go to a file of their own beside `path`.
            None: where one file cannot hold them.
        check: Compare with ONNX Runtime before the file is put in place. False skips the proof.

    Returns:
        What was folded, what was not and why, the errors measured, and the seconds taken.

    Raises:
        ExportError: If the model cannot be exported.
        ExportError: If an option is none of those listed, or names no input or output.
        ExportError: If no part of the model can compute in float16.
        ExportError: If `path` cannot be written.
        ParityError: If ONNX Runtime computes something else than Keras; nothing is written.

    Example:
        >>> import keras, keras_bn, keras_bn.export, tempfile
        >>> image = keras.Input((8, 8, 3))
        >>> x = keras.layers.Conv2D(4, 3)(image)
        >>> model = keras.Model(image, keras_bn.BatchNormalization()(x))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     report = keras_bn.export.export_onnx(model, f"{folder}/model.onnx")
        >>> len(report.fold.folds), report.parity.passed
        (1, True)
    """
    sampling = Sampling(model, input_signature, inputs=inputs, precision=precision)
    with scratch_folder() as folder:
        return export_keeping(
            sampling,
            path,
            StageFiles(folder, convert),
            opset=opset,
            inputs_as_nchw=inputs_as_nchw,
            outputs_as_nchw=outputs_as_nchw,
            external_data=external_data,
            check=check,
        )


def check_parity(
    model: keras.Model,
    onnx_path: str | os.PathLike[str],
    *,
    inputs: np.ndarray | dict[str, np.ndarray] | None = None,
    input_signature: Any = None,
    precision: str = "keep",
    seed: int = 0,
    ranges: Mapping[str, tuple[float, float]] | None = None,
    providers: Sequence[str] = (CPU,),
    explain: bool | None = True,
) -> ParityReport:
    """Measure whether an ONNX file computes what a Keras model computes in inference.

    Args:
        model: A Keras model; its state stays as it is.
        onnx_path: The ONNX file; inputs and outputs as in `model`. Those with other names than
            there stand for each other in order, and a note says so.
        inputs: Samples, shape (N, ...): an array for a model with one input, or a dict by input
            name (other names are ignored). None draws them; see `parity/samples/samples.py`.
        input_signature: As for `export_onnx`.
        precision: What the file was exported with, as for `export_onnx`: a "float16" file is
            allowed the errors of float16.
        seed: Seed of the draws, at least 0.
        ranges: Smallest and largest value to draw for some inputs, by name. The others' are taken
            from the layers that read them; see `parity/samples/distributions.py`.
        providers: ONNX Runtime's execution providers to run the file on, by name.
        explain: Whether to compare the stages of a fresh export and the output of every layer too,
            which finds faults that no output shows, and takes two to four times as long. None does
            only where an output differs.

    Returns:
        The errors of every output and the verdict; where it differs, the stage and the layer. While
        this runs, the model computes in float64 at times: call it in no other thread.

    Raises:
        ExportError: If an option has a value that it cannot have.
        ExportError: If the file cannot be run, or its inputs or outputs are not the model's.
        ExportError: If `inputs` do not fit the model, or Keras cannot run on them.
        ExportError: If an output of Keras has no finite value, so that there is nothing to compare.
    """
    sampling = Sampling(
        model, input_signature, inputs=inputs, seed=seed, ranges=ranges, precision=precision
    )
    with scratch_folder() as folder:
        return check_samples(
            sampling, onnx_path, StageFiles(folder, convert), providers=providers, explain=explain
        )


def export_keeping(
    sampling: Sampling,
    path: str | os.PathLike[str],
    stages: StageFiles,
    *,
    opset: int,
    inputs_as_nchw: Sequence[str],
    outputs_as_nchw: Sequence[str],
    external_data: bool | None,
    check: bool,
) -> ExportReport:
    """Do what `export_onnx` does, with samples and stages that others look at, too."""
    model, precision = sampling.model, sampling.precision
    require_precision("export", precision)
    inputs_second, outputs_second = _listed(inputs_as_nchw), _listed(outputs_as_nchw)
    target = Path(path)
    seconds: dict[str, float] = {}
    # On a CPU the outputs do not show a float16 tensor that overflows.
    explained = check and precision == "float16"
    with replacing(target) as temporary:
        coming = convert(
            model,
            input_signature=sampling.input_signature,
            opset=opset,
            precision=precision,
            inputs_as_nchw=inputs_second,
            outputs_as_nchw=outputs_second,
            samples=lambda: sampling.of_float16_file(inputs_second),
            seconds=seconds,
        )
        second = _second(inputs_second, outputs_second)
        with _garbage_uncollected():
            for stage in stages.keep(coming, second) if stages.wanted or explained else coming:
                converted = stage
            with _timed("save", seconds):
                size = write(
                    converted.graph,
                    temporary,
                    external_data=external_data,
                    metadata={**_metadata(model, converted), **second},
                    describe_values=False,
                )
        parity = None
        if check:
            with _timed("parity", seconds):
                parity = _checked(sampling, temporary, target, stages, explained or None)
            size -= temporary.stat().st_size
            # Neither hundreds of rows, nor what differs where the same model is exported again.
            told = dataclasses.replace(parity, layers=(), path="").to_dict()
            add_metadata(temporary, {PARITY: json.dumps(told)})
            size += temporary.stat().st_size
    return ExportReport(str(target), size, seconds, converted.fold, converted.precision, parity)


def _checked(
    sampling: Sampling, temporary: Path, target: Path, stages: StageFiles, explain: bool | None
) -> ParityReport:
    """Check the file that is to become `target`; return the report, or raise if it differs."""
    try:
        parity = check_samples(sampling, temporary, stages, explain=explain)
    except ExportError as e:
        raise ExportError(str(e).replace(str(temporary), str(target))) from e
    parity = dataclasses.replace(parity, path=str(target))
    if not parity.passed:
        found = str(parity).replace("\n", "; ").rstrip(".")
        ours = parity.fault is None or parity.fault.stage != "keras"
        report = "Please report this with the model's architecture; " if ours else ""
        raise ParityError(
            f"export: ONNX Runtime must agree with Keras. Received: {found}. "
            f"{str(target)!r} was not written. {report}`check=False` writes the file all the same.",
            parity,
        )
    return parity


@contextlib.contextmanager
def _timed(step: str, seconds: dict[str, float]) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[step] = time.perf_counter() - start


@contextlib.contextmanager
def _garbage_uncollected() -> Iterator[None]:
    """Pause Python's collector of reference cycles.

    Each of its full runs walks all that Keras and TensorFlow have made, a third of a second, and
    the many small objects of a graph would set off several.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _listed(names: Sequence[str]) -> list[str]:
    """Return names as a list; a string is one name, not its letters."""
    return [names] if isinstance(names, str) else list(names)


def _metadata(model: keras.Model, converted: Converted) -> dict[str, str]:
    """Return what the file says of itself, but for its parity and its layout."""
    return {
        VERSION: __version__,
        MODEL: str(model.name),
        KERAS: keras.__version__,
        FOLDED: str(len(converted.fold.folds)),
        LEFT: str(len(converted.fold.refusals)),
        PRECISION: converted.precision.precision,
    }


def _second(inputs: list[str], outputs: list[str]) -> dict[str, str]:
    """Return what the file says of the inputs and outputs whose channels are second."""
    pairs = zip(CHANNELS_SECOND, (inputs, outputs), strict=True)
    return {key: json.dumps(names) for key, names in pairs if names}
