"""The graphs that nodes such as If, Loop and Scan hold."""

from collections.abc import Iterator

import onnx_ir as ir

__all__ = ["bodies_of", "graphs_of", "holds_graph"]

GRAPHS = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def bodies_of(node: ir.Node) -> Iterator[ir.Graph]:
    """Return the graphs that a node holds as attributes."""
    for attribute in node.attributes.values():
        if attribute.is_ref():
            continue
        if attribute.type is ir.AttributeType.GRAPH:
            yield attribute.as_graph()
        elif attribute.type is ir.AttributeType.GRAPHS:
            yield from attribute.as_graphs()


def graphs_of(model: ir.Model) -> list[ir.Graph]:
    """Return a model's graph and those of its functions, without the graphs within them."""
    return [model.graph, *(function.graph for function in model.functions.values())]


def holds_graph(node: ir.Node) -> bool:
    """Say whether a node has a graph, or in a function stands for one that it will be given."""
    return any(attribute.type in GRAPHS for attribute in node.attributes.values())
