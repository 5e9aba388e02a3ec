"""A graph from any exporter -> one that the fold can work on, and back.

`WorkingCopy.of` makes, in a copy, whatever the fold relies on: what depends on constants alone is a
constant; shapes and dtypes are inferred, from the weights too; each node has a name to be reported
by; and in a file of the IR before version 4, whose every weight had to be listed among the inputs,
weights are weights (ONNX Runtime does not let a caller replace them there, either).

`WorkingCopy.restored` takes all of it back in the folded graph but the constants, and the shapes of
outputs that have none, so that nothing else in it differs from the original.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import onnx_ir as ir

from ..graph.names import Names
from ..graph.onnx_inference import infer_shapes
from ..stages.constants.evaluate import evaluate_constants
from ..stages.simplify.told_shapes import tell_shapes
from .weight_files import read_small
from .whole import opset_of

__all__ = ["WorkingCopy"]

WEIGHTS_ARE_NO_INPUTS = 4  # from this version of the IR on


@dataclass(frozen=True)
class WorkingCopy:
    """A model made ready to be folded.

    Attributes:
        model: The copy.
        original: The model itself, unchanged.
        given_names: The names that nodes without one were given.
        replaceable: The names of weights that are inputs too, which a caller may replace.
        frozen: The names of those that are constants from now on.
    """

    model: ir.Model
    original: ir.Model
    given_names: frozenset[str]
    replaceable: frozenset[str]
    frozen: frozenset[str]

    @classmethod
    def of(cls, model: ir.Model, *, freeze: bool = False) -> "WorkingCopy":
        """Copy a model and make it ready; the model stays unchanged.

        Args:
            model: The model.
            freeze: Whether no weight is an input any more.
        """
        copy = model.clone()
        read_small(copy)
        names = _name_nodes(copy.graph)
        both = frozenset(str(v.name) for v in copy.graph.inputs if v.is_initializer())
        if copy.ir_version < WEIGHTS_ARE_NO_INPUTS or freeze:
            copy.graph.inputs[:] = [v for v in copy.graph.inputs if not v.is_initializer()]
        if copy.ir_version < WEIGHTS_ARE_NO_INPUTS:
            both = frozenset()
        none = frozenset[str]()
        opset = opset_of(copy)
        copy.graph.opset_imports.pop("ai.onnx", None)
        copy.graph.opset_imports[""] = opset
        _forget_negative_sizes(copy)
        infer_shapes(copy, lenient=True)
        copy = evaluate_constants(copy, grown=True)
        if _tell_shapes(copy):
            infer_shapes(copy, lenient=True)  # behind what was told
            _tell_shapes(copy)
        return cls(copy, model, names, none if freeze else both, both if freeze else none)

    def restored(self, folded: ir.Model) -> ir.Model:
        """Take back in a folded graph, in place, what was only for the fold.

        Args:
            folded: The folded graph; changed and returned.
        """
        graph, before = folded.graph, self.original.graph
        for node in graph.all_nodes():
            if node.name in self.given_names:
                node.name = ""
        self._restore_annotations(graph)
        if folded.ir_version < WEIGHTS_ARE_NO_INPUTS:
            _list_weights_as_inputs(graph, before)
        graph.opset_imports.clear()
        graph.opset_imports.update(before.opset_imports)
        folded.functions.clear()
        for identifier, function in self.original.functions.items():
            folded.functions[identifier] = function.clone()
        return folded

    def _restore_annotations(self, graph: ir.Graph) -> None:
        before = {str(v.name): (v.type, v.shape) for v in _made_in(self.original.graph)}
        inferred = [value.shape for value in graph.outputs]
        for value in _made_in(graph):
            type_, shape = before.get(str(value.name), (None, None))
            if shape is None or value.shape is None or len(shape) == len(value.shape):
                value.type, value.shape = type_, shape
        inputs = {value.name: value for value in self.original.graph.inputs}
        for value in graph.inputs:
            other = inputs[value.name]
            value.type, value.shape = other.type, other.shape
        outputs = zip(graph.outputs, self.original.graph.outputs, inferred, strict=True)
        for value, other, shape in outputs:
            value.type = other.type
            value.shape = shape if other.shape is None else other.shape  # onnx.checker wants one


def _tell_shapes(model: ir.Model) -> bool:
    told = tell_shapes(model.graph)
    for body in model.graph.subgraphs():
        told |= tell_shapes(body, inputs=False)
    return told


def _forget_negative_sizes(model: ir.Model) -> None:
    """Let a size of -1, as some exporters write one that is free, be unknown."""
    for value in (*model.graph.inputs, *model.graph.outputs, *_made_in(model.graph)):
        if value.shape is not None and any(isinstance(n, int) and n < 0 for n in value.shape):
            sizes = [None if isinstance(n, int) and n < 0 else n for n in value.shape]
            value.shape = ir.Shape(sizes)


def _made_in(graph: ir.Graph) -> Iterator[ir.Value]:
    """Yield what the nodes of a graph make, and of the graphs within it."""
    for node in graph.all_nodes():
        yield from node.outputs


def _name_nodes(graph: ir.Graph) -> frozenset[str]:
    """Name each node without a name after its output; return those names."""
    nodes = list(graph.all_nodes())
    names, given = Names(str(node.name) for node in nodes), set[str]()
    for node in nodes:
        if not node.name:
            output = next((value.name for value in node.outputs if value.name), node.op_type)
            node.name = names.new(str(output))
            given.add(node.name)
    return frozenset(given)


def _list_weights_as_inputs(graph: ir.Graph, before: ir.Graph) -> None:
    """List the weights among the inputs again, in their old order, new ones last."""
    there = {value.name: value for value in (*graph.inputs, *graph.initializers.values())}
    old = [there[value.name] for value in before.inputs if value.name in there]
    listed = set(old)
    new = [value for value in graph.initializers.values() if value not in listed]
    graph.inputs[:] = [*old, *new]
