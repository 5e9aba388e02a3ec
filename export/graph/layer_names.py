"""Names of nodes and values in a graph, after the Keras layers that they are from.

    the only node of layer block/conv       block/conv
    one of several                          block/conv/<operator>, numbered where that is repeated
    its output                              as the node, :1, :2, ... behind further ones
    a constant that is no variable          <node that reads it>/<operand>

which is the same for the same model in every process.
"""

from collections import Counter

import onnx_ir as ir

from .names import Names

__all__ = ["name_after_layers", "name_constants"]


def name_after_layers(graph: ir.Graph) -> dict[str, str]:
    """Name nodes and what they make after the Keras layers in their `meta["layer"]`, in place.

    A node without that is of the layer whose name its own begins with.

    Args:
        graph: A graph and the graphs inside it. Its inputs, outputs and initializers keep their
            names.

    Returns:
        The new name of each node that had one.
    """
    known = graph.meta.setdefault("layers", set())
    for node in graph.all_nodes():
        if "layer" not in node.meta:
            node.meta["layer"] = _prefix(str(node.name), known)
        known.add(node.meta["layer"])
    graphs = [graph, *graph.subgraphs()]
    kept = [*graph.outputs, *(v for g in graphs for v in (*g.inputs, *g.initializers.values()))]
    fixed = {id(value) for value in kept}
    values, nodes = Names(str(value.name) for value in kept), Names()
    alone = Counter(node.meta["layer"] for node in graph.all_nodes())
    renamed: dict[str, str] = {}
    for node in graph.all_nodes():
        layer, before = node.meta["layer"], str(node.name)
        wanted = f"{layer}/{node.op_type}" if layer else node.op_type
        node.name = renamed[before] = nodes.new(layer if alone[layer] == 1 and layer else wanted)
        for index, output in enumerate(node.outputs):
            if output.name and id(output) not in fixed:
                output.name = values.new(f"{node.name}:{index}" if index else node.name)
    return renamed


def name_constants(graph: ir.Graph, kept: set[str]) -> None:
    """Name constants after the nodes that read them, and the inputs of inner graphs, in place.

    Args:
        graph: A graph and the graphs inside it, whose nodes have their names.
        kept: Names of the initializers that stay as they are.
    """
    graphs = [graph, *graph.subgraphs()]
    taken = {str(value.name) for node in graph.all_nodes() for value in node.outputs}
    names = Names(taken | kept | {str(value.name) for value in graph.inputs})
    for number, inner in enumerate(graphs[1:]):
        for index, value in enumerate(inner.inputs):
            value.name = names.new(f"body_{number}/input_{index}")
    for inner in graphs:
        values = list(inner.initializers.values())
        inner.initializers.clear()
        for value in values:
            if value.name not in kept and value.uses():
                use = min(value.uses(), key=lambda use: (str(use.node.name), use.idx))
                value.name = names.new(f"{use.node.name}/{use.idx}")
            inner.initializers[str(value.name)] = value


def _prefix(name: str, known: set[str]) -> str | None:
    while name and name not in known:
        name = name.rpartition("/")[0]
    return name or None
