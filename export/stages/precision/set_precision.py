"""The precision that a graph computes in: as it is, all in float32, or float16 where it can be.

float16 halves the file and, on hardware that has it, the time. `placement` says which nodes can
compute in it, `narrowing` rewrites the graph; graph inputs and outputs keep their dtypes. A graph
in mixed precision is first widened to float32 (`widening`), then judged in the same way.

float16 keeps 11 bits: expect results to differ by some 1e-3 of their scale from float32.
"""

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass

from ...errors import ExportError
from ...graph.families import MOVING
from ...graph.onnx_inference import infer_shapes
from .magnitudes import largest_magnitudes
from .narrowing import narrow
from .placement import place
from .report import Float32Reason, InFloat32, Precision, PrecisionReport, require_precision
from .widening import DOUBLE, HALF, widen

__all__ = ["Float32Reason", "InFloat32", "PrecisionReport", "set_precision"]


def set_precision(
    model: ir.Model,
    precision: Precision,
    samples: Iterable[Mapping[str, np.ndarray]] = (),
) -> tuple[ir.Model, PrecisionReport]:
    """Choose the precision that a graph computes in.

    Args:
        model: An ONNX graph; stays unchanged.
        precision: "keep" returns the graph itself. "float32" turns every half-precision and
            float64 tensor into float32, inputs and outputs too. "float16" lets every node compute
            in float16 that can, and keeps the dtypes of inputs and outputs.
        samples: Batches, each an array for every graph input, by name; for "float16" only, which
            runs the graph on them to see how large its values become.

    Returns:
        The new graph, and which nodes compute in which precision.

    Raises:
        ExportError: If `precision` is none of the three.
        ExportError: If no node can compute in float16, or a value is Inf or NaN on the samples, or
            there are no samples, or ONNX Runtime cannot run the graph on them.
    """
    require_precision("export", precision)
    if precision == "keep":
        return model, PrecisionReport(precision)
    if precision == "float32":
        return widen(model, HALF | DOUBLE), PrecisionReport(precision)
    return _to_float16(model, samples)


def _to_float16(
    model: ir.Model, samples: Iterable[Mapping[str, np.ndarray]]
) -> tuple[ir.Model, PrecisionReport]:
    inputs = [value.type for value in model.graph.inputs]
    outputs = [value.dtype for value in model.graph.outputs]
    model = widen(model)
    graph = model.graph
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    RemoveUnusedNodesPass()(model)
    if any(value.type is None for node in graph for value in node.outputs):
        infer_shapes(model)
    nodes, stays = place(graph, largest_magnitudes(model, samples))
    rows = tuple(
        InFloat32(str(node.name), node.op_type, *stays[node]) for node in graph if node in stays
    )
    if all(node.op_type in MOVING for node in nodes):
        found = "; ".join(f"{row.operator} {row.node}: {row.reason}" for row in rows[:3])
        raise ExportError(
            "export: at least one node must be able to compute in float16 for "
            f"`precision='float16'`. Received: {found or 'no node that computes in float32'}. "
            "Use `precision='keep'`, or 'float32' for a model in float64."
        )
    casts = narrow(graph, nodes, inputs, outputs)
    RemoveUnusedNodesPass()(model)
    return model, PrecisionReport("float16", len(nodes), rows, casts)
