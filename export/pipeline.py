"""The straight line from a Keras model to a proven ONNX file."""

import contextlib
import dataclasses
import gc
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np

from keras_bn import __version__

from .constants import evaluate_constants
from .errors import ExportError, ParityError
from .fold import fold
from .layout.transposes import cancel_transposes
from .naming import name_after_layers
from .parity import check_parity
from .precision.choice import Precision, PrecisionReport, require_precision, set_precision
from .report import ExportReport, FoldReport
from .runners import CHANNELS_SECOND
from .samples import draw, split
from .save import add_metadata, replacing, write
from .signature import signature_of
from .simplify.stages import simplify
from .tracing.trace import DEFAULT_OPSET, trace

__all__ = ["export_onnx"]

T = TypeVar("T")


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
        precision: "keep" computes in the dtypes of the Keras model, "float32" in float32 only, and
            "float16" in float16, with float32 where a value would overflow on the samples.
        inputs_as_nchw: Name or names of inputs whose channels, last in Keras, are at axis 1 in the
            file.
        outputs_as_nchw: Likewise of outputs.
        external_data: Whether the weights go to a file of their own beside `path`. None: where one
            file cannot hold them.
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
    require_precision("export", precision)
    turned = {
        "inputs_as_nchw": _listed(inputs_as_nchw),
        "outputs_as_nchw": _listed(outputs_as_nchw),
    }
    target = Path(path)
    seconds: dict[str, float] = {}

    def timed(stage: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
        return result

    with replacing(target) as temporary:
        with _garbage_uncollected():
            graph = timed(
                "trace",
                trace,
                model,
                input_signature=input_signature,
                opset=opset,
                allow_bfloat16=precision != "keep",
            )
            placed = PrecisionReport(precision)
            if precision == "float32":  # before a weight is rounded on its way to half precision
                graph, placed = timed("precision", set_precision, graph, precision)
            graph = timed("constants", evaluate_constants, graph)
            graph = timed("simplify", simplify, graph)
            graph = timed("layout", cancel_transposes, graph, **turned)
            graph = timed("simplify", simplify, graph)
            graph, folded = timed("fold", fold, graph)
            graph = timed("simplify", simplify, graph)  # a Mul may have stood behind a Pad
            folded = _renamed(folded, name_after_layers(graph.graph))
            if precision == "float16":  # once it is known which values there are
                samples = _samples(model, input_signature, inputs, turned["inputs_as_nchw"])
                graph, placed = timed("precision", set_precision, graph, precision, samples)
            metadata = _metadata(model, folded, placed, turned)
            size = timed(
                "save", write, graph, temporary, external_data=external_data, metadata=metadata
            )
        parity = None
        if check:
            try:
                parity = timed(
                    "parity",
                    check_parity,
                    model,
                    temporary,
                    inputs=inputs,
                    input_signature=input_signature,
                    precision=precision,
                )
            except ExportError as e:
                raise ExportError(str(e).replace(str(temporary), str(target))) from e
            if not parity.passed:
                found = str(parity).replace("\n", "; ")
                raise ParityError(
                    f"export: ONNX Runtime must agree with Keras. Received: {found}. "
                    f"{str(target)!r} was not written. Please report this with the model's "
                    "architecture; `check=False` writes the file all the same.",
                    parity,
                )
            size -= temporary.stat().st_size
            add_metadata(temporary, {"keras_bn.parity": json.dumps(parity.to_dict())})
            size += temporary.stat().st_size
    return ExportReport(str(target), size, seconds, folded, placed, parity)


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


def _renamed(fold: FoldReport, names: dict[str, str]) -> FoldReport:
    """Return the report with the names that the nodes have in the file."""

    def renamed(nodes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(node, node) for node in nodes)

    return FoldReport(
        tuple(
            dataclasses.replace(row, into=renamed(row.into), through=renamed(row.through))
            for row in fold.folds
        ),
        tuple(
            dataclasses.replace(row, node=names.get(row.node, row.node)) for row in fold.refusals
        ),
    )


def _samples(
    model: keras.Model, input_signature: Any, inputs: Any, second: Sequence[str]
) -> list[dict[str, np.ndarray]]:
    """Return the batches of the parity check as the file takes them."""
    specs = signature_of(model, input_signature).specs
    batches = draw(specs, seed=0) if inputs is None else split(inputs, specs)
    return [
        {
            spec.name: np.moveaxis(array, -1, 1) if spec.name in second else array
            for spec, array in zip(specs, batch, strict=True)
        }
        for batch in batches
    ]


def _metadata(
    model: keras.Model,
    fold: FoldReport,
    placed: PrecisionReport,
    turned: dict[str, list[str]],
) -> dict[str, str]:
    """Return what the file says of itself, but for the proof."""
    entries = {
        "keras_bn.version": __version__,
        "keras_bn.model": str(model.name),
        "keras_bn.keras": keras.__version__,
        "keras_bn.folded": str(len(fold.folds)),
        "keras_bn.left": str(len(fold.refusals)),
        "keras_bn.precision": placed.precision,
    }
    for key, names in zip(CHANNELS_SECOND, turned.values(), strict=True):
        if names:
            entries[key] = json.dumps(list(names))
    return entries
