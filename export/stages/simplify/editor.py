"""Changes to a graph that keep every name, shape and type right.

A rule of `simplify` says which tensor equals which; what that takes in the graph is done here: a
graph output keeps its name whoever produces it, a constant that others read is copied and never
edited, and every new value carries its dtype and its shape.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ...graph.bypass import bypass
from ...graph.exact import constant, rearranged
from ...graph.names import Names
from ...graph.operators import is_standard
from .shapes.known import KnownShapes
from .shapes.sizes import Shape, Size

__all__ = ["Editor"]


class Editor:
    """A graph under change, with what is known of its shapes.

    Attributes:
        graph: The graph; its nodes are in topological order and stay so.
        known: Its shapes.
        opset: Version of ONNX's own operators.
    """

    def __init__(self, graph: ir.Graph, known: KnownShapes) -> None:
        self.graph, self.known = graph, known
        self.opset = int(graph.opset_imports.get("", graph.opset_imports.get("ai.onnx", 0)))
        self._names = Names.of(graph)
        self._dimensions: dict[Size, str] = {}
        for value in (*graph.inputs, *(output for node in graph for output in node.outputs)):
            self._note_dimensions(value)

    def nodes(self, *op_types: str) -> list[ir.Node]:
        """Return the nodes of these types that are ONNX's own and hold no graph, in order."""
        return [node for node in self.graph if node.op_type in op_types and is_standard(node)]

    def producer(self, value: ir.Value | None, *op_types: str) -> ir.Node | None:
        """Return the node that makes a value, if it is of one of these types."""
        node = value.producer() if value is not None else None
        if node is None or node.op_type not in op_types or not is_standard(node):
            return None
        return node if node.graph is self.graph else None

    def is_read_once(self, value: ir.Value) -> bool:
        """Say whether one node reads a value, once, and nobody else does."""
        return len(value.uses()) == 1 and not value.is_graph_output()

    def only_reader(self, node: ir.Node) -> ir.Node | None:
        """Return the node that alone reads the output of another, once."""
        output = node.outputs[0]
        return next(iter(output.uses())).node if self.is_read_once(output) else None

    def bypass(self, node: ir.Node, source: ir.Value) -> bool:
        """Let everyone read `source` instead of a node's output, which equals it.

        Returns:
            Whether the graph has changed. Where a graph input or a constant is a graph output, an
            Identity has to give it that name.
        """
        both_named = source.producer() is None or source.is_graph_output()
        if not (node.outputs[0].is_graph_output() and both_named):
            bypass(node, source)
        elif node.op_type == "Identity":
            return False
        else:
            self.replace(node, "Identity", [source])
        return True

    def replace(
        self,
        node: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None = None,
    ) -> ir.Node:
        """Put another node in the place of one that makes the same tensor."""
        old = node.outputs[0]
        new = ir.node(op_type, inputs, dict(attributes or {}), name=node.name)
        output = new.outputs[0]
        output.shape, output.type = old.shape, old.type
        output.meta.update(old.meta)
        self.known.learn(output, self.known.shape(old))
        self.graph.insert_before(node, new)
        name = old.name
        old.replace_all_uses_with(output, replace_graph_outputs=True)
        self.graph.remove(node, safe=True)
        output.name = name
        return new

    def insert(
        self,
        before: ir.Node,
        op_type: str,
        inputs: Sequence[ir.Value | None],
        attributes: Mapping[str, Any] | None,
        shape: Shape | None,
        wanted: str,
    ) -> ir.Value:
        """Insert a node and return its output, of the dtype of its first input."""
        name = self._names.new(wanted)
        node = ir.node(op_type, inputs, dict(attributes or {}), name=name)
        output = node.outputs[0]
        output.name = name
        first = inputs[0]
        output.type = first.type if first is not None else None
        output.shape = self.declared(shape)
        self.known.learn(output, shape)
        self.graph.insert_before(before, node)
        return output

    def integers(self, wanted: str, elements: Any, dtype: Any = np.int64) -> ir.Value:
        """Return a new constant of integers."""
        return self.constant(wanted, ir.tensor(np.array(elements, dtype)))

    def constant(self, wanted: str, tensor: ir.TensorProtocol) -> ir.Value:
        """Return a new constant."""
        value = constant(self._names.new(wanted), tensor)
        self.graph.register_initializer(value)
        return value

    def rearranged(
        self, value: ir.Value, suffix: str, move: Callable[[np.ndarray], np.ndarray]
    ) -> ir.Value:
        """Return a constant with its elements moved, as a new one."""
        tensor = value.const_value
        if tensor is None:
            raise ValueError(f"Editor: `value` must be a constant. Received: value={value}.")
        moved = self.constant(f"{value.name}/{suffix}", rearranged(tensor, move))
        moved.meta.update(value.meta)
        return moved

    def declared(self, shape: Shape | None) -> ir.Shape | None:
        """Return a shape as the graph declares it; equal dimensions have equal names."""
        if shape is None:
            return None
        return ir.Shape(
            size if isinstance(size, int) else self._dimensions.get(size) for size in shape
        )

    def declare_shapes(self) -> None:
        """Write what is known of every shape into the graph; its outputs stay as they are."""
        for node in self.graph:
            for output in node.outputs:
                if not output.is_graph_output():
                    self._declare(output)

    def _declare(self, value: ir.Value) -> None:
        shape = self.known.shape(value)
        if shape is None:
            return
        old = value.shape
        if old is None:
            value.shape = self.declared(shape)
            return
        dimensions: list[Any] = []
        for size, dimension in zip(shape, old, strict=True):
            name = None if isinstance(size, int) else self._dimensions.get(size)
            dimensions.append(size if isinstance(size, int) else name if name else dimension)
        if dimensions != list(old):
            value.shape = ir.Shape(dimensions)

    def _note_dimensions(self, value: ir.Value) -> None:
        shape = self.known.shape(value)
        if shape is None or value.shape is None:
            return
        for size, dimension in zip(shape, value.shape, strict=True):
            name = None if isinstance(dimension, int) else dimension.value
            if name is not None and not isinstance(size, int):
                self._dimensions.setdefault(size, name)
