"""The straight line from a Keras model to a proven ONNX file."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np

from .constants import evaluate_constants
from .errors import ExportError, ParityError
from .fold import fold_batch_norms
from .layout import cancel_transposes
from .parity import check_parity
from .report import ExportReport
from .save import replacing, write
from .trace import DEFAULT_OPSET, trace

__all__ = ["export_onnx"]

T = TypeVar("T")


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike[str],
    *,
    inputs: np.ndarray | dict[str, np.ndarray] | None = None,
    input_signature: Any = None,
    opset: int = DEFAULT_OPSET,
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
        check: Compare with ONNX Runtime before the file is put in place. False skips the proof.

    Returns:
        What was folded, what was not and why, the errors measured, and the seconds taken.

    Raises:
        ExportError: If the model cannot be exported.
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
    target = Path(path)
    seconds: dict[str, float] = {}

    def timed(stage: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        seconds[stage] = time.perf_counter() - start
        return result

    with replacing(target) as temporary:
        graph = timed("trace", trace, model, input_signature=input_signature, opset=opset)
        graph = timed("constants", evaluate_constants, graph)
        graph = timed("layout", cancel_transposes, graph)
        graph, fold = timed("fold", fold_batch_norms, graph)
        size = timed("save", write, graph, temporary)
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
    return ExportReport(str(target), size, seconds, fold, parity)
