"""Graphs that are left whole, and the affine operators in them.

    quantised graphs       the numbers between their operators are part of their training
    opset before 9         batch norms have other attributes there
    an opset yet to come   its operators may mean something else
    local functions        called from several places, each with its own tensors
    what onnx_ir loses     the result could not be written

Each affine operator found there becomes a `Refusal`.
"""

from collections.abc import Iterable, Iterator

import onnx
import onnx_ir as ir

from ..graph.bodies import bodies_of, graphs_of
from ..graph.exact import FLOATING
from ..graph.families import REARRANGING, is_quantised
from ..graph.operators import is_onnx
from ..stages.folding.affine_nodes import affine_input
from ..stages.folding.reason import Reason
from ..stages.folding.report import Refusal
from ..stages.folding.tensors import name_of
from .opening import TRAINING, Opened

__all__ = ["opset_of", "refusals_in", "refusals_in_functions", "why_whole"]

OLDEST = 9
MOVING = REARRANGING | {"Cast"}


def why_whole(opened: Opened) -> tuple[Reason, str] | None:
    """Return why a model is left as it is, with a detail for a person; None if it may be folded."""
    if TRAINING in opened.lost:
        return Reason.PARAMETERS_NOT_CONSTANT, f"the model holds {TRAINING}"
    if opened.lost:
        return Reason.OPERATOR_UNKNOWN, f"the model holds {' and '.join(opened.lost)}"
    for graph in graphs_of(opened.model):
        for node in _nodes(graph):
            if is_quantised(node.op_type):
                return Reason.QUANTISED, f"{node.op_type} {name_of(node)}"
    opset = opset_of(opened.model)
    if opset < OLDEST:
        return Reason.OPSET_TOO_OLD, f"opset {opset}"
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        return Reason.OPERATOR_UNKNOWN, f"opset {opset}, of which {newest} is the newest known"
    return None


def opset_of(model: ir.Model) -> int:
    """Return the version of the standard domain, which has two names; 1 if it is not given."""
    imports = model.graph.opset_imports
    return imports.get("", imports.get("ai.onnx", 1))


def refusals_in(model: ir.Model, reason: Reason, detail: str) -> Iterator[Refusal]:
    """List the affine operators of a model that is left whole, those in functions too.

    Args:
        model: A copy: the constants in it are marked.
        reason: Why it is left.
        detail: What was found.
    """
    for graph in graphs_of(model):
        yield from _refusals(graph, reason, detail)


def refusals_in_functions(model: ir.Model) -> Iterator[Refusal]:
    """List the affine operators in the local functions of a model; copies them first."""
    for function in model.functions.values():
        detail = f"function {function.domain}.{function.name}"
        yield from _refusals(function.clone().graph, Reason.FUNCTION, detail)


def _refusals(graph: ir.Graph, reason: Reason, detail: str) -> Iterator[Refusal]:
    nodes = list(_nodes(graph))
    _mark_constants(nodes)
    for node in nodes:
        data = affine_input(node)
        if data is not None and _has_floating_operand(node, data):
            yield Refusal(name_of(node), node.op_type, None, reason, detail)


def _mark_constants(nodes: Iterable[ir.Node]) -> None:
    """Let the outputs of Constant nodes, and weights that are only moved, look like weights."""
    for node in nodes:
        if not is_onnx(node):
            continue
        if node.op_type == "Constant" and "value" in node.attributes:
            attribute = node.attributes["value"]
            if not attribute.is_ref():
                node.outputs[0].const_value = attribute.as_tensor()
        elif node.op_type == "Constant" and {"value_float", "value_floats"} & set(node.attributes):
            node.outputs[0].const_value = ir.tensor([1.0], ir.DataType.FLOAT)
        elif node.op_type in MOVING and node.inputs and node.inputs[0] is not None:
            moved = node.inputs[0]
            if moved.const_value is not None and not moved.is_graph_input():
                node.outputs[0].const_value = moved.const_value


def _has_floating_operand(node: ir.Node, data: ir.Value) -> bool:
    operands = [value for value in node.inputs if value is not None and value is not data]
    if node.op_type == "BatchNormalization":
        return True
    return all(v.const_value is not None and v.const_value.dtype in FLOATING for v in operands)


def _nodes(graph: ir.Graph) -> Iterator[ir.Node]:
    for node in graph:
        yield node
        for body in bodies_of(node):
            yield from _nodes(body)
