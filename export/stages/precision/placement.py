"""Which nodes of a float32 graph may compute in float16, by evidence and by what they compute.

float16 holds magnitudes up to 65504 and, to full precision, from 2**-14 = 6.1e-5; rounding to it
errs by up to 2**-11 of a value. So a node stays in float32

- where a tensor that it reads or makes was seen to exceed a quarter of 65504, the quarter because
  samples show most of a tensor's range and not all of it, or never reached 2**-14;
- where a constant overflows, or is so small that its digits would be lost: a multiplier anywhere, a
  kernel in all of an output channel, a summand (an epsilon, say) in all of its elements;
- where it sums many values: n summands err by up to n * 2**-11 if summed in float16. Convolutions
  and matrix products are exempt: hardware sums their products in float32;
- where small differences in its argument matter: roots, quotients, logarithms, exponentials and
  normalisations, what leads to such an argument, and what a quotient scales;
- where it rounds or compares, what leads there, and where it computes with integers or positions.

What would then be an island between float32 nodes stays, too. Whatever is not known here stays.
"""

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...graph.bodies import holds_graph
from ...graph.exact import exact, is_constant
from ...graph.families import DISCRETE, MOVING
from ...graph.operators import STANDARD
from .float16_forms import float16_positions, is_float, is_indifferent, is_tensor
from .float16_operators import KERNELS, KNOWN, SENSITIVE, SOURCES, SUMMANDS, SUMS
from .report import Float32Reason as Reason
from .vicinity import Places, keep_arguments, keep_islands, keep_positions, keep_quotients

__all__ = ["place"]

LARGEST = 65504.0
LIMIT = LARGEST / 4  # for what samples show
SMALLEST = 2.0**-14
LONGEST_SUM = 16  # summands; errs by up to 2**-7


def place(graph: ir.Graph, largest: Mapping[str, float]) -> tuple[list[ir.Node], Places]:
    """Decide for each node that computes with float32 where it can compute.

    Args:
        graph: A graph in float32, its Constants lifted to initializers.
        largest: The largest magnitude seen in each float32 tensor that is no constant, by name.

    Returns:
        The nodes that can compute in float16, and those that stay, each with the reason and a
        detail. Nodes without float32 tensors, and those that do not mind, are in neither.
    """
    opset = int(graph.opset_imports.get("", 1))
    nodes = [n for n in graph if not is_indifferent(n) and _touches_floats(n, opset)]
    stays: Places = {}
    for node in nodes:
        why = _own_reason(node, opset, largest)
        if why is not None:
            stays[node] = why
    keep_positions(graph, nodes, stays)
    keep_arguments(graph, nodes, stays)
    keep_quotients(nodes, stays)
    keep_islands(nodes, stays)
    return [node for node in nodes if node not in stays], stays


def _touches_floats(node: ir.Node, opset: int) -> bool:
    if node.domain in STANDARD and node.op_type in KNOWN:
        positions = float16_positions(node, opset)
        if positions is not None:
            unknown = any(v is not None and v.dtype is None for v in node.inputs)
            return unknown or any(positions)
    return any(is_float(v) for v in (*node.inputs, *node.outputs))


def _own_reason(
    node: ir.Node, opset: int, largest: Mapping[str, float]
) -> tuple[Reason, str] | None:
    """Return why a node, looked at by itself, has to stay in float32."""
    if node.domain not in STANDARD:
        return Reason.OTHER_DOMAIN, node.domain
    if holds_graph(node):
        return Reason.SUBGRAPH, ""
    named = [v for v in (*node.inputs, *node.outputs) if v is not None and v.name]
    for value in named:
        if not is_tensor(value):
            return Reason.UNKNOWN_TYPE, f"tensor {value.name!r}"
    return (
        _reason_in_operator(node, opset)
        or _reason_in_values(named, largest)
        or _reason_in_constants(node)
        or _reason_in_sum(node, largest)
    )


def _reason_in_operator(node: ir.Node, opset: int) -> tuple[Reason, str] | None:
    if node.op_type in SENSITIVE or (node.op_type == "Div" and not is_constant(node.inputs[1])):
        return Reason.SENSITIVE, ""
    if node.op_type in DISCRETE:
        return Reason.DISCRETE, ""
    if node.op_type in SOURCES:
        return Reason.FROM_INTEGERS, ""
    if node.op_type not in KNOWN or _flag(node, "training_mode"):
        return Reason.UNKNOWN_OPERATOR, ""
    if float16_positions(node, opset) is None:
        return Reason.NO_FLOAT16_FORM, f"opset {opset}"
    return None


def _reason_in_values(
    values: list[ir.Value], largest: Mapping[str, float]
) -> tuple[Reason, str] | None:
    for value in values:
        magnitude = largest.get(str(value.name), 0.0)
        if magnitude > LIMIT:
            return Reason.OVERFLOW, f"{magnitude:.3g} in tensor {value.name!r}"
        if 0 < magnitude < SMALLEST:
            return Reason.UNDERFLOW, f"at most {magnitude:.3g} in tensor {value.name!r}"
    return None


def _reason_in_constants(node: ir.Node) -> tuple[Reason, str] | None:
    for index, value in enumerate(node.inputs):
        if value is None or not is_float(value) or not is_constant(value):
            continue
        if node.op_type == "Resize" and index > 0:
            continue
        magnitude = np.abs(exact(value))
        magnitude = np.where(np.isfinite(magnitude), magnitude, 0.0)  # Inf is one in float16, too
        if magnitude.max(initial=0.0) > LARGEST:
            return Reason.WEIGHT_OVERFLOW, f"{magnitude.max():.3g} in {value.name!r}"
        judged = _must_stay_normal(node, index, magnitude)
        lost = judged[(judged > 0) & (judged < SMALLEST)]
        if lost.size:
            return Reason.WEIGHT_UNDERFLOW, f"{lost.min():.3g} in {value.name!r}"
    return None


def _must_stay_normal(node: ir.Node, index: int, magnitude: np.ndarray) -> np.ndarray:
    """Return the magnitudes that must not fall below the smallest normal number.

    What is only added errs by at most 2**-25 there, which is nothing beside a result of normal
    size; what multiplies loses its digits.
    """
    if node.op_type in KERNELS:
        return _largest_in_channels(node, index, magnitude)
    if node.op_type == "BatchNormalization" and index in (2, 3):  # B and input_mean
        return np.zeros(0)
    if node.op_type in SUMMANDS | MOVING - {"Pad", "Where"}:
        return _overall(magnitude)
    return magnitude


def _largest_in_channels(node: ir.Node, index: int, magnitude: np.ndarray) -> np.ndarray:
    """Return the largest magnitude for each output channel of a kernel; of a bias, nothing."""
    axis = KERNELS[node.op_type].get(index)
    if node.op_type == "Einsum":
        return _overall(magnitude)
    if axis is None:
        return np.zeros(0)
    if node.op_type == "Gemm" and _flag(node, "transA" if index == 0 else "transB"):
        axis = 1 - axis
    if magnitude.ndim < 2:
        return _overall(magnitude)
    others = tuple(i for i in range(magnitude.ndim) if i != axis % magnitude.ndim)
    return np.asarray(magnitude.max(others, initial=0.0))


def _overall(magnitude: np.ndarray) -> np.ndarray:
    return np.asarray(magnitude.max(initial=0.0)).reshape(1)


def _flag(node: ir.Node, name: str) -> bool:
    return name in node.attributes and node.attributes[name].as_int() != 0


def _reason_in_sum(node: ir.Node, largest: Mapping[str, float]) -> tuple[Reason, str] | None:
    if node.op_type not in SUMS:
        return None
    count, value = _summands(node), node.inputs[0]
    if count is None or count > LONGEST_SUM:
        return Reason.LONG_SUM, f"{'an unknown number of' if count is None else count} values"
    name = "" if value is None else str(value.name)
    if count * largest.get(name, 0.0) > LIMIT:
        return Reason.OVERFLOW, f"up to {count * largest[name]:.3g} in a sum of tensor {name!r}"
    return None


def _summands(node: ir.Node) -> int | None:
    """Return how many values a sum or mean adds up, None if that is not known."""
    if node.op_type == "AveragePool":
        return math.prod(node.attributes.get_ints("kernel_shape", []))
    shape = node.inputs[0].shape if node.inputs[0] is not None else None
    if shape is None:
        return None
    if node.op_type == "GlobalAveragePool":
        axes = list(range(2, len(shape)))
    else:
        axes = list(node.attributes.get_ints("axes", []))
        if len(node.inputs) > 1 and node.inputs[1] is not None:
            if not is_constant(node.inputs[1]):
                return None
            axes = [int(axis) for axis in exact(node.inputs[1])]
        axes = axes or list(range(len(shape)))
    sizes = [size for size in (shape[axis] for axis in axes) if isinstance(size, int)]
    return math.prod(sizes) if len(sizes) == len(axes) else None
