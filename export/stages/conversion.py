"""A Keras model becomes a graph in stages, one after the other, each of which can be looked at.

    tracing     TensorFlow's graph in ONNX, channels last (`tracing/`), constants evaluated
                (`constants/`); for float32, half precision is widened in between (`precision/`)
    layout      simplified (`simplify/`), channels second with as few Transposes as can be
                (`layout/`), simplified
    folding     the batch norms and other affine operators gone (`folding/`), simplified
    precision   in float16, if that is wanted (`precision/`)

Every stage computes the same but for rounding. `pipeline.py` writes the last graph and checks it.
"""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

import keras
import numpy as np

from ..defaults import DEFAULT_OPSET
from ..graph.layer_names import name_after_layers
from .constants.evaluate import evaluate_constants
from .converted import Converted
from .folding.fold import fold
from .folding.report import FoldReport
from .layout.transposes import cancel_transposes
from .precision.report import Precision, PrecisionReport
from .precision.set_precision import set_precision
from .simplify.fused import fused
from .simplify.simplify import keep_half_loadable, simplify
from .tracing.trace import trace

__all__ = ["convert"]

T = TypeVar("T")


def convert(
    model: keras.Model,
    *,
    input_signature: Any = None,
    opset: int = DEFAULT_OPSET,
    precision: Precision = "keep",
    inputs_as_nchw: Sequence[str] = (),
    outputs_as_nchw: Sequence[str] = (),
    samples: Callable[[], list[dict[str, np.ndarray]]] = list,
    seconds: dict[str, float] | None = None,
) -> Iterator[Converted]:
    """Convert a model, stage by stage; the last one yielded is the result.

    Args:
        model: The model.
        input_signature: As for `export_onnx`.
        opset: As for `export_onnx`.
        precision: As for `export_onnx`.
        inputs_as_nchw: Names of inputs whose channels are at axis 1.
        outputs_as_nchw: Likewise of outputs.
        samples: Returns batches as the file takes them, by input name, to find magnitudes on; asked
            for float16 alone.
        seconds: Takes the time that each step took, in seconds.

    Raises:
        ExportError: If the model cannot be converted.
    """
    taken = {} if seconds is None else seconds

    def timed(step: str, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        start = time.perf_counter()
        result = function(*args, **kwargs)
        taken[step] = taken.get(step, 0.0) + time.perf_counter() - start
        return result

    folded, placed = FoldReport((), ()), PrecisionReport(precision)
    half = precision != "keep"
    graph = timed(
        "trace", trace, model, input_signature=input_signature, opset=opset, allow_bfloat16=half
    )
    if precision == "float32":  # before a weight is rounded on its way to half precision
        graph, placed = timed("precision", set_precision, graph, precision)
    graph = timed("constants", evaluate_constants, graph)
    yield Converted("tracing", graph, folded, placed)
    graph = timed("simplify", simplify, graph)
    graph = timed(
        "layout",
        cancel_transposes,
        graph,
        inputs_as_nchw=inputs_as_nchw,
        outputs_as_nchw=outputs_as_nchw,
    )
    graph = timed("simplify", simplify, graph)
    name_after_layers(graph.graph)
    yield Converted("layout", graph, folded, placed)
    graph, folded = timed("fold", fold, graph, kept_in=fused)
    graph = timed("simplify", simplify, graph)  # a Mul may have stood behind a Pad
    folded = _renamed(folded, name_after_layers(graph.graph))
    yield Converted("folding", graph, folded, placed)
    if precision == "float16":  # once it is known which values there are
        graph, placed = timed("precision", set_precision, graph, precision, samples())
        timed("precision", keep_half_loadable, graph)
        yield Converted("precision", graph, folded, placed)


def _renamed(fold: FoldReport, names: dict[str, str]) -> FoldReport:
    """Return the report with the names that the nodes have in the file."""

    def renamed(nodes: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(names.get(node, node) for node in nodes)

    return dataclasses.replace(
        fold,
        folds=tuple(
            dataclasses.replace(row, into=renamed(row.into), through=renamed(row.through))
            for row in fold.folds
        ),
        refusals=tuple(
            dataclasses.replace(row, node=names.get(row.node, row.node)) for row in fold.refusals
        ),
    )
