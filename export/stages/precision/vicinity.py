"""What stays in float32 because of what is around it.

Where small differences in an argument matter, those in what it was computed from matter as well;
what no sample bounds must not meet a float16 tensor; and a cheap node between float32 nodes is
better off in float32.
"""

from collections import deque

import onnx_ir as ir

from ...graph.families import DISCRETE, MOVING
from ...graph.operators import STANDARD
from .float16_forms import is_float, varying
from .float16_operators import (
    ARGUMENTS,
    ELEMENTWISE,
    KERNELS,
    SOURCES,
    SUMS,
    UNBOUNDED,
    UNSATURATED,
)
from .report import Float32Reason as Reason

__all__ = ["Places", "keep_arguments", "keep_islands", "keep_positions", "keep_quotients"]

Places = dict[ir.Node, tuple[Reason, str]]


def keep_arguments(graph: ir.Graph, nodes: list[ir.Node], stays: Places) -> None:
    """Keep what leads to the argument of a root, logarithm, quotient or rounding.

    A node with one varying input always belongs to the way, one that combines several, such as a
    residual Add, only where all of them are reduced: sums, and what was computed from sums alone.
    Kernels are the end of the way, and so is the square that is summed.
    """
    floats, seen = set(nodes), set[ir.Node]()
    reduced = _reduced(nodes)
    way = deque(value for node in graph for value in _arguments(node))
    while way:
        node = way.popleft().producer()
        if node is None or node in seen or node not in floats or node.op_type in KERNELS:
            continue
        seen.add(node)
        inputs = varying(node)
        if len(inputs) > 1 and not all(v in reduced for v in inputs):
            continue
        stays.setdefault(node, (Reason.ARGUMENT, ""))
        if not _squares(node):
            way.extend(inputs)


def _arguments(node: ir.Node) -> list[ir.Value]:
    """Return the inputs of a node for which small differences matter."""
    if node.domain not in STANDARD:
        return []
    if node.op_type in ARGUMENTS:
        inputs = list(node.inputs)[ARGUMENTS[node.op_type] :][:1]
    elif node.op_type in DISCRETE or (node.op_type == "Cast" and _rounds(node)):
        inputs = list(node.inputs)
    else:
        return []
    return [value for value in inputs if value is not None and is_float(value)]


def _rounds(cast: ir.Node) -> bool:
    return cast.outputs[0].dtype not in (ir.DataType.FLOAT, ir.DataType.DOUBLE)


def _reduced(nodes: list[ir.Node]) -> set[ir.Value]:
    """Return the sums, maxima and so on, and all that is computed from them alone."""
    reduced: set[ir.Value] = set()
    for node in nodes:
        inputs = varying(node)
        sums = node.op_type in SUMS or node.op_type.startswith("Reduce")
        follows = inputs and all(v in reduced for v in inputs) and node.op_type not in KERNELS
        if sums or follows:
            reduced.update(node.outputs)
    return reduced


def _squares(node: ir.Node) -> bool:
    same = node.op_type == "Mul" and node.inputs[0] is node.inputs[1]
    return same or node.op_type in ("Abs", "Pow", "ReduceL2", "ReduceSumSquare")


def keep_quotients(nodes: list[ir.Node], stays: Places) -> None:
    """Keep what multiplies with a result that no sample bounds, such as 1 / deviation.

    Operators with no other input that varies pass the result on, and so does what moves it.
    """
    unbounded: set[ir.Value] = set()
    for node in nodes:
        inputs = varying(node)
        passes = node.op_type in MOVING or (node.op_type in UNSATURATED and len(inputs) == 1)
        if node.op_type in UNBOUNDED and node in stays:
            unbounded.update(node.outputs)
        elif any(v in unbounded for v in inputs) and (passes or node.op_type == "Mul"):
            stays.setdefault(node, (Reason.SENSITIVE, ""))
            if passes:
                unbounded.update(node.outputs)


def keep_positions(graph: ir.Graph, nodes: list[ir.Node], stays: Places) -> None:
    """Keep arithmetic on floats that come from integers, such as positions, and from them alone."""
    floats, counts = set(nodes), set[ir.Value]()
    for node in graph:
        if node.op_type in SOURCES and node.domain in STANDARD:
            counts.update(v for v in node.outputs if is_float(v))
            continue
        inputs = varying(node)
        if node not in floats or not inputs or not all(v in counts for v in inputs):
            continue
        if node.op_type in KERNELS or node.domain not in STANDARD:
            continue
        counts.update(node.outputs)
        stays.setdefault(node, (Reason.FROM_INTEGERS, ""))


def keep_islands(nodes: list[ir.Node], stays: Places) -> None:
    """Keep cheap nodes that float16 would only give more Casts."""
    half = {node for node in nodes if node not in stays}
    for node in nodes:
        inputs = varying(node)
        wide = inputs and all(v.producer() in stays for v in inputs)
        joins = node.op_type in ELEMENTWISE and len(inputs) > 1
        if node in half and wide and (joins or node.op_type in MOVING):
            half.remove(node)
            stays[node] = (Reason.NEIGHBOURS, "")
    for node in reversed(nodes):
        if node not in half or node.op_type not in MOVING | ELEMENTWISE:
            continue
        before = any(v.producer() in stays for v in varying(node))
        readers = {use.node for value in node.outputs for use in value.uses()}
        if before and not readers & half:
            half.remove(node)
            stays[node] = (Reason.NEIGHBOURS, "")
