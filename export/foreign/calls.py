"""How many nodes a model has once every call of a local function is replaced by its nodes.

    nodes(graph) = sum over its nodes of: 1, or nodes(function) for a call

ONNX Runtime replaces the calls when it loads a file. Functions that call each other twice, thirty
deep, are a thousand million nodes in a file of a few kilobytes; a function that calls itself has no
end. Neither is left to it.
"""

import onnx_ir as ir

from ..graph.bodies import bodies_of

__all__ = ["why_too_many"]

MOST_NODES = 1_000_000


def why_too_many(model: ir.Model) -> str:
    """Say in words why the calls of a model cannot be replaced; empty if they can."""
    counts: dict[ir.OperatorIdentifier, int] = {}
    open_calls: list[ir.OperatorIdentifier] = []

    def count(graph: ir.Graph | ir.Function) -> int:
        total = 0
        for node in graph:
            total += count_call(node.op_identifier())
            total += sum(count(body) for body in bodies_of(node))
        return total

    def count_call(called: ir.OperatorIdentifier) -> int:
        function = model.functions.get(called)
        if function is None:
            return 1
        if called in open_calls:
            raise RecursionError(f"its function {function.name!r} calls itself")
        if called not in counts:
            open_calls.append(called)
            counts[called] = count(function)
            open_calls.pop()
        return counts[called]

    try:
        total = count(model.graph)
    except RecursionError as e:
        return str(e)
    return f"its functions make {total:,} nodes of it" if total > MOST_NODES else ""
