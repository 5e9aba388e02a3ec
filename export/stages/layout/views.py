"""Transposes as views: what a graph computes, whatever order the axes are stored in.

A Transpose moves nothing here. Its result is a view of the tensor that it permutes, that of a
Transpose of a Transpose of that same tensor; a `root` is a tensor that is no view. All layouts of
a tensor and of its views are written as permutations of the root:

    stored = transpose(view, p),  view = transpose(root, q)   =>   stored = transpose(root, q[p])
"""

import onnx_ir as ir

from ...graph.exact import is_constant
from ...graph.operators import is_onnx
from .permutation import Layout, Permutation, Shuffled, compose, identity, inverse

__all__ = ["Views", "permutation"]


def permutation(node: ir.Node) -> Permutation | None:
    """Return the permutation of a Transpose whose input varies, None for any other node."""
    if node.op_type != "Transpose" or not is_onnx(node):
        return None
    data = node.inputs[0]
    if data is None or is_constant(data):
        return None
    perm = node.attributes.get("perm")
    if perm is not None:
        return tuple(perm.as_ints())
    return None if data.shape is None else tuple(reversed(range(len(data.shape))))


class Views:
    """The roots and views of a graph.

    Args:
        graph: Its nodes in topological order.

    Attributes:
        nodes: All but the Transposes, in order.
        transposes: The Transposes, each with its permutation.
        members: By root, itself and its views.
        pinned: The tensors that something outside the list of nodes reads as they are: outputs,
            and what subgraphs capture.
    """

    def __init__(self, graph: ir.Graph) -> None:
        self.nodes: list[ir.Node] = []
        self.transposes: dict[ir.Node, Permutation] = {}
        self.members: dict[ir.Value, list[ir.Value]] = {}
        self.pinned: dict[ir.Value, None] = dict.fromkeys(graph.outputs)
        self._view: dict[ir.Value, tuple[ir.Value, Permutation]] = {}
        self._identity: dict[ir.Value, Permutation] = {}
        for value in graph.inputs:
            self._add_root(value)
        for node in graph:
            perm = permutation(node)
            if perm is None:
                self.nodes.append(node)
                for output in node.outputs:
                    self._add_root(output)
            else:
                self._add_view(node, perm)
        for subgraph in graph.subgraphs():
            self.pinned.update(dict.fromkeys(subgraph.outputs))
            for node in subgraph:
                self.pinned.update(dict.fromkeys(v for v in node.inputs if v is not None))

    def _add_root(self, value: ir.Value) -> None:
        self.members[value] = [value]
        if value.shape is not None:
            self._identity[value] = identity(len(value.shape))

    def _add_view(self, node: ir.Node, perm: Permutation) -> None:
        data, result = node.inputs[0], node.outputs[0]
        if data not in self._view and data not in self.members:  # such as an overridable weight
            self._add_root(data)  # type: ignore[arg-type]
        if data not in self._view and data not in self._identity:
            self._identity[data] = identity(len(perm))  # type: ignore[index]
        root, before = self.root(data)  # type: ignore[arg-type]
        self.transposes[node] = perm
        self._view[result] = root, compose(before, perm)
        self.members[root].append(result)

    def root(self, value: ir.Value) -> tuple[ir.Value, Permutation]:
        """Return a tensor's root and the permutation from there, () if the rank is unknown."""
        view = self._view.get(value)
        return view if view is not None else (value, self._identity.get(value, ()))

    def of_root(self, value: ir.Value, layout: Layout | None) -> Layout:
        """Write a layout of a tensor as one of its root; None is the tensor as it is."""
        perm = self.root(value)[1]
        if layout is None:
            return perm
        if isinstance(layout, Shuffled):
            return layout
        return compose(perm, layout)

    def of_view(self, value: ir.Value, layout: Layout) -> Layout | None:
        """Write a layout of a tensor's root as one of the tensor, if there is one."""
        perm = self.root(value)[1]
        if isinstance(layout, Shuffled):
            return layout if perm == identity(len(perm)) else None
        return compose(inverse(perm), layout)
