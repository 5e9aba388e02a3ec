"""Names of Keras layers in TensorFlow's scopes, and of nodes and values in a graph.

While Keras calls a layer it opens a scope of its name, which TensorFlow makes unique by a number:
the operators of layer `conv` of model `net` are called `net_1/conv_1/...`. `LayerPaths` goes that
way back. `name_after_layers` then names the nodes of a graph:

    the only node of layer block/conv       block/conv
    one of several                          block/conv/<operator>, numbered where that is repeated
    its output                              as the node, :1, :2, ... behind further ones
    a constant that is no variable          <node that reads it>/<operand>

which is the same for the same model in every process.
"""

from collections import Counter
from typing import Any

import onnx_ir as ir

from .names import SUFFIX, Names

__all__ = ["LayerPaths", "name_after_layers", "name_constants"]


class LayerPaths:
    """The Keras layers of a model, found by the scopes that they open.

    Args:
        model: A Keras model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._children: dict[int, dict[str, Any]] = {}
        self._uses = Counter(getattr(layer, "path", None) for layer in model._flatten_layers())

    def of(self, operator: str) -> str | None:
        """Return the path of the innermost layer that an operator's name says it is from.

        Args:
            operator: A name such as "net_1/block_1/conv_1/convolution".

        Returns:
            A path such as "block/conv", as in the paths of the layer's variables unless several
            layers share that; None if the operator is from no layer of the model.
        """
        root, *scopes = operator.split("/")
        layer, chain = self._model, []
        if SUFFIX.sub("", root) != layer.name:
            return None
        for scope in scopes:
            inner = self._children_of(layer).get(SUFFIX.sub("", scope))
            if inner is not None:
                layer = inner
                chain.append(layer.name)
        return self._path(layer, chain)

    def layers(self) -> dict[str, Any]:
        """Return all layers inside the model by the path that `of` gives to their operators."""
        found: dict[str, Any] = {}

        def collect(layer: Any, chain: list[str]) -> None:
            for child in self._children_of(layer).values():
                inner = [*chain, child.name]
                found.setdefault(self._path(child, inner), child)
                collect(child, inner)

        collect(self._model, [])
        return found

    def _path(self, layer: Any, chain: list[str]) -> str:
        path = getattr(layer, "path", None) if chain else None
        path = path if self._uses[path] == 1 else None
        return str(path or "/".join(chain) or layer.name)

    def _children_of(self, layer: Any) -> dict[str, Any]:
        if id(layer) not in self._children:
            inner = layer._flatten_layers(include_self=False, recursive=False)
            self._children[id(layer)] = {child.name: child for child in inner}
        return self._children[id(layer)]


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
