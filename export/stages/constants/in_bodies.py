"""Evaluate constants in the bodies of If, Loop and Scan.

A body sees the constants of the graphs around it, and may hold initializers of its own. Each of its
nodes that depends on constants alone becomes such an initializer, under the name of its output.
"""

from collections.abc import Iterator

import onnx_ir as ir

from ...graph.bodies import bodies_of
from ...graph.exact import constant, is_constant
from .evaluable import evaluate_if_constant

__all__ = ["evaluate_bodies"]


def evaluate_bodies(graph: ir.Graph, opset: int) -> None:
    """Evaluate constants in all bodies within a graph, in place; not in the graph itself.

    Args:
        graph: A graph whose own constants have been evaluated.
        opset: The version of the standard domain.
    """
    for node in graph:
        for body in bodies_of(node):
            _evaluate_body(body, opset)


def _evaluate_body(body: ir.Graph, opset: int) -> None:
    new: list[ir.Value] = []
    for node in list(body):
        known = {
            value: value.const_value
            for value in node.inputs
            if value is not None and value.const_value is not None and is_constant(value)
        }
        tensors = evaluate_if_constant(node, known, opset)
        if tensors is not None:
            new += _replace(body, node, tensors)
    for value in reversed(new):  # those that only other constants were made of
        if not value.uses():
            del body.initializers[str(value.name)]
    evaluate_bodies(body, opset)


def _replace(body: ir.Graph, node: ir.Node, tensors: list[ir.TensorProtocol]) -> Iterator[ir.Value]:
    """Put initializers in a node's place."""
    layers = frozenset[str]().union(
        *(v.meta.get("layers", frozenset()) for v in node.inputs if v is not None)
    )
    outputs = list(node.outputs)
    values = []
    for output, tensor in zip(outputs, tensors, strict=True):
        value = constant(output.name or "", tensor)
        value.meta["layers"] = layers
        output.replace_all_uses_with(value)
        values.append(value)
    body.remove(node, safe=True)
    for value in values:
        body.initializers.add(value)
    yield from values
